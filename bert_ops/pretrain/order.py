"""The order in which an epoch reads the documents of a split: a permutation that is computed where it is needed.

An epoch *visits* each document as often as the store says (``view.repeats``). Visits are numbered document by document;
the order of an epoch is a pseudo-random permutation of these numbers. Neither holds an object or a table entry a
document, so that the visit at any place of any epoch costs the same for any corpus.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bert_ops.tokenizer.store import Numbers, SplitView

#: Rounds of the Feistel network; four suffice for ideal round functions (Luby & Rackoff 1988).
ROUNDS = 8

#: Documents whose repeats are added up beforehand: 8 bytes for each such block, and one of them is searched a visit.
BLOCK = 64


def shuffled(places: Numbers, *, count: int, seed: int) -> Numbers:
    """Numbers that stand at some places of a pseudo-random permutation of 0 … count - 1.

    A Feistel network permutes the next power of four, 64 at least; numbers past ``count`` are put through it again
    until they fall below (Black & Rogaway 2002, "cycle walking"): less than four times on average, but for tiny counts.
    """
    bits = max(3, ((count - 1).bit_length() + 1) // 2)
    keys = np.random.default_rng(seed).integers(0, 2**64, ROUNDS, dtype=np.uint64)
    numbers = places.astype(np.uint64)
    todo = np.arange(len(numbers))
    while len(todo):
        numbers[todo] = moved = _feistel(numbers[todo], keys, np.uint64(bits))
        todo = todo[moved >= count]
    return numbers.astype(np.int64)


def _feistel(numbers: NDArray[np.uint64], keys: NDArray[np.uint64], bits: np.uint64) -> NDArray[np.uint64]:
    low = np.uint64((1 << int(bits)) - 1)
    left, right = numbers >> bits, numbers & low
    for key in keys:
        # The finaliser of SplitMix64 (Steele et al. 2014) as round function.
        mixed = right + key
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & low)
    return (left << bits) | right


class Visits:
    """Numbered visits of a split's documents; ``count`` of them in an epoch."""

    def __init__(self, view: SplitView) -> None:
        self.repeats = view.repeats
        self.count = view.documents
        if self.repeats is not None:
            full = len(self.repeats) // BLOCK * BLOCK
            self._blocks = self.repeats[:full].reshape(-1, BLOCK)
            self._last = np.zeros(BLOCK, np.uint8)
            self._last[: len(self.repeats) - full] = self.repeats[full:]
            sums = np.append(self._blocks.sum(1, dtype=np.int64), self._last.sum(dtype=np.int64))
            self._before = np.concatenate([[0], np.cumsum(sums)])
            self.count = int(self._before[-1])

    def documents(self, visits: Numbers) -> Numbers:
        """Document of each visit."""
        if self.repeats is None:
            return visits
        block = np.searchsorted(self._before, visits, side="right") - 1
        left = visits - self._before[block]
        documents: Numbers = block * BLOCK + (self._within(block) <= left[:, None]).sum(1)
        return documents

    def of(self, documents: Numbers) -> tuple[Numbers, Numbers]:
        """First visit of each document, and how many it has."""
        if self.repeats is None:
            return documents, np.ones_like(documents)
        block, place = np.divmod(documents, BLOCK)
        times = self.repeats[documents].astype(np.int64)
        return self._before[block] + self._within(block)[np.arange(len(documents)), place] - times, times

    def elsewhere(self, documents: Numbers, rng: np.random.Generator) -> Numbers:
        """For each document another one, as likely as it has visits; each must leave some to the others."""
        first, times = self.of(documents)
        # Drawing from this document's visits fewer, and stepping over them, is uniform over the others.
        drawn = rng.integers(self.count - times)
        return self.documents(drawn + np.where(drawn >= first, times, 0))

    def _within(self, block: Numbers) -> NDArray[np.uint16]:
        """Visits from the first document of a block up to and with each one of it, (N, BLOCK)."""
        repeats = np.empty((len(block), BLOCK), np.uint8)
        full = block < len(self._blocks)
        repeats[full], repeats[~full] = self._blocks[block[full]], self._last
        return np.cumsum(repeats, axis=1, dtype=np.uint16)
