"""Resampling: intervals cover, comparisons are fair, memory is bounded."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from bert_ops.evaluate.metrics import mcnemar_exact
from bert_ops.finetune.resampling import bootstrap, paired
from bert_ops.finetune.scores import METRICS, Score, evaluate_score, regression, single_label, tagging
from bert_ops.finetune.spans import Span

NAMES = ["A", "B", "C"]


def accuracy_of(right: np.ndarray) -> Score:
    return single_label(right.astype(np.int64), np.ones(len(right), np.int64), labels=["A", "B"])["accuracy"]


def test_an_interval_of_accuracy_is_that_of_the_binomial() -> None:
    right = np.arange(400) % 5 > 0
    got = bootstrap(accuracy_of(right), resamples=4000, rng=np.random.default_rng(0))
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert got.as_list() == pytest.approx([0.8 - half, 0.8 + half], abs=0.005)


def test_drawing_kinds_and_drawing_examples_is_the_same_distribution() -> None:
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 3, 300)
    predicted = np.where(rng.random(300) < 0.7, actual, rng.integers(0, 3, 300))
    by_kind = single_label(predicted, actual, labels=NAMES)["f1_macro"]
    assert len(by_kind.kinds) == 9
    by_example = Score("f1_macro", by_kind.statistics_NK, np.arange(300), by_kind.value)
    first, second = (bootstrap(score, resamples=6000, rng=np.random.default_rng(2)) for score in (by_kind, by_example))
    assert first.as_list() == pytest.approx(second.as_list(), abs=0.006)


def test_intervals_of_a_correlation_cover_the_truth() -> None:
    # 200 samples of 100 pairs with correlation 0.6: 95% intervals miss some 10 of them.
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        x, noise = rng.normal(size=(2, 100))
        interval = bootstrap(regression(x, 0.6 * x + 0.8 * noise)["pearson"], resamples=300, rng=rng)
        missed += not interval.low <= 0.6 <= interval.high
    assert 2 <= missed <= 24


def test_a_comparison_knows_sign_interval_and_chance() -> None:
    rng = np.random.default_rng(0)
    better, worse = rng.random(500) < 0.9, rng.random(500) < 0.8
    got = paired(accuracy_of(better), accuracy_of(worse), resamples=2000, rng=rng)
    assert got.difference == pytest.approx(better.mean() - worse.mean())
    assert 0 < got.interval.low < got.difference < got.interval.high
    assert got.p_value < 0.01
    back = paired(accuracy_of(worse), accuracy_of(better), resamples=2000, rng=rng)
    assert back.difference == -got.difference and back.interval.high < 0


def test_p_values_agree_with_mcnemar_and_are_fair_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for _ in range(300):
        first, second = rng.random((2, 200)) < 0.7
        ours.append(paired(accuracy_of(first), accuracy_of(second), resamples=400, rng=rng).p_value)
        theirs.append(mcnemar_exact(int((first & ~second).sum()), int((~first & second).sum())))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.97
    assert 0.02 <= np.mean(np.array(ours) < 0.05) <= 0.09


def test_comparing_looks_at_both_answers_to_the_same_example() -> None:
    # Two models that err on the same examples, but for five: paired, that is clear; apart, it would not be.
    first = np.arange(400) % 4 > 0
    second = first.copy()
    second[np.flatnonzero(first)[:8]] = False
    got = paired(accuracy_of(first), accuracy_of(second), resamples=2000, rng=np.random.default_rng(0))
    assert got.p_value < 0.02 and got.interval.low > 0
    alone = bootstrap(accuracy_of(first), resamples=2000, rng=np.random.default_rng(0))
    assert alone.low < second.mean()


def test_models_whose_answers_are_of_different_variety_are_compared_example_by_example() -> None:
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 3, 300)
    guessed = np.where(rng.random(300) < 0.8, actual, rng.integers(0, 3, 300))
    scores = [single_label(given, actual, labels=NAMES)["f1_macro"] for given in (actual, guessed)]
    assert [len(score.kinds) for score in scores] == [3, 9]
    apart = [Score(score.name, score.statistics_NK, np.arange(300), score.value) for score in scores]
    for first, second in ((0, 1), (1, 0)):
        got = paired(scores[first], scores[second], resamples=4000, rng=np.random.default_rng(1))
        wanted = paired(apart[first], apart[second], resamples=4000, rng=np.random.default_rng(2))
        assert got.difference == pytest.approx(wanted.difference)
        assert got.interval.as_list() == pytest.approx(wanted.interval.as_list(), abs=0.005)


def test_models_that_answer_alike_are_not_different() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    for name in METRICS["regression"]:
        score = regression(x, y)[name]
        got = paired(score, score, resamples=50, rng=np.random.default_rng(0))
        assert (got.difference, got.interval.as_list(), got.p_value) == (0.0, [0.0, 0.0], 1.0)


@pytest.mark.filterwarnings("error")
def test_resamples_without_anything_to_find_are_finite() -> None:
    spans = [[] for _ in range(9)] + [[Span(0, 1, "A")]]
    score = tagging(spans, spans, labels=["A"])["entity_f1"]
    assert bootstrap(score, resamples=200, rng=np.random.default_rng(0)).as_list() == [0.0, 1.0]
    constant = np.array([1.0, 1.0, 2.0])
    for score in regression(constant + np.array([0.0, 0.5, 0.0]), constant).values():
        assert np.isfinite(bootstrap(score, resamples=200, rng=np.random.default_rng(0)).as_list()).all()
    for score in (tagging([], [], labels=["A"])["entity_f1"], regression(np.zeros(0), np.zeros(0))["rmse"]):
        assert bootstrap(score, resamples=9, rng=np.random.default_rng(0)).as_list() == [0.0, 0.0]
        assert paired(score, score, resamples=9, rng=np.random.default_rng(0)).p_value == 1.0


def test_the_same_seed_gives_the_same_numbers() -> None:
    score = accuracy_of(np.arange(50) % 3 > 0)
    runs = [paired(score, accuracy_of(np.arange(50) % 4 > 0), resamples=99, rng=np.random.default_rng(5)) for _ in "ab"]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["accuracy", "pearson"])
def test_memory_is_bounded_for_a_million_examples(name: str) -> None:
    rng = np.random.default_rng(0)
    size = 1_000_000
    if name == "accuracy":
        actual = rng.integers(0, 3, size)
        scores = [single_label(rng.integers(0, 3, size), actual, labels=NAMES)[name] for _ in "ab"]
    else:
        y = rng.normal(size=size)
        scores = [regression(rng.normal(size=size), y)[name] for _ in "ab"]
    tracemalloc.start()
    paired(*scores, resamples=2, rng=rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20
    assert abs(evaluate_score(scores[0]) - (1 / 3 if name == "accuracy" else 0)) < 0.01
