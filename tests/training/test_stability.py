"""The guard leaves out what is broken, and nothing else: planted sequences, and properties over random curves."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.errors import InputError
from bert_ops.schema import validate
from bert_ops.training.params import StabilityParams
from bert_ops.training.stability import StabilityGuard, Verdict

NAN, INF = math.nan, math.inf


def params(**changes) -> StabilityParams:
    values = {
        "spike_deviations": 6.0,
        "window": 100,
        "max_skips_in_a_row": 5,
        "rate_factor": 0.5,
        "max_rollbacks": 2,
    }
    return StabilityParams(**{**values, **changes})


def curve(*, seed: int, noise: float = 0.03, level: float = 2.0, start: float = 10.0, pace: float = 300.0) -> Iterator:
    """A loss that falls from ``start`` to ``level`` with noise proportional to it."""
    rng = random.Random(seed)
    step = 0
    while True:
        loss = level + (start - level) * math.exp(-step / pace)
        yield loss * (1 + rng.gauss(0, noise))
        step += 1


def calm(guard: StabilityGuard, steps: int, *, seed: int = 0, **shape) -> Iterator:
    """Feed a curve and expect no objection; returns it for more."""
    losses = curve(seed=seed, **shape)
    for _ in range(steps):
        assert guard.judge(loss=next(losses), norm=1.0) == "ok"
    return losses


def feed(guard: StabilityGuard, losses: list[float], norm: float = 1.0) -> list[Verdict]:
    return [guard.judge(loss=loss, norm=norm) for loss in losses]


@given(
    seed=st.integers(0, 10**6),
    noise=st.floats(0, 0.1),
    pace=st.floats(5, 2000),
    level=st.floats(0.5, 8.0),
    window=st.sampled_from([50, 100, 200]),
)
def test_a_falling_noisy_curve_is_never_skipped(seed, noise, pace, level, window) -> None:
    guard = StabilityGuard(params(window=window, spike_deviations=8.0))
    calm(guard, 400, seed=seed, noise=noise, pace=pace, level=level)
    assert guard.skipped == 0 and guard.rate_scale == 1.0


@given(seed=st.integers(0, 10**6), noise=st.floats(0.01, 0.1), after=st.integers(150, 400))
def test_a_jump_of_ten_deviations_is_skipped_and_training_goes_on(seed, noise, after) -> None:
    guard = StabilityGuard(params())
    losses = calm(guard, after, seed=seed, noise=noise, start=2.0)
    assert feed(guard, [2.0 * (1 + 10 * noise) + 4 * 2.0 * noise]) == ["skip"]
    assert feed(guard, [next(losses) for _ in range(20)]) == ["ok"] * 20
    assert guard.skipped == 1 and guard.rollbacks == 0


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (-INF, 1.0), (2.0, NAN), (2.0, INF), (NAN, NAN)])
def test_what_is_no_number_is_skipped_from_the_first_step(loss: float, norm: float) -> None:
    guard = StabilityGuard(params(spike_deviations=0.0))
    assert guard.judge(loss=loss, norm=norm, step=1) == "skip"
    assert guard.judge(loss=3.0, norm=1.0, step=2) == "ok"
    assert guard.skipped == 1


def test_without_spike_deviations_only_numbers_are_looked_at() -> None:
    guard = StabilityGuard(params(spike_deviations=0.0))
    calm(guard, 150)
    assert guard.spike_bound() is None
    assert feed(guard, [1e9]) == ["ok"]


def test_the_first_losses_are_not_compared_with_too_few() -> None:
    guard = StabilityGuard(params())
    assert feed(guard, [2.0] * 19 + [2.9]) == ["ok"] * 20
    assert feed(guard, [4.5]) == ["skip"]


def test_a_small_window_keeps_enough_losses_while_steps_are_skipped() -> None:
    guard = StabilityGuard(params(window=10, max_skips_in_a_row=5))
    assert feed(guard, [2.0] * 10) == ["ok"] * 10
    assert feed(guard, [2.9] * 5) == ["skip"] * 4 + ["rollback"]


def test_skips_in_a_row_lead_to_a_rollback_and_rollbacks_to_a_stop() -> None:
    """NaN that comes back after every rollback: broken updates, or a broken machine."""
    guard = StabilityGuard(params())
    calm(guard, 50)
    for rollback in range(1, 3):
        assert feed(guard, [NAN] * 5) == ["skip"] * 4 + ["rollback"]
        guard.rolled_back()
        assert guard.rate_scale == 0.5**rollback
        calm(guard, 30, seed=rollback)
    assert feed(guard, [NAN] * 5) == ["skip"] * 4 + ["stop"]
    assert guard.skipped == 15 and guard.rollbacks == 2


def test_a_good_step_between_skips_starts_the_count_anew() -> None:
    guard = StabilityGuard(params(max_skips_in_a_row=2))
    calm(guard, 50)
    assert feed(guard, [NAN, 8.0, NAN, 8.0, NAN]) == ["skip", "ok", "skip", "ok", "skip"]


def test_the_good_step_is_one_whose_weights_have_been_seen_to_work() -> None:
    guard = StabilityGuard(params(max_skips_in_a_row=3))
    for step in range(1, 51):
        assert guard.judge(loss=2.0, norm=1.0, step=step) == "ok"
    # The update of step 50 broke the weights: its own loss, measured before it, was in order.
    verdicts = [guard.judge(loss=NAN, norm=1.0, step=step) for step in (51, 52, 53)]
    assert verdicts == ["skip", "skip", "rollback"]
    assert guard.good_step == 49


def test_weights_that_broke_are_healed_by_a_rollback() -> None:
    guard = StabilityGuard(params())
    losses = calm(guard, 300, start=2.0)
    state = guard.state()
    feed(guard, [next(losses) for _ in range(50)])
    assert feed(guard, [6.0] * 5) == ["skip"] * 4 + ["rollback"]
    guard.rolled_back(state)
    assert guard.good_step <= 300
    assert feed(guard, [next(losses) for _ in range(100)]) == ["ok"] * 100
    assert feed(guard, [6.0]) == ["skip"], "the guard looks out as before"


def test_an_early_checkpoint_is_judged_by_the_losses_of_its_time() -> None:
    """On a steep curve the restored weights' loss is far above the recent ones, and in order all the same."""
    guard = StabilityGuard(params(window=50))
    losses = curve(seed=3, pace=150.0, noise=0.01)
    early = []
    for step in range(600):
        loss = next(losses)
        assert guard.judge(loss=loss, norm=1.0) == "ok"
        if step == 100:
            state = guard.state()
        if 100 < step <= 130:
            early.append(loss)
    assert feed(guard, [NAN] * 5)[-1] == "rollback"
    assert early[0] > guard.spike_bound()
    guard.rolled_back(state)
    assert feed(guard, early) == ["ok"] * 30


def test_a_lasting_new_level_becomes_the_normal_one_after_one_rollback() -> None:
    """A harder source begins: good weights have the higher loss too, from the first step after the rollback."""
    guard = StabilityGuard(params())
    losses = calm(guard, 400, pace=50.0)
    state = guard.state()
    higher = [next(losses) + 3.0 for _ in range(200)]
    assert feed(guard, higher[:5]) == ["skip"] * 4 + ["rollback"]
    guard.rolled_back(state)
    assert feed(guard, higher[5:]) == ["skip"] * 4 + ["ok"] * 191
    assert guard.rollbacks == 1 and guard.skipped == 9


def test_a_loss_far_above_that_of_untrained_weights_is_never_normal() -> None:
    """No text is that hard: after the rollbacks the run stops."""
    guard = StabilityGuard(params())
    calm(guard, 400, pace=50.0)
    for _ in range(2):
        state = guard.state()
        assert feed(guard, [1000.0] * 5)[-1] == "rollback"
        guard.rolled_back(state)
    assert feed(guard, [1000.0] * 5) == ["skip"] * 4 + ["stop"]


def test_a_hard_kind_of_text_is_not_left_out_for_ever() -> None:
    """One batch in ten is far harder than the rest, never several in a row: it is data like any other."""
    guard = StabilityGuard(params())
    losses = calm(guard, 400, pace=50.0, noise=0.02)
    verdicts = feed(guard, [next(losses) + (3.0 if step % 10 == 0 else 0.0) for step in range(1000)])
    assert "rollback" not in verdicts
    assert 3 <= guard.skipped <= 10
    assert set(verdicts[200:]) == {"ok"}


def test_rare_spikes_stay_spikes() -> None:
    guard = StabilityGuard(params())
    losses = calm(guard, 400, pace=50.0, noise=0.02)
    verdicts = feed(guard, [next(losses) + (3.0 if step % 50 == 49 else 0.0) for step in range(1000)])
    assert verdicts.count("skip") == 20


def test_spikes_before_a_run_of_skips_do_not_stand_in_for_a_rollback() -> None:
    guard = StabilityGuard(params())
    losses = calm(guard, 400, pace=50.0, noise=0.02)
    for _ in range(3):
        feed(guard, [6.0] + [next(losses) for _ in range(10)])
    assert guard.skipped == 3
    assert feed(guard, [6.0] * 5) == ["skip"] * 4 + ["rollback"]


def test_a_curve_without_noise_may_wiggle() -> None:
    guard = StabilityGuard(params())
    assert feed(guard, [2.0] * 100 + [2.05, 1.9, 2.1]) == ["ok"] * 103
    assert feed(guard, [2.5]) == ["skip"]


def test_a_loss_scaler_may_look_for_its_scale() -> None:
    guard = StabilityGuard(params())
    verdicts = [guard.judge(loss=9.0, norm=INF, may_overflow=True) for _ in range(16)]
    assert verdicts == ["skip"] * 16
    assert guard.judge(loss=9.0, norm=1.0, may_overflow=True) == "ok"
    # A scale that no number of halvings finds is no search any more.
    verdicts = [guard.judge(loss=9.0, norm=INF, may_overflow=True) for _ in range(35)]
    assert verdicts == ["skip"] * 34 + ["rollback"]
    # A loss that is no number is none at any scale.
    guard.rolled_back()
    verdicts = [guard.judge(loss=NAN, norm=NAN, may_overflow=True) for _ in range(5)]
    assert verdicts == ["skip"] * 4 + ["rollback"]


def test_the_diagnosis_says_what_where_and_what_to_try() -> None:
    guard = StabilityGuard(params(max_rollbacks=0))
    for step in range(1, 101):
        guard.judge(loss=2.0, norm=1.0, step=step)
    for step, loss in enumerate([7.5, NAN, 7.5, 7.5, INF], 101):
        verdict = guard.judge(loss=loss, norm=3.0, step=step)
    assert verdict == "stop"
    text = guard.diagnosis()
    assert "5 steps were left out" in text
    assert "step 101: loss 7.5, gradient norm 3: the loss is above 2.12, 6 deviations over the recent mean" in text
    assert "step 102: loss nan" in text and "step 105: loss inf" in text
    assert "learning_rate" in guard.remedy() and "float32" in guard.remedy() and "spike_deviations" in guard.remedy()
    assert guard.last_reason() == "the loss is not a finite number"
    only_numbers = StabilityGuard(params())
    only_numbers.judge(loss=NAN, norm=1.0)
    assert "spike_deviations" not in only_numbers.remedy()


@given(
    values=st.lists(
        st.one_of(st.floats(0.1, 20.0), st.just(NAN), st.just(INF), st.just(1e6)), min_size=1, max_size=150
    ),
    cut=st.integers(0, 150),
)
def test_a_restored_guard_goes_on_bit_for_bit(values, cut) -> None:
    def run(guard: StabilityGuard, some: list[float]) -> list[Verdict]:
        verdicts = []
        for loss in some:
            verdicts.append(guard.judge(loss=loss, norm=1.0))
            if verdicts[-1] == "rollback":
                guard.rolled_back()
        return verdicts

    whole, first, second = (StabilityGuard(params(window=20, max_skips_in_a_row=3)) for _ in range(3))
    expected = run(whole, values)
    got = run(first, values[:cut])
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert got + run(second, values[cut:]) == expected
    assert second.state() == whole.state()
    assert second.spike_bound() == whole.spike_bound()


def test_a_window_that_skips_could_fill_is_refused() -> None:
    raw = params().model_dump() | {"window": 10, "max_skips_in_a_row": 6}
    with pytest.raises(InputError, match="max_skips_in_a_row 6 exceeds half of window 10"):
        validate(raw, StabilityParams, where="pretrain.stability", source="params.yaml")
