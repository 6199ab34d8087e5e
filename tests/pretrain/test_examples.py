"""Planning of examples, over seeds and sizes: BERT's rule of runs, pairs and short sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import document_of, made_documents, made_store

from bert_ops.pretrain import examples
from bert_ops.pretrain.batch import IS_NEXT, IS_RANDOM, NO_PAIR
from bert_ops.pretrain.examples import A_LENGTH, A_START, B_LENGTH, B_START, OBJECTIVES, PAIR, Plan
from bert_ops.pretrain.order import Visits
from bert_ops.tokenizer.store import SplitView


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> SplitView:
    return made_store(tmp_path_factory.mktemp("store"), made_documents(150, seed=7, longest=50), shard_tokens=700)


def planned(
    view: SplitView, objective: str, length: int, *, seed: int = 0, documents: np.ndarray | None = None
) -> Plan:
    order = np.random.default_rng(seed).permutation(view.documents) if documents is None else documents
    return examples.plan_examples(
        view,
        order,
        visits=Visits(view),
        sequence_tokens=length,
        sentence_objective=objective,
        rng=np.random.default_rng(seed),
    )


def in_order(plan: Plan) -> Plan:
    """The plan with swapped segments put back."""
    back = plan.copy()
    swapped = plan[:, PAIR] == IS_RANDOM
    back[swapped, :4] = plan[swapped][:, [B_START, B_LENGTH, A_START, A_LENGTH]]
    return back


@pytest.mark.parametrize("objective", OBJECTIVES)
@settings(max_examples=25)
@given(length=st.integers(8, 140), seed=st.integers(0, 2**32))
def test_plans_hold_their_promises(view: SplitView, objective: str, length: int, seed: int) -> None:
    plan = planned(view, objective, length, seed=seed)
    pair, a, b = plan[:, PAIR] != NO_PAIR, plan[:, A_LENGTH], plan[:, B_LENGTH]
    assert set(plan[:, PAIR]) <= ({NO_PAIR} if objective == "none" else {NO_PAIR, IS_NEXT, IS_RANDOM})
    assert (a >= 1).all() and (b[pair] >= 1).all() and (plan[~pair, B_START : B_LENGTH + 1] == 0).all()
    assert (examples.lengths(plan) == a + b + np.where(pair, 3, 2)).all() and (examples.lengths(plan) <= length).all()
    boundaries = view.sentence_ends
    assert np.isin(plan[pair, A_START], boundaries).all() and np.isin(plan[pair, B_START], boundaries).all()
    for start, count in ((plan[:, A_START], a), (plan[pair, B_START], b[pair])):
        assert (document_of(view, start) == document_of(view, start + count - 1)).all()
    is_next = plan[plan[:, PAIR] == IS_NEXT]
    assert (is_next[:, B_START] == is_next[:, A_START] + is_next[:, A_LENGTH]).all()
    other = plan[plan[:, PAIR] == IS_RANDOM]
    if objective == "sop":
        assert (other[:, A_START] == other[:, B_START] + other[:, B_LENGTH]).all()
    else:
        assert (document_of(view, other[:, A_START]) != document_of(view, other[:, B_START])).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_documents_are_read_from_their_first_token_to_their_last(view: SplitView, objective: str) -> None:
    documents = np.array([5, 3, 5, 149])
    plan = planned(view, objective, 40, documents=documents)
    if objective == "sop":
        plan = in_order(plan)
    if objective == "nsp":
        plan[plan[:, PAIR] == IS_RANDOM, B_LENGTH] = 0
    read = [np.arange(start, start + count) for row in plan for start, count in (row[:2], row[2:4])]
    ends = view.sentence_ends[view.document_ends]
    assert np.concatenate(read).tolist() == [t for d in documents for t in range(ends[d], ends[d + 1])]


@pytest.mark.parametrize(("objective", "specials"), [("none", 2), ("sop", 3)])
def test_a_run_ends_where_the_next_sentence_does_not_fit(view: SplitView, objective: str, specials: int) -> None:
    """Each run is as long as it can be, but for one in ten."""
    sentences, full, short = view.lengths(), 0, 0
    boundaries = view.sentence_ends.tolist()
    last_sentence = set((view.document_ends[1:]).tolist())
    for seed in range(8):
        for row in in_order(planned(view, objective, 100, seed=seed)).tolist():
            tokens, stop = row[A_LENGTH] + row[B_LENGTH], row[A_START] + row[A_LENGTH] + row[B_LENGTH]
            following = boundaries.index(stop)
            if following in last_sentence:
                continue
            fits = tokens + int(sentences[following]) + specials <= 100
            short, full = short + fits, full + (not fits)
    # Runs up to the end of a document are not counted, and those cut short seldom get there.
    assert 0.05 < short / (short + full) < 0.15


def test_short_runs_have_any_length_from_sixteen_tokens_on(tmp_path: Path) -> None:
    view = made_store(tmp_path, [[1] * 20_000], shard_tokens=10**6)
    plan = planned(view, "none", 128)
    tokens = examples.lengths(plan)[:-1]
    short = tokens[tokens < 128]
    assert len(short) / len(tokens) == pytest.approx(0.1, abs=0.04)
    assert short.min() >= 16 and short.min() < 40 and short.max() > 100
    assert (planned(view, "none", 8)[:-1, A_LENGTH] >= 2).all()


def test_a_long_sentence_is_cut_into_several(tmp_path: Path) -> None:
    view = made_store(tmp_path, [[100], [10, 61, 3]])
    for objective in OBJECTIVES:
        plan = planned(view, objective, 32, documents=np.array([0]))
        assert plan[:, :4].tolist() == [[0, 30, 0, 0], [30, 30, 0, 0], [60, 30, 0, 0], [90, 10, 0, 0]]
        assert (plan[:, PAIR] == NO_PAIR).all()
        plan = planned(view, objective, 32, documents=np.array([1]))
        assert plan[:, :4].tolist() == [
            [100, 10, 0, 0],
            [110, 30, 0, 0],
            [140, 30, 0, 0],
            [170, 1, 0, 0],
            [171, 3, 0, 0],
        ]


def test_segments_are_split_at_any_boundary(tmp_path: Path) -> None:
    view = made_store(tmp_path, [[10] * 4] * 3000, shard_tokens=10**6)
    plan = in_order(planned(view, "sop", 64))
    whole = plan[plan[:, A_LENGTH] + plan[:, B_LENGTH] == 40]
    share = np.bincount(whole[:, A_LENGTH], minlength=31)[[10, 20, 30]] / len(whole)
    assert len(whole) > 2500 and share == pytest.approx([1 / 3] * 3, abs=0.04)


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_half_of_the_pairs_are_random_or_swapped(view: SplitView, objective: str) -> None:
    pairs = np.concatenate([planned(view, objective, 96, seed=seed)[:, PAIR] for seed in range(20)])
    assert (pairs == IS_RANDOM).sum() / (pairs != NO_PAIR).sum() == pytest.approx(0.5, abs=0.03)


def test_what_a_random_segment_displaces_is_read_next(view: SplitView) -> None:
    plan = planned(view, "nsp", 96)
    place = np.flatnonzero(plan[:-1, PAIR] == IS_RANDOM)
    displaced = plan[place, A_START] + plan[place, A_LENGTH]
    assert len(place) > 30 and np.array_equal(plan[place + 1, A_START], displaced)


def test_the_end_of_a_random_segment_does_not_give_it_away(view: SplitView) -> None:
    """Nearly all are whole sentences, as next ones are."""
    plan = np.concatenate([planned(view, "nsp", 128, seed=seed) for seed in range(10)])
    other = plan[plan[:, PAIR] == IS_RANDOM]
    whole = np.isin(other[:, B_START] + other[:, B_LENGTH], view.sentence_ends)
    assert len(other) > 500 and whole.mean() > 0.97


def test_boundaries_are_looked_up_near_the_sentence_alone(monkeypatch: pytest.MonkeyPatch, view: SplitView) -> None:
    """A random partner costs a few boundaries of its document, whatever the size of the corpus."""
    rng = np.random.default_rng(0)
    ends = np.concatenate([[0], np.cumsum(rng.integers(1, 9, 5000))])
    sentence = rng.integers(0, 5000, 400)
    stop = np.minimum(sentence + rng.integers(1, 60, 400), 5000)
    room = rng.integers(1, 100, 400)
    found = examples._last_that_fits(ends, sentence, stop, room)
    for s, e, r, last in zip(sentence, stop, room, found, strict=True):
        fitting = [n for n in range(s, e + 1) if ends[n] - ends[s] <= r]
        assert last == max(fitting)
