"""Test examples of a task inside the pretraining text.

An example leaks into a document if most of its character n-grams stand in that document (as for GPT-3: Brown et al.
2020, appendix C, who cut 13-grams of words). Equal and nearly equal texts never get here: they share a split. What is
left is an example quoted in a longer text. The two texts of a pair are looked for one by one, and a pair leaks if
either of them does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_ops.corpus.keys import PAIR, U64, Keys

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
        examples: keys of the test examples, single texts or pairs.
        ngram: characters of an n-gram; a text with a shorter key is not looked for.
        min_share: share of a text's distinct n-grams from which it leaks.

    Attributes:
        skipped: examples of which no text is looked for.

    """

    def __init__(self, examples: Sequence[str], *, ngram: int, min_share: float) -> None:
        self.ngram, self.min_share = ngram, min_share
        texts = [(index, text) for index, key in enumerate(examples) for text in key.split(PAIR) if len(text) >= ngram]
        self.example_of = np.array([index for index, _ in texts], np.int64)
        self.skipped = len(examples) - len(np.unique(self.example_of))
        hashes, ends = Keys.of_keys([text for _, text in texts]).ngrams(ngram)
        owners = np.repeat(np.arange(len(texts)), np.diff(ends))
        pairs = np.unique(np.stack([hashes, owners.astype(np.uint64)], 1), axis=0)
        self.sizes = np.bincount(pairs[:, 1].astype(np.int64), minlength=len(texts))
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
        hashes, ends = Keys.of_keys(documents).ngrams(self.ngram)
        places, index = self._known(hashes)
        if not len(places):
            return []
        document = np.searchsorted(ends, places, "right") - 1
        known = np.unique(np.stack([document, index], 1), axis=0)
        counts = self.starts[known[:, 1] + 1] - self.starts[known[:, 1]]
        document = np.repeat(known[:, 0], counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        text = self.owners[np.repeat(self.starts[known[:, 1]], counts) + within]
        both, hits = np.unique(np.stack([document, text], 1), axis=0, return_counts=True)
        shares = hits / self.sizes[both[:, 1]]
        leaks: dict[tuple[int, int], float] = {}
        for i in np.flatnonzero(shares >= self.min_share):
            place = int(both[i, 0]), int(self.example_of[both[i, 1]])
            leaks[place] = max(float(shares[i]), leaks.get(place, 0.0))
        return [Leak(*place, share) for place, share in leaks.items()]

    def _known(self, hashes: U64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the hashes that some example has, and which gram each is."""
        places = np.flatnonzero(self.filter[hashes >> np.uint64(64 - _FILTER_BITS)])
        index = np.searchsorted(self.grams, hashes[places])
        index[index == len(self.grams)] = 0
        hit = self.grams[index] == hashes[places]
        return places[hit], index[hit]
