"""Metrics against scikit-learn, SciPy and plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from bert_ops.evaluate import metrics


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    classes = draw(st.integers(2, 5))
    pairs = draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60))
    table = np.array(pairs)
    return table[:, 0], table[:, 1], classes


@settings(max_examples=60, deadline=None)
@given(answers())
def test_the_confusion_matrix_is_that_of_scikit_learn(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    actual, predicted, classes = case
    table = metrics.confusion_matrix(actual, predicted, classes=classes)
    assert np.array_equal(table, confusion_matrix(actual, predicted, labels=range(classes)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert metrics.mcnemar_exact(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_bootstrap_means_bounds_memory_without_changing_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).exponential(size=500)
    whole = metrics.bootstrap_means(values, resamples=3000, rng=np.random.default_rng(3))
    monkeypatch.setattr(metrics, "_CHUNK_VALUES", 1000)
    chunked = metrics.bootstrap_means(values, resamples=3000, rng=np.random.default_rng(4))
    assert chunked.mean() == pytest.approx(whole.mean(), rel=0.01)
    assert chunked.std() == pytest.approx(values.std() / np.sqrt(500), rel=0.08)


def naive_ece(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (confidence > low) & (confidence <= high)
        if number == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    return total / len(confidence)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=100), st.sampled_from([2, 4, 8, 16]))
def test_ece_follows_its_definition(pairs: list[tuple[float, bool]], bins: int) -> None:
    confidence, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])
    found = metrics.calibration(confidence, right, bins=bins)
    assert found.error == pytest.approx(naive_ece(confidence, right, bins), abs=1e-9)
    assert sum(found.count) == len(pairs)


def test_ece_is_small_when_calibrated_and_large_when_overconfident() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 20_000)
    honest = metrics.calibration(confidence, rng.random(20_000) < confidence, bins=15)
    boastful = metrics.calibration(np.full(20_000, 0.99), rng.random(20_000) < 0.7, bins=15)
    assert honest.error < 0.015
    assert boastful.error == pytest.approx(0.29, abs=0.02)
