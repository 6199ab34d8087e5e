"""The vectorised decisions, held against plain ones."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.corpus.decide import (
    CONFLICT,
    COPY,
    KEPT,
    NEAR,
    PAIR_ROW,
    ROW,
    Rows,
    assign_splits,
    meaning,
    preference,
    remove_near,
    resolve_copies,
)
from bert_ops.corpus.near import NearPair
from bert_ops.corpus.params import SplitParams

NO_PAIRS = np.zeros(0, PAIR_ROW)
SPLIT = SplitParams(train=0.8, validation=0.1, test=0.1, salt="")

#: (key, task, label, group); task -1 is none, group 0 is none.
Plain = tuple[int, int, int, int]


def rows_of(plain: list[Plain]) -> Rows:
    rows = np.zeros(len(plain), ROW)
    for row, (key, task, label, group) in zip(rows, plain, strict=True):
        row["high"], row["low"], row["task"], row["group"] = key // 3, key % 3, task, group
        row["target"] = label if task >= 0 else 0
        row["place"] = (group * 37 % 101 / 101) if group else (key * 61 % 97 / 97)
    return rows


PLAIN = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from([-1, -1, 0, 1]), st.integers(1, 2), st.sampled_from([0, 0, 0, 1, 2])),
    max_size=25,
)


@given(PLAIN)
def test_copies_and_conflicts_as_by_hand(plain: list[Plain]) -> None:
    decision = resolve_copies(rows_of(plain))
    by_key: dict[int, list[int]] = defaultdict(list)
    for number, (key, *_) in enumerate(plain):
        by_key[key].append(number)
    expected = np.full(len(plain), KEPT)
    examples = set()
    for members in by_key.values():
        fit = []
        for number in members:
            labels = {plain[n][2] for n in members if plain[n][1] == plain[number][1]}
            if plain[number][1] >= 0 and len(labels) > 1:
                expected[number] = CONFLICT
                other = int(decision.of[number])
                assert (plain[other][0], plain[other][1]) == (plain[number][0], plain[number][1])
                assert plain[other][2] != plain[number][2]
            else:
                fit.append(number)
        if fit:
            winner = min(fit, key=lambda n: (plain[n][1] < 0, n))
            for number in fit:
                expected[number] = KEPT if number == winner else COPY
                assert decision.of[number] == winner
            for task in {plain[n][1] for n in fit} - {-1}:
                examples.add(min(n for n in fit if plain[n][1] == task))
    assert decision.status.tolist() == expected.tolist()
    assert set(np.flatnonzero(decision.example).tolist()) == examples


@given(PLAIN, st.randoms(use_true_random=False))
def test_splits_never_part_a_cluster_and_nothing_is_lost(plain: list[Plain], random) -> None:
    rows = rows_of(plain)
    decision = resolve_copies(rows)
    order = preference(rows, decision).tolist()
    said = meaning(rows, decision)
    removed: dict[int, NearPair] = {}
    beside: list[NearPair] = []
    for position, second in enumerate(order[1:], start=1):
        first = random.choice(order[:position])
        if random.random() < 0.5 or first in removed:
            continue
        if said[second] in (0, said[first]):
            removed[second] = NearPair(first, second, 0.9)
        else:
            beside.append(NearPair(first, second, 0.9))
    beside = [pair for pair in beside if pair.first not in removed and pair.second not in removed]
    remove_near(decision, removed)
    assign_splits(rows, decision, beside=beside, pairs=NO_PAIRS, params=SPLIT)
    counts = [len(decision.indices(status)) for status in (KEPT, COPY, NEAR, CONFLICT)]
    assert sum(counts) == len(plain)
    assert counts[2] == len(removed)
    kept = set(decision.indices(KEPT).tolist())
    for row in [*decision.indices(COPY).tolist(), *decision.indices(NEAR).tolist()]:
        assert int(decision.of[row]) in kept
    for pair in beside:
        assert decision.cluster[pair.first] == decision.cluster[pair.second]
    for one in kept:
        for other in kept:
            if plain[one][3] and plain[one][3] == plain[other][3]:
                assert decision.cluster[one] == decision.cluster[other]
            if decision.cluster[one] == decision.cluster[other]:
                assert decision.split[one] == decision.split[other]
        assert decision.cluster[one] <= one
    for row in np.flatnonzero(decision.example).tolist():
        assert int(decision.of[row]) in kept


def test_a_labelled_text_stays_if_its_label_would_be_lost() -> None:
    rows = rows_of([(0, 0, 1, 0), (1, 0, 2, 0), (2, -1, 0, 0), (3, 0, 1, 0)])
    said = meaning(rows, resolve_copies(rows))
    assert said[0] == said[3] != 0
    assert said[1] not in (0, said[0])
    assert said[2] == 0


def test_a_group_decides_on_its_members_wherever_they_stand() -> None:
    rows = rows_of([(key, -1, 0, 5 if key % 2 else 0) for key in range(40)])
    decision = resolve_copies(rows)
    assign_splits(rows, decision, beside=[], pairs=NO_PAIRS, params=SPLIT)
    assert len(set(decision.split[rows["group"] == 5].tolist())) == 1
    assert len(set(decision.split[rows["group"] == 0].tolist())) > 1


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows(count: int) -> None:
    rows = rows_of([(0, -1, 0, 0)] * count)
    decision = resolve_copies(rows)
    remove_near(decision, {})
    assign_splits(rows, decision, beside=[], pairs=NO_PAIRS, params=SPLIT)
    assert decision.status.tolist() == [KEPT] * count
