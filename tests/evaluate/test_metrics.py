"""Metrics against scikit-learn, SciPy and plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from bert_ops.evaluate import metrics


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    classes = draw(st.integers(2, 5))
    pairs = draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60))
    table = np.array(pairs)
    return table[:, 0], table[:, 1], classes


@settings(max_examples=60, deadline=None)
@given(answers())
def test_scores_agree_with_scikit_learn(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    actual, predicted, classes = case
    table = metrics.confusion_matrix(actual, predicted, classes=classes)
    assert np.array_equal(table, confusion_matrix(actual, predicted, labels=range(classes)))
    assert float(metrics.accuracy(table)) == pytest.approx(accuracy_score(actual, predicted))
    assert float(metrics.f1_macro(table)) == pytest.approx(
        f1_score(actual, predicted, average="macro", zero_division=0)
    )
    reference = precision_recall_fscore_support(actual, predicted, labels=range(classes), zero_division=0)
    for index, row in enumerate(metrics.per_class(table)):
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(
            [column[index] for column in reference]
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert metrics.mcnemar_exact(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_table_bootstrap_has_the_distribution_of_resampling_examples() -> None:
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 3, 150)
    predicted = np.where(rng.random(150) < 0.7, actual, rng.integers(0, 3, 150))
    table = metrics.confusion_matrix(actual, predicted, classes=3)
    fast = metrics.f1_macro(metrics.resampled_tables(table, resamples=4000, rng=rng))
    rows = rng.integers(0, 150, size=(300, 150))
    slow = np.array([f1_score(actual[r], predicted[r], average="macro") for r in rows])
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.01)
    assert fast.std() == pytest.approx(slow.std(), rel=0.15)
    assert metrics.resampled_tables(table, resamples=5, rng=rng).sum(axis=(1, 2)).tolist() == [150] * 5


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        right = int(rng.binomial(300, 0.8))
        table = np.array([[right, 300 - right], [0, 0]])
        interval = metrics.percentile_interval(
            metrics.accuracy(metrics.resampled_tables(table, resamples=400, rng=rng))
        )
        covered += interval.low <= 0.8 <= interval.high
    assert 0.91 <= covered / 400 <= 0.985


def test_bootstrap_means_bounds_memory_without_changing_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).exponential(size=500)
    whole = metrics.bootstrap_means(values, resamples=3000, rng=np.random.default_rng(3))
    monkeypatch.setattr(metrics, "_CHUNK_VALUES", 1000)
    chunked = metrics.bootstrap_means(values, resamples=3000, rng=np.random.default_rng(4))
    assert chunked.mean() == pytest.approx(whole.mean(), rel=0.01)
    assert chunked.std() == pytest.approx(values.std() / np.sqrt(500), rel=0.08)


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    table = np.array([[40, 9], [7, 44]])

    def interval(seed: int) -> metrics.Interval:
        rng = np.random.default_rng(seed)
        return metrics.percentile_interval(metrics.f1_macro(metrics.resampled_tables(table, resamples=300, rng=rng)))

    assert interval(5) == interval(5)
    assert interval(5) != interval(6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_paired_comparison_is_antisymmetric_and_holds_its_difference(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    one = metrics.compare_paired(first, second, resamples=400, rng=np.random.default_rng(0))
    other = metrics.compare_paired(second, first, resamples=400, rng=np.random.default_rng(0))
    assert one.difference == pytest.approx(first.mean() - second.mean())
    assert one.difference == -other.difference
    assert one.p_value == other.p_value
    assert one.interval.low - 1e-9 <= one.difference <= one.interval.high + 1e-9


def test_paired_comparison_uses_the_pairing() -> None:
    rng = np.random.default_rng(0)
    baseline = rng.random(1000) < 0.8
    model = baseline | (rng.random(1000) < 0.1)
    paired = metrics.compare_paired(model, baseline, resamples=2000, rng=rng)
    assert paired.only_baseline_right == 0
    assert paired.interval.low > 0
    shuffled = metrics.compare_paired(rng.permutation(model), baseline, resamples=2000, rng=rng)
    assert shuffled.interval.high - shuffled.interval.low > 2 * (paired.interval.high - paired.interval.low)


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
