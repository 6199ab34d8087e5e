"""Scores agree with scikit-learn, scipy and seqeval, and are finite where nothing can be measured."""

from __future__ import annotations

import random
import warnings
from typing import Any, get_args

import numpy as np
import pytest
import scipy.stats
import seqeval.metrics as reference
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.errors import InputError
from bert_ops.finetune import params
from bert_ops.finetune.scores import (
    METRICS,
    Score,
    evaluate_score,
    multi_label,
    regression,
    score_of,
    single_label,
    tagging,
)
from bert_ops.finetune.spans import Span
from bert_ops.finetune.tagging import Scheme, spans_of_tags, tag_names

NAMES = ["A", "B", "C", "D"]
pytestmark = pytest.mark.filterwarnings("ignore")  # of the references, about ratios of nothing


def values(scores: dict[str, Score]) -> dict[str, float]:
    return {name: evaluate_score(score) for name, score in scores.items()}


def answers(draw: st.DrawFn, low: int = 0) -> tuple[Any, Any]:
    size = draw(st.integers(low, 30))
    ids = st.lists(st.integers(0, draw(st.integers(0, 3))), min_size=size, max_size=size)
    return np.array(draw(ids), np.int64), np.array(draw(ids), np.int64)


# ---------------------------------------------------------------- labels of texts


@given(data=st.data())
@settings(max_examples=60)
def test_single_label_scores_are_those_of_scikit_learn(data: st.DataObject) -> None:
    predicted, actual = answers(data.draw, low=1)
    got = values(single_label(predicted, actual, labels=NAMES))
    assert got == pytest.approx(
        {
            "accuracy": sk.accuracy_score(actual, predicted),
            "f1_macro": sk.f1_score(actual, predicted, average="macro", zero_division=0),
            "matthews": sk.matthews_corrcoef(actual, predicted),
        }
    )


@given(data=st.data())
@settings(max_examples=50)
def test_multi_label_scores_are_those_of_scikit_learn(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    predicted, actual = (rng.random((size, 4)) < data.draw(st.sampled_from([0.0, 0.2, 0.6])) for _ in "ab")
    seen = np.flatnonzero(predicted.any(0) | actual.any(0))
    macro = sk.f1_score(actual, predicted, average="macro", labels=seen, zero_division=0) if len(seen) else 0.0
    assert values(multi_label(predicted, actual, labels=NAMES)) == pytest.approx(
        {
            "f1_micro": sk.f1_score(actual, predicted, average="micro", zero_division=0),
            "f1_macro": macro,
            "subset_accuracy": sk.accuracy_score(actual, predicted),
        }
    )


def test_statistics_are_one_row_an_example_and_add_up() -> None:
    predicted, actual = np.array([0, 1, 1, 2, 0]), np.array([0, 1, 0, 0, 1])
    scores = single_label(predicted, actual, labels=NAMES)
    half = {name: Score(name, s.kinds, s.kind_of[:3], s.value) for name, s in scores.items()}
    assert values(half) == values(single_label(predicted[:3], actual[:3], labels=NAMES))
    for score in scores.values():
        assert score.statistics_NK.shape[0] == 5 and score.statistics_NK.dtype == np.float64
        assert score.value(score.statistics_NK.sum(0)) == pytest.approx(evaluate_score(score))
        many = score.value(np.stack([score.statistics_NK.sum(0), score.statistics_NK[:3].sum(0)])[None])
        assert many.tolist() == [[evaluate_score(score), evaluate_score(half[score.name])]]


# ---------------------------------------------------------------- numbers


@given(
    seed=st.integers(0, 10_000), size=st.integers(2, 40), scale=st.sampled_from([1e-6, 1.0, 1e9]), ties=st.booleans()
)
@settings(max_examples=80)
def test_regression_scores_are_those_of_scipy_and_scikit_learn(seed: int, size: int, scale: float, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    actual, noise = rng.normal(size=size) + 3, rng.normal(size=size)
    if ties:
        actual, noise = actual.round(), noise.round()
        actual[0] = actual[1] + 1  # not all the same
        noise[0] = noise[1]  # so that answers are not all the same either
    predicted, actual = (actual + noise) * scale, actual * scale
    got = values(regression(predicted, actual))
    wanted = {
        "pearson": scipy.stats.pearsonr(predicted, actual).statistic,
        "spearman": scipy.stats.spearmanr(predicted, actual).statistic,
        "r2": sk.r2_score(actual, predicted),
        "rmse": sk.root_mean_squared_error(actual, predicted),
        "mae": sk.mean_absolute_error(actual, predicted),
    }
    assert got == pytest.approx(wanted, rel=1e-9, abs=1e-9 * min(scale, 1.0))


def test_errors_are_better_when_lower() -> None:
    scores = regression(np.arange(3.0), np.arange(3.0))
    assert {name for name, score in scores.items() if not score.higher_is_better} == {"rmse", "mae"}


def test_numbers_far_from_zero_keep_their_correlation() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500))
    near, far = (evaluate_score(regression(x, y + shift)["pearson"]) for shift in (0.0, 1e7))
    assert far == pytest.approx(near, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e200])
def test_numbers_that_cannot_be_scored_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="1 of 3 answers or true numbers are not finite"):
        regression(np.array([1.0, bad, 2.0]), np.array([1.0, 2.0, 3.0]))


# ---------------------------------------------------------------- spans


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.parametrize("outside", [1, 6])  # few and many tokens outside of entities
def test_entity_scores_are_those_of_seqeval(scheme: Scheme, outside: int) -> None:
    labels = ["LOC", "ORG", "PER"]
    names = tag_names(labels, scheme)
    pool = [0] * outside + list(range(1, len(names)))
    chance = random.Random(1)
    for _ in range(150):
        lengths = [chance.randrange(10) for _ in range(chance.randrange(1, 25))]
        actual = [[chance.choice(pool) for _ in range(n)] for n in lengths]
        predicted = [[tag if chance.random() < 0.7 else chance.choice(pool) for tag in row] for row in actual]
        places = np.concatenate([np.arange(n) for n in lengths])
        where = np.stack([places, places + 1], 1), np.cumsum([0, *lengths])
        flat = [np.array([tag for row in rows for tag in row], np.int64) for rows in (predicted, actual)]
        spans = [spans_of_tags(tags, *where, labels=labels, scheme=scheme) for tags in flat]
        got = values(tagging(*spans, labels=labels, tags=(*flat, where[1])))  # type: ignore[arg-type]
        theirs = [[[names[tag] for tag in row] for row in rows] for rows in (actual, predicted)]
        report = reference.classification_report(*theirs, output_dict=True, zero_division=0)
        assert got == pytest.approx(
            {
                "entity_f1": reference.f1_score(*theirs, zero_division=0),
                "entity_precision": reference.precision_score(*theirs, zero_division=0),
                "entity_recall": reference.recall_score(*theirs, zero_division=0),
                **{f"entity_f1_{label}": report.get(label, {"f1-score": 0.0})["f1-score"] for label in labels},
                "token_accuracy": reference.accuracy_score(*theirs) if sum(lengths) else 0.0,
            }
        )


def test_a_span_is_right_only_with_its_bounds_and_its_label() -> None:
    actual = [[Span(0, 2, "PER"), Span(3, 5, "LOC")], [Span(0, 2, "PER")], []]
    predicted = [[Span(0, 2, "PER"), Span(3, 6, "LOC")], [Span(0, 2, "LOC")], [Span(1, 2, "PER")]]
    got = values(tagging(predicted, actual, labels=["LOC", "PER"]))
    assert got == pytest.approx(
        {
            "entity_f1": 2 / 7,
            "entity_precision": 1 / 4,
            "entity_recall": 1 / 3,
            "entity_f1_LOC": 0.0,
            "entity_f1_PER": 1 / 2,
        }
    )


def test_tokens_that_do_not_count_leave_token_accuracy_alone() -> None:
    tags = np.array([0, 1, 2, -100]), np.array([-100, 1, 0, -100]), np.array([0, 1, 4])
    score = tagging([[], []], [[], []], labels=["A"], tags=tags)["token_accuracy"]
    assert evaluate_score(score) == 0.5
    assert score.statistics_NK.tolist() == [[0, 0], [1, 2]]


# ---------------------------------------------------------------- nothing to measure


def nothing(size: int) -> dict[str, dict[str, Score]]:
    """Every kind's scores of ``size`` examples that say nothing: no label, no span, the same number."""
    none = np.zeros((size, 4), bool)
    empty: list[list[Span]] = [[] for _ in range(size)]
    tags = np.full(size, -100), np.full(size, -100), np.arange(size + 1)
    return {
        "sequence_classification": single_label(np.zeros(size, np.int64), np.zeros(size, np.int64), labels=NAMES),
        "multi_label_classification": multi_label(none, none, labels=NAMES),
        "regression": regression(np.full(size, 0.1), np.full(size, 0.3)),
        "token_classification": tagging(empty, empty, labels=["A"], tags=tags),
    }


@pytest.mark.parametrize("size", [0, 1, 7])
def test_what_cannot_be_measured_has_the_documented_value(size: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = {kind: values(scores) for kind, scores in nothing(size).items()}
    some = float(size > 0)
    assert got["sequence_classification"] == {"accuracy": some, "f1_macro": some, "matthews": 0.0}
    assert got["multi_label_classification"] == {"f1_micro": 0.0, "f1_macro": 0.0, "subset_accuracy": some}
    assert got["regression"] == pytest.approx(
        {"pearson": 0.0, "spearman": 0.0, "r2": 0.0, "rmse": 0.2 * some, "mae": 0.2 * some}
    )
    assert set(got["token_classification"].values()) == {0.0}


def test_r2_of_a_constant_is_one_if_all_is_right() -> None:
    same = np.full(5, 0.1)
    assert evaluate_score(regression(same, same)["r2"]) == sk.r2_score(same, same) == 1.0


def test_a_resample_of_one_example_many_times_has_no_correlation() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50)) * 0.1 + 7
    scores = regression(x, y)
    for name in ("pearson", "spearman", "r2"):
        sums = 7 * scores[name].statistics_NK
        assert (scores[name].value(sums) == 0).all(), name


def test_every_metric_of_a_kind_is_scored_and_the_parameters_allow_no_other() -> None:
    for kind, scores in nothing(3).items():
        assert set(METRICS[kind]) <= set(scores)
    for task in get_args(get_args(params.TaskParams)[0]):
        (kind,) = get_args(task.model_fields["kind"].annotation)
        allowed = get_args(task.model_fields["metric"].annotation)
        assert set(allowed) <= set(METRICS[kind])
        # Weights are kept by the highest score.
        assert all(nothing(3)[kind][name].higher_is_better for name in allowed)


def test_a_score_of_ones_own() -> None:
    score = score_of("mean", np.array([[1.0, 1.0], [4.0, 1.0]]), lambda sums: sums[..., 0] / sums[..., 1])
    assert evaluate_score(score) == 2.5
