"""Test examples of a task inside the pretraining text.

An example leaks into a document if most of its character n-grams stand in that document (as for GPT-3: Brown et al.
2020, appendix C, who cut 13-grams of words). Equal and nearly equal texts never get here: they share a split. What is
left is an example quoted in a longer text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_ops.corpus.keys import U64, Keys

_FILTER_BITS = 24


@dataclass(frozen=True)
class Leak:
    """An example in a document: their positions in what was given, and the share of the example's n-grams found."""

    document: int
    example: int
    share: float


class LeakFinder:
    """Looks for examples in documents.

    Args:
        examples: keys of the test examples.
        ngram: characters of an n-gram; an example with a shorter key is not looked for.
        min_share: share of an example's distinct n-grams from which it leaks.

    """

    def __init__(self, examples: Sequence[str], *, ngram: int, min_share: float) -> None:
        self.ngram, self.min_share = ngram, min_share
        looked_for = [index for index, key in enumerate(examples) if len(key) >= ngram]
        self.skipped = len(examples) - len(looked_for)
        hashes, ends = Keys.of([examples[index] for index in looked_for]).ngrams(ngram)
        owners = np.repeat(np.array(looked_for, np.int64), np.diff(ends))
        pairs = np.unique(np.stack([hashes, owners.astype(np.uint64)], 1), axis=0)
        self.sizes = np.bincount(pairs[:, 1].astype(np.int64), minlength=len(examples))
        self.grams, self.starts = np.unique(pairs[:, 0], return_index=True)
        self.starts = np.append(self.starts, len(pairs))
        self.owners: NDArray[np.int64] = pairs[:, 1].astype(np.int64)
        # Most n-grams of a document are in no example: a bit array says so without a search.
        self.filter = np.zeros(1 << _FILTER_BITS, bool)
        self.filter[self.grams >> np.uint64(64 - _FILTER_BITS)] = True

    def find(self, documents: Sequence[str]) -> list[Leak]:
        """Return the examples that leak into documents, given by their keys."""
        if not len(self.grams) or not documents:
            return []
        hashes, ends = Keys.of(documents).ngrams(self.ngram)
        places, index = self._known(hashes)
        if not len(places):
            return []
        document = np.searchsorted(ends, places, "right") - 1
        known = np.unique(np.stack([document, index], 1), axis=0)
        counts = self.starts[known[:, 1] + 1] - self.starts[known[:, 1]]
        document = np.repeat(known[:, 0], counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        example = self.owners[np.repeat(self.starts[known[:, 1]], counts) + within]
        both, hits = np.unique(np.stack([document, example], 1), axis=0, return_counts=True)
        shares = hits / self.sizes[both[:, 1]]
        leaks = np.flatnonzero(shares >= self.min_share)
        return [Leak(int(both[i, 0]), int(both[i, 1]), float(shares[i])) for i in leaks]

    def _known(self, hashes: U64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the hashes that some example has, and which gram each is."""
        places = np.flatnonzero(self.filter[hashes >> np.uint64(64 - _FILTER_BITS)])
        index = np.searchsorted(self.grams, hashes[places])
        index[index == len(self.grams)] = 0
        hit = self.grams[index] == hashes[places]
        return places[hit], index[hit]
