"""What becomes of each row, decided from numbers alone: copies, contradicting labels, near-duplicates, splits.

A row is here a few dozen bytes; its text stays on disk. All rules are vectorised or run over the exceptions only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bert_ops.corpus.keys import mixed
from bert_ops.corpus.near import NearPair
from bert_ops.corpus.params import SplitParams
from bert_ops.corpus.split import sides_of

Rows = NDArray[np.void]
Indices = NDArray[np.int64]

#: A row of a source after cleaning. ``target`` stands for its answer; ``group`` is 0 without one; ``place`` in [0, 1)
#: is that of the group or else of the key of the text, of a pair the first; ``draw`` in [0, 1) decides on the fraction
#: of a weight.
ROW = np.dtype(
    [
        ("high", "<u8"),
        ("low", "<u8"),
        ("target", "<u8"),
        ("group", "<u8"),
        ("place", "<f8"),
        ("draw", "<f8"),
        ("source", "<i4"),
        ("task", "<i4"),
    ]
)

#: A row that is a pair: its number, and those of its two texts (64 bits of the SHA-256 of a key, as ``high`` is).
PAIR_ROW = np.dtype([("row", "<i8"), ("first", "<u8"), ("second", "<u8")])

KEPT, COPY, NEAR, CONFLICT = range(4)


@dataclass
class Decision:
    """The fate of R rows.

    Attributes:
        status: (R,) one of KEPT, COPY, NEAR, CONFLICT.
        of: (R,) the row that is kept instead; for a conflict a row that it contradicts; else the row itself.
        example: (R,) bool, the row is an example of its task (a copy may be one, of another task than the row kept).
        similarity: of the rows removed as near-duplicates.
        cluster: (R,) first row of the cluster, for kept rows.
        split: (R,) index into SPLITS, for kept rows.

    """

    status: NDArray[np.int8]
    of: Indices
    example: NDArray[np.bool_]
    cluster: Indices
    split: NDArray[np.int8]
    similarity: dict[int, float] = field(default_factory=dict)

    def indices(self, status: int) -> Indices:
        """Rows of a status."""
        return np.flatnonzero(self.status == status)


def resolve_copies(rows: Rows) -> Decision:
    """Keep one row per key and one example per key and task.

    A labelled row wins over one without a label, then the earlier one wins. All rows of one task and key whose labels
    differ are set aside: which of them is right cannot be known, and keeping one would be keeping noise.
    """
    count = len(rows)
    index = np.arange(count)
    order = np.lexsort((index, rows["low"], rows["high"]))
    new = np.ones(count, bool)
    new[1:] = (rows["high"][order][1:] != rows["high"][order][:-1]) | (
        rows["low"][order][1:] != rows["low"][order][:-1]
    )
    key = np.empty(count, np.int64)
    key[order] = np.cumsum(new) - 1
    status = np.full(count, KEPT, np.int8)
    of = index.copy()
    for members in _runs(key, rows["task"], np.flatnonzero(rows["task"] >= 0)):
        targets = rows["target"][members]
        if (targets == targets[0]).all():
            continue
        first, other = members[0], members[np.argmax(targets != targets[0])]
        status[members] = CONFLICT
        of[members] = np.where(targets == targets[0], other, first)
    fit = np.flatnonzero(status != CONFLICT)
    ranked = fit[np.lexsort((fit, rows["task"][fit] < 0, key[fit]))]
    winner = np.full(key.max(initial=-1) + 1, -1, np.int64)
    firsts = np.concatenate([[True], key[ranked][1:] != key[ranked][:-1]]) if len(ranked) else np.empty(0, bool)
    winner[key[ranked][firsts]] = ranked[firsts]
    copies = fit[winner[key[fit]] != fit]
    status[copies], of[copies] = COPY, winner[key[copies]]
    example = np.zeros(count, bool)
    for members in _runs(key, rows["task"], fit[rows["task"][fit] >= 0], single=True):
        example[members[0]] = True
    return Decision(status, of, example, index.copy(), np.zeros(count, np.int8))


def _runs(key: Indices, task: NDArray[np.int32], among: Indices, *, single: bool = False) -> Iterator[Indices]:
    """Yield the rows ``among`` of each key and task, ascending; those that stand alone only with ``single``."""
    order = among[np.lexsort((among, task[among], key[among]))]
    if not len(order):
        return
    changes = np.flatnonzero((key[order][1:] != key[order][:-1]) | (task[order][1:] != task[order][:-1])) + 1
    starts = np.concatenate([[0], changes])
    ends = np.concatenate([changes, [len(order)]])
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if single or end - start > 1:
            yield order[start:end]


def preference(rows: Rows, decision: Decision) -> Indices:
    """Rows kept so far, those that near-duplicates should leave first: labelled ones, then earlier ones."""
    kept = decision.indices(KEPT)
    return kept[np.lexsort((kept, rows["task"][kept] < 0))]


def meaning(rows: Rows, decision: Decision) -> NDArray[np.uint64]:
    """Return for each kept row 0 if its text has no label, else a number for the tasks and labels of all its copies."""
    total = np.zeros(len(rows), np.uint64)
    examples = np.flatnonzero(decision.example)
    values = mixed(rows["target"][examples] + rows["task"][examples].astype(np.uint64) + np.uint64(1))
    np.add.at(total, decision.of[examples], values)
    return total


def remove_near(decision: Decision, removed: dict[int, NearPair]) -> None:
    """Mark near-duplicates; the copies of a removed row follow it, and are no examples any more."""
    for row, pair in removed.items():
        decision.status[row] = NEAR
        decision.similarity[row] = pair.similarity
    for row, pair in removed.items():
        kept = pair.first
        while kept in removed:
            kept = removed[kept].first
        decision.of[row] = kept
    if removed:
        gone = np.zeros(len(decision.status), bool)
        gone[list(removed)] = True
        copies = decision.indices(COPY)
        orphans = copies[gone[decision.of[copies]]]
        decision.example[list(removed)] = False
        decision.example[orphans] = False
        decision.of[orphans] = decision.of[decision.of[orphans]]


def assign_splits(rows: Rows, decision: Decision, *, beside: list[NearPair], pairs: Rows, params: SplitParams) -> None:
    """Give each kept row its cluster and its split: all rows of a cluster land on the same side.

    A cluster holds the rows that share a group, the near-duplicates that both stay, the pairs that share their first
    text (and the row that is this text alone), and a pair with its texts swapped. Its side is that of its group, or
    else of the member with the smallest hash: not the smallest place, which would favour the training split.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    kept = decision.indices(KEPT)
    if not len(kept):
        return
    position = np.full(len(rows), -1, np.int64)
    position[kept] = np.arange(len(kept))
    grouped = kept[rows["group"][kept] != 0]
    links = np.concatenate(
        [
            _neighbours(grouped, rows["group"][grouped]),
            np.array([(pair.first, pair.second) for pair in beside], np.int64).reshape(-1, 2),
            *_pair_links(rows, kept, pairs[position[pairs["row"]] >= 0]),
        ]
    )
    graph = coo_array((np.ones(len(links), bool), position[links].T.reshape(2, -1)), shape=(len(kept), len(kept)))
    _, component = connected_components(graph, directed=False)
    # In each component first those with a group, then by hash.
    ranked = kept[np.lexsort((rows["low"][kept], rows["high"][kept], rows["group"][kept] == 0, component))]
    leaders = ranked[np.concatenate([[True], np.diff(component[position[ranked]]) != 0])]
    first = np.full(component.max() + 1, len(rows), np.int64)
    np.minimum.at(first, component, kept)
    sides = sides_of(rows["place"][leaders], params)
    decision.cluster[kept] = first[component]
    decision.split[kept] = sides[component]


def _neighbours(rows: Indices, values: NDArray[np.uint64]) -> Indices:
    """Link each row to the next one of equal value, (L, 2)."""
    order = np.lexsort((rows, values))
    same = np.flatnonzero(values[order][1:] == values[order][:-1])
    return np.stack([rows[order[same]], rows[order[same + 1]]], 1)


def _pair_links(rows: Rows, kept: Indices, pairs: Rows) -> list[Indices]:
    """Links of kept pairs, (L, 2) each.

    The first text alone binds: were a second text to bind as well, a few short ones ("nobody is there") would tie most
    of a corpus of inferences to one cluster, and there would be no splits.
    """
    if not len(pairs):
        return []
    numbers = pairs["row"].astype(np.int64)
    unordered = mixed(pairs["first"].copy()) + mixed(pairs["second"].copy())
    alone = kept[np.argsort(rows["high"][kept], kind="stable")]
    place = np.minimum(np.searchsorted(rows["high"][alone], pairs["first"]), len(alone) - 1)
    found = rows["high"][alone[place]] == pairs["first"]
    return [
        _neighbours(numbers, pairs["first"]),
        _neighbours(numbers, unordered),
        np.stack([numbers[found], alone[place[found]]], 1),
    ]
