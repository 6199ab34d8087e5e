"""Comparison of the two models, and latency."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.compress.latency import measure, text_of
from bert_ops.compress.params import LatencyParams
from bert_ops.compress.scoring import compare, paired_interval
from bert_ops.errors import InputError
from bert_ops.finetune.problems import Regression, SingleLabel


def test_compare_counts_what_changed():
    fp32 = np.array([[2, 1], [2, 1], [1, 2], [1, 2], [2, 1]], dtype=np.float32)
    int8 = np.array([[2, 1], [1, 2], [1, 2], [2, 1], [1, 2]], dtype=np.float32)
    result = compare(SingleLabel(["a", "b"]), fp32, int8, list("aabaa"), metric="accuracy")
    assert (result.examples, result.lost, result.gained) == (5, 2, 1)
    assert result.score_fp32 == pytest.approx(4 / 5)
    assert result.score == pytest.approx(3 / 5)
    assert result.agreement == pytest.approx(2 / 5)
    low, high = result.difference_ci95
    assert low < -1 / 5 < high


def test_compare_takes_the_metric_of_the_task():
    rng = np.random.default_rng(0)
    fp32, int8 = rng.random((2, 300, 2))
    truth = ["ab"[number] for number in rng.integers(0, 2, 300)]
    result = compare(SingleLabel(["a", "b"]), fp32, int8, truth, metric="f1_macro")
    assert result.metric == "f1_macro" and 0.3 < result.score < 0.7
    low, high = result.difference_ci95
    assert low < result.score - result.score_fp32 < high


def test_numbers_are_compared_by_their_score_alone():
    truth = list(np.linspace(0, 1, 50))
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 50))
    result = compare(Regression(["value"]), truth + noise[0], truth + noise[1], truth, metric="pearson")
    assert (result.agreement, result.lost, result.gained) == (None, None, None)
    assert 0.8 < result.score < 1


@given(st.integers(0, 50), st.integers(0, 50), st.integers(100, 10_000))
def test_interval_is_ordered_antisymmetric_and_holds_its_centre(gained, lost, total):
    low, high = paired_interval(gained, lost, total=total)
    assert low < (gained - lost) / (total + 2) < high
    assert paired_interval(lost, gained, total=total) == pytest.approx((-high, -low))


def test_interval_equals_a_value_worked_out_by_hand():
    # b = 10.5, c = 4.5, n = 102: (6 ± 1.959964 * sqrt(15 - 36/102)) / 102
    assert paired_interval(10, 4, total=100) == pytest.approx((-0.014712, 0.132359), abs=1e-5)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    cells = rng.multinomial(1700, [0.015, 0.01, 0.975], size=2000)
    covered = [low <= 0.005 <= high for low, high in (paired_interval(g, x, total=1700) for g, x, _ in cells)]
    assert 0.935 < np.mean(covered) < 0.97


@given(st.integers(3, 60))
def test_timed_text_has_the_length_asked_for_and_keeps_its_frame(length):
    texts = [np.array([2, 10, 11, 3]), np.array([2, 12, 3])]
    ids = text_of(length, texts)
    assert len(ids) == length and ids[0] == 2 and ids[-1] == 3
    assert set(ids[1:-1]) <= {10, 11, 12}


def test_texts_without_tokens_are_refused():
    with pytest.raises(InputError, match="no text"):
        text_of(8, [np.array([2, 3])])


def test_runtimes_are_timed_in_turn_and_warm_up_is_left_out():
    calls = []
    scorers = {name: (lambda ids, segments, attend, name=name: calls.append((name, ids.shape))) for name in ("a", "b")}
    params = LatencyParams(runs=10, warmup=3, tokens=5)
    timings = measure(scorers, [np.array([2, 10, 3])], params, threads=1)
    assert calls == [("a", (1, 5)), ("b", (1, 5))] * 13
    assert set(timings) == {"a", "b"} and all(0 < t["p50"] <= t["p95"] for t in timings.values())
