"""Every schedule against its formula and against PyTorch's class run by hand; state that survives JSON, bit for bit."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from bert_ops.errors import InputError
from bert_ops.training.params import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    MultiStepSchedule,
    ScheduleParams,
    StepSchedule,
    WsdSchedule,
)
from bert_ops.training.schedule import Schedule, rates
from bert_ops.training.schedule_steps import drops, misfit

STEPS, PEAK = 100, 2e-3

#: Share of the peak at a step after warmup, of so many that are left: the formulas in the papers and manuals.
FORMULAS: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, left: 1.0,
    "linear": lambda step, left: 1 + (0.1 - 1) * step / left,
    "cosine": lambda step, left: 0.1 + 0.9 * (1 + math.cos(math.pi * step / left)) / 2,
    "step": lambda step, left: 0.5 ** (step // 20),
    "multistep": lambda step, left: 0.3 ** sum(step >= milestone - (STEPS - left) for milestone in (30, 31, 80)),
    "wsd": lambda step, left: 1 + (0.1 - 1) * max(0, step - (left - 25)) / 25,
}


def made(kind: str, warmup: int) -> ScheduleParams:
    return {
        "constant": ConstantSchedule(kind="constant", warmup_steps=warmup),
        "linear": LinearSchedule(kind="linear", warmup_steps=warmup, final_share=0.1),
        "cosine": CosineSchedule(kind="cosine", warmup_steps=warmup, final_share=0.1),
        "step": StepSchedule(kind="step", warmup_steps=warmup, every_steps=20, factor=0.5),
        "multistep": MultiStepSchedule(kind="multistep", warmup_steps=warmup, milestones=[30, 31, 80], factor=0.3),
        "wsd": WsdSchedule(kind="wsd", warmup_steps=warmup, decay_steps=25, final_share=0.1),
    }[kind]


def schedule(params: ScheduleParams, *, steps: int = STEPS, peaks: tuple[float, ...] = (PEAK,)) -> Schedule:
    groups = [{"params": [torch.zeros(1)], "lr": peak} for peak in peaks]
    return Schedule(torch.optim.SGD(groups, lr=1.0), params, total_steps=steps)


@pytest.mark.parametrize("warmup", [0, 1, 2, 10])
@pytest.mark.parametrize("kind", FORMULAS)
def test_rates_are_the_formula_behind_a_linear_warmup(kind: str, warmup: int) -> None:
    left = STEPS - warmup
    expected = [(step + 1) / warmup for step in range(warmup)] + [FORMULAS[kind](step, left) for step in range(left)]
    found = rates(made(kind, warmup), learning_rate=PEAK, total_steps=STEPS)
    np.testing.assert_allclose(found, PEAK * np.array(expected), rtol=1e-11)
    assert (found > 0).all()


@pytest.mark.parametrize("kind", FORMULAS)
def test_rates_are_those_of_the_class_of_pytorch(kind: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=PEAK)
    by_hand = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "linear": lambda: lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=STEPS),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=0.1 * PEAK),
        "step": lambda: lr_scheduler.StepLR(optimizer, step_size=20, gamma=0.5),
        "multistep": lambda: lr_scheduler.MultiStepLR(optimizer, milestones=[30, 31, 80], gamma=0.3),
        "wsd": lambda: lr_scheduler.SequentialLR(
            optimizer,
            [
                lr_scheduler.ConstantLR(optimizer, factor=1.0),
                lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=25),
            ],
            milestones=[75],
        ),
    }[kind]()
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        by_hand.step()
    np.testing.assert_allclose(rates(made(kind, 0), learning_rate=PEAK, total_steps=STEPS), expected, rtol=1e-12)


def test_a_falling_rate_reaches_its_share_after_the_last_step_and_no_step_has_none() -> None:
    for params in (
        LinearSchedule(kind="linear", warmup_steps=3, final_share=0.0),
        CosineSchedule(kind="cosine", warmup_steps=3, final_share=0.0),
        WsdSchedule(kind="wsd", warmup_steps=3, decay_steps=97, final_share=0.0),
    ):
        one = schedule(params)
        for _ in range(STEPS):
            assert one.share() > 0
            one.step()
        assert one.share() == pytest.approx(0.0, abs=1e-12)


def test_a_long_run_keeps_its_digits() -> None:
    steps, warmup = 20_000, 2_000
    found = rates(
        LinearSchedule(kind="linear", warmup_steps=warmup, final_share=0.0), learning_rate=1.0, total_steps=steps
    )
    expected = [(s + 1) / warmup if s < warmup else 1 - (s - warmup) / (steps - warmup) for s in range(steps)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_groups_keep_their_own_peaks_and_the_scale_comes_on_top() -> None:
    one = schedule(made("linear", 10), peaks=(PEAK, 5 * PEAK))
    one.set_scale(0.25)
    for step in range(30):
        share = one.share()
        assert [group["lr"] for group in one.optimizer.param_groups] == [PEAK * share * 0.25, 5 * PEAK * share * 0.25]
        assert one.rate() == PEAK * share
        assert share == pytest.approx((step + 1) / 10 if step < 10 else FORMULAS["linear"](step - 10, 90))
        one.step()


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("kind", FORMULAS)
def test_a_restored_schedule_goes_on_bit_for_bit(kind: str, warmup: int) -> None:
    rng = random.Random(f"{kind}{warmup}")
    params = made(kind, warmup)
    for stop in [0, warmup, STEPS - 1, *rng.sample(range(STEPS), 6)]:
        whole = schedule(params)
        for step in range(stop):
            whole.set_scale(1 / (step + 1))
            whole.step()
        state = json.loads(json.dumps(whole.state(), allow_nan=False))
        resumed = schedule(params)
        for _ in range(rng.randrange(STEPS)):
            resumed.step()  # a rollback restores an object that has gone on
        resumed.restore(state)
        for _ in range(STEPS - stop):
            assert resumed.share() == whole.share() and resumed.rate() == whole.rate()
            assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]
            whole.step()
            resumed.step()
        assert json.dumps(resumed.state()) == json.dumps(whole.state())


def test_the_state_does_not_grow_with_the_step() -> None:
    one = schedule(made("multistep", 10))
    sizes = set()
    for _ in range(STEPS):
        one.step()
        sizes.add(len(json.dumps(one.state())) // 200)
    assert len(sizes) <= 2


def test_no_scheduler_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in FORMULAS:
            rates(made(kind, 10), learning_rate=PEAK, total_steps=STEPS)


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        (
            LinearSchedule(kind="linear", warmup_steps=100, final_share=0.0),
            ["warmup_steps 100", "steps 100", "at most 99"],
        ),
        (ConstantSchedule(kind="constant", warmup_steps=500), ["warmup_steps 500", "steps 100", "at most 99"]),
        (
            WsdSchedule(kind="wsd", warmup_steps=20, decay_steps=81, final_share=0.0),
            ["decay_steps 81", "80 steps", "at most 80"],
        ),
        (
            MultiStepSchedule(kind="multistep", warmup_steps=0, milestones=[50, 100], factor=0.1),
            ["milestones are [50, 100]", "before steps 100"],
        ),
        (
            MultiStepSchedule(kind="multistep", warmup_steps=50, milestones=[50, 60], factor=0.1),
            ["milestones are [50, 60]", "after warmup_steps 50"],
        ),
        (
            MultiStepSchedule(kind="multistep", warmup_steps=0, milestones=[60, 50], factor=0.1),
            ["milestones are [60, 50]", "ascending"],
        ),
        (
            MultiStepSchedule(kind="multistep", warmup_steps=0, milestones=[50, 50], factor=0.1),
            ["milestones are [50, 50]", "ascending"],
        ),
        (
            StepSchedule(kind="step", warmup_steps=10, every_steps=5, factor=0.1),
            ["schedule.factor 0.1", "at step 45", "ends before training, which has 100 steps", "nearer to 1"],
        ),
        (
            MultiStepSchedule(kind="multistep", warmup_steps=0, milestones=[10, 20], factor=1e-4),
            ["schedule.factor 0.0001", "at step 20", "ends before training"],
        ),
    ],
)
def test_a_schedule_that_does_not_fit_the_run_is_refused(params: ScheduleParams, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        schedule(params)
    for part in [*parts, "remedy:", "allowed:"]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "params",
    [
        LinearSchedule(kind="linear", warmup_steps=99, final_share=0.0),
        WsdSchedule(kind="wsd", warmup_steps=20, decay_steps=80, final_share=0.0),
        MultiStepSchedule(kind="multistep", warmup_steps=20, milestones=[21, 99], factor=1e-3),
        StepSchedule(kind="step", warmup_steps=0, every_steps=1000, factor=0.1),
        StepSchedule(kind="step", warmup_steps=0, every_steps=1, factor=0.9),
    ],
)
def test_one_that_just_fits_is_taken(params: ScheduleParams) -> None:
    assert misfit(params, steps=STEPS) is None
    assert (rates(params, learning_rate=PEAK, total_steps=STEPS) > 0).all()


@pytest.mark.parametrize("kind", ["step", "multistep"])
def test_drops_are_where_the_rate_falls(kind: str) -> None:
    params = made(kind, 7)
    found = rates(params, learning_rate=PEAK, total_steps=STEPS)
    assert drops(params, steps=STEPS) == [step for step in range(8, STEPS) if found[step] < 0.9 * found[step - 1]]
    assert drops(made("cosine", 7), steps=STEPS) == []
