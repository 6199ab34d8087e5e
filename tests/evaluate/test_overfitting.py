"""The detector on curves whose kind is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.evaluate import overfitting
from bert_ops.evaluate.overfitting import History
from bert_ops.evaluate.params import OverfittingParams

PARAMS = OverfittingParams(
    min_evaluations=8, smoothing=3, generalization_loss=0.05, significance=0.05, accuracy_points=2.0
)
INDEX = np.arange(16)
FALLING = 0.7 * np.exp(-INDEX / 4) + 0.02
LEARNING = 0.4 + 0.3 * np.exp(-INDEX / 2)


def judge(
    validation: np.ndarray,
    train: np.ndarray,
    *,
    accuracy: np.ndarray | None = None,
    examples: int | None = 400,
    seed: int = 0,
    **more: Any,
) -> overfitting.Overfitting:
    rng = np.random.default_rng(seed)
    losses = None
    if examples is not None:
        losses = validation[:, None] + rng.normal(0, 0.5, examples) + rng.normal(0, 0.05, (len(validation), examples))
        validation = losses.mean(axis=1)
    history = History(
        step=np.arange(1, len(validation) + 1) * 50,
        train_loss=train[: len(validation)],
        validation_loss=validation,
        validation_accuracy=accuracy,
    )
    return overfitting.judge(history, params=PARAMS, resamples=500, rng=rng, validation_losses=losses, **more)


def test_validation_rising_while_training_falls_fails() -> None:
    rising = LEARNING + 0.015 * np.maximum(0, INDEX - 6)
    found = judge(rising, FALLING)
    assert (found.verdict, found.flag, found.kept_verdict) == ("fail", True, "fail")
    assert all(found.evidence.values())
    assert found.return_to_step is not None and 250 <= found.return_to_step <= 400
    assert found.onset_step is not None and found.return_to_step < found.onset_step <= 800
    assert found.last_minus_best_ci95 is not None and found.last_minus_best_ci95[0] > 0
    assert f"Go back to step {found.return_to_step}" in found.advice
    assert found.gap is not None and found.gap_ci95 is not None and found.gap_ci95[0] < found.gap < found.gap_ci95[1]


@pytest.mark.parametrize("seed", range(10))
def test_learning_curves_with_noise_are_healthy(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.004, 16)
    found = judge(LEARNING + noise, FALLING, seed=seed)
    assert found.verdict == "healthy"
    assert found.onset_step is None
    assert not found.flag


def test_a_wide_gap_alone_is_not_overfitting() -> None:
    found = judge(LEARNING + 0.5, FALLING)
    assert found.verdict == "healthy"
    assert found.gap is not None and found.gap > 0.8


def test_a_single_bad_evaluation_is_smoothed_away() -> None:
    curve = LEARNING.copy()
    curve[-1] *= 1.3
    assert judge(curve, FALLING).verdict == "healthy"


def test_divergence_is_told_from_overfitting() -> None:
    rising = LEARNING + 0.02 * np.maximum(0, INDEX - 6)
    train = 0.3 + 0.02 * np.maximum(0, INDEX - 4) + 0.3 * np.exp(-INDEX)
    found = judge(rising, train)
    assert found.verdict == "warn"
    assert found.evidence["training_loss_falls"] is False
    assert "divergence, not overfitting" in found.headline
    assert "learning rate" in found.advice


def test_without_losses_of_examples_it_warns_and_does_not_fail() -> None:
    found = judge(LEARNING + 0.015 * np.maximum(0, INDEX - 6), FALLING, examples=None)
    assert found.verdict == "warn"
    assert found.evidence["paired_bootstrap"] is None
    assert found.last_minus_best is None and found.gap_ci95 is None


def test_a_small_but_certain_rise_warns() -> None:
    # 3% above the minimum: below the threshold of GL, but a trend, and certain on 4,000 examples
    rising = LEARNING + 0.0015 * np.maximum(0, INDEX - 6)
    found = judge(rising, FALLING, examples=4000)
    assert found.evidence["generalization_loss"] is False
    assert found.verdict == "warn"
    assert "short of proof" in found.headline


def test_few_evaluations_are_not_enough_evidence() -> None:
    found = judge((LEARNING + 0.05 * INDEX)[:7], FALLING)
    assert (found.verdict, found.kept_verdict, found.flag) == ("not_enough_evidence", "not_enough_evidence", False)
    assert "7 evaluations, 8 are needed" in found.headline
    empty = judge(np.array([]), np.array([]), examples=None)
    assert empty.verdict == "not_enough_evidence" and empty.gap is None and empty.return_to_step is None


def test_weights_from_before_the_rise_are_healthy_though_the_run_is_not() -> None:
    rising = LEARNING + 0.015 * np.maximum(0, INDEX - 6)
    best = judge(rising, FALLING).return_to_step
    found = judge(rising, FALLING, kept_step=best)
    assert (found.verdict, found.kept_verdict, found.flag) == ("fail", "healthy", True)
    assert f"The weights kept are those of step {best}" in found.advice
    later = judge(rising, FALLING, kept_step=800)
    assert later.kept_verdict == "fail"


def test_loss_and_accuracy_are_told_apart() -> None:
    rising = LEARNING + 0.015 * np.maximum(0, INDEX - 6)
    kept = judge(rising, FALLING, accuracy=np.full(16, 0.8))
    assert (kept.accuracy_verdict, kept.accuracy_points_lost) == ("kept", 0.0)
    assert "overconfident" in kept.headline
    lost = judge(rising, FALLING, accuracy=0.85 - 0.005 * INDEX)
    assert lost.accuracy_verdict == "lost" and lost.accuracy_points_lost is not None
    assert lost.accuracy_points_lost > 2
    assert f"by {lost.accuracy_points_lost:.1f} points" in lost.headline
    assert judge(rising, FALLING).accuracy_verdict == "not_measured"


def test_training_that_ended_too_early_is_said_to_have() -> None:
    found = judge(1.0 - 0.03 * INDEX, FALLING)
    assert found.still_falling and "still falling" in found.headline


def test_mann_kendall_known_values() -> None:
    assert overfitting.mann_kendall(np.arange(10.0)) == pytest.approx(4.15e-5, rel=0.01)  # S=45, z=44/sqrt(125)
    assert overfitting.mann_kendall(np.arange(10.0)[::-1]) == pytest.approx(1 - 4.15e-5)
    assert overfitting.mann_kendall(np.ones(10)) == 1.0
    assert overfitting.mann_kendall(np.array([1.0, 2.0])) == 1.0


def test_mann_kendall_keeps_its_error_rate() -> None:
    rng = np.random.default_rng(0)
    alarms = np.mean([overfitting.mann_kendall(rng.normal(size=10)) < 0.05 for _ in range(1500)])
    assert 0.025 < alarms < 0.065


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30), st.integers(1, 7))
def test_running_median_looks_back_only(values: list[float], window: int) -> None:
    curve = np.array(values)
    smooth = overfitting.running_median(curve, window=window)
    assert len(smooth) == len(curve)
    assert (smooth >= curve.min()).all() and (smooth <= curve.max()).all()
    assert np.array_equal(overfitting.running_median(curve[:-1], window=window), smooth[:-1])
    if window == 1:
        assert np.array_equal(smooth, curve)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30), st.floats(0.1, 10))
def test_generalization_loss_ignores_the_unit(values: list[float], unit: float) -> None:
    curve = np.array(values)
    loss = overfitting.generalization_loss(curve)
    assert (loss >= -1e-12).all()
    assert loss[int(curve.argmin())] == pytest.approx(0.0)
    assert overfitting.generalization_loss(curve * unit) == pytest.approx(loss, rel=1e-6, abs=1e-9)


def test_result_is_json() -> None:
    import json

    found = judge(LEARNING, FALLING).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
