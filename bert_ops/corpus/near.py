"""Near-duplicates: pairs of texts whose character n-grams are nearly the same, in memory bounded by numbers, not texts.

MinHash with banding (Broder 1997; Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", section 3.4): equal bands
of two signatures make a candidate, and the Jaccard similarity of a candidate is then computed exactly, so that
no pair is removed by chance. The signatures are rensa's. Its index holds everything in memory (over a gigabyte for two
million texts), so the bands stand in files here and are joined by sorting, one band at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from bert_ops.corpus.keys import PAIR, U64, Keys, mixed
from bert_ops.corpus.params import NearDuplicateParams
from bert_ops.errors import InputError
from bert_ops.progress import Progress

_SEED = 1
#: Characters of two keys from which their n-grams are held as hashes: strings would take ten times the memory.
_LONG = 20_000
_PLACE_BITS = np.uint64(32)


class KeyReader(Protocol):
    """Gives the key of a row again."""

    def __call__(self, row: int) -> str:
        """Return the key of a row."""


@dataclass(frozen=True)
class Bands:
    """How a signature is cut: ``count`` bands of ``rows`` values each."""

    count: int
    rows: int

    def recall(self, similarity: float) -> float:
        """Probability that a pair of this similarity becomes a candidate: 1 - (1 - s^r)^b."""
        return float(1.0 - (1.0 - similarity**self.rows) ** self.count)


def plan_bands(params: NearDuplicateParams) -> Bands:
    """Choose the longest bands that find a pair at the threshold with the recall asked for; longer ones cost less.

    Raises:
        InputError: even bands of one value do not reach it.

    """
    for rows in range(params.permutations, 0, -1):
        bands = Bands(params.permutations // rows, rows)
        if bands.recall(params.threshold) >= params.recall:
            return bands
    raise InputError(
        f"`ingest.near_duplicates.recall` is {params.recall}: {params.permutations} permutations do not reach it at a "
        f"threshold of {params.threshold}",
        remedy="raise `permutations` or `threshold`, or lower `recall`",
    )


def band_hashes(keys: Keys, *, ngram: int, bands: Bands) -> U64:
    """Return the bands of N keys, (N, bands.count) uint64; equal bands are equal numbers."""
    hashes, ends = keys.ngrams(ngram)
    permutations = bands.count * bands.rows
    digests = RMinHash.digest_matrix_from_flat_token_hashes(hashes, ends.astype(np.uint64), permutations, _SEED)
    signatures = np.asarray(digests.to_rows(), np.uint64).reshape(len(ends) - 1, bands.count, bands.rows)
    folded = np.zeros(signatures.shape[:2], np.uint64)
    for row in range(bands.rows):
        folded ^= signatures[:, :, row]
        mixed(folded)
    return folded


class BandFiles:
    """A file a band in a folder; rows are appended in their order."""

    def __init__(self, folder: Path, bands: Bands) -> None:
        self.paths = [folder / f"band-{number:03d}.bin" for number in range(bands.count)]
        self._open = ExitStack()
        self._files = [self._open.enter_context(path.open("wb")) for path in self.paths]

    def append(self, hashes: U64) -> None:
        """Add the bands of some rows, (N, count)."""
        for number, file in enumerate(self._files):
            file.write(np.ascontiguousarray(hashes[:, number]).tobytes())

    def columns(self) -> Iterator[U64]:
        """Yield the hashes of all rows, (rows,), a band at a time."""
        self._open.close()
        for path in self.paths:
            yield np.fromfile(path, np.uint64)


def candidates(hashes: U64, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of rows with equal hashes: each with the first of its bucket and with the one before it.

    All pairs of a bucket would be quadratic in the copies of one text; what these two miss, other bands find.

    Args:
        hashes: a band, (all rows,).
        rows: the rows to consider, the ones to keep first.

    Returns:
        (P, 2): positions in ``rows``, the first smaller than the second.

    """
    values = hashes[rows]
    order = np.argsort(values, kind="stable")
    same = np.concatenate([[False], values[order][1:] == values[order][:-1]])
    members = np.flatnonzero(same)
    if not len(members):
        return np.empty((0, 2), np.int64)
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    first, before, member = order[firsts[members]], order[members - 1], order[members]
    pairs = np.concatenate([np.stack([first, member], 1), np.stack([before, member], 1)]).astype(np.int64)
    packed = np.unique((pairs[:, 0].astype(np.uint64) << _PLACE_BITS) | pairs[:, 1].astype(np.uint64))
    return np.stack([packed >> _PLACE_BITS, packed & np.uint64(0xFFFFFFFF)], 1).astype(np.int64)


def jaccard(one: U64, other: U64) -> float:
    """Jaccard similarity of two sets of n-grams, each given as sorted distinct hashes."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - common
    return common / union if union else 1.0


@dataclass(frozen=True)
class NearPair:
    """Two rows that are near-duplicates; ``first`` comes before ``second`` in the order of preference."""

    first: int
    second: int
    similarity: float


def near_pairs(
    files: BandFiles,
    rows: NDArray[np.int64],
    *,
    key_of: KeyReader,
    params: NearDuplicateParams,
    meaning: NDArray[np.uint64],
) -> tuple[dict[int, NearPair], list[NearPair]]:
    """Find which rows to remove as near-duplicates of others.

    A row goes if it is near one that stays and says nothing that that one does not: it has no label, or the same. Rows
    are taken in the order of ``rows``, so the result does not depend on the order of the bands' values.

    Two pairs are near if both their texts are: one premise with two hypotheses is two examples. Where they are alike
    only as a whole, both stay, on one side of the split.

    Args:
        files: the bands.
        rows: rows of distinct keys, the ones to keep first.
        key_of: reads a key again.
        params: n-gram and threshold.
        meaning: for each of all rows, 0 without a label, else a number that stands for its task and label.

    Returns:
        The pair by which each removed row was removed, and the pairs near each other of which both stay.

    """
    removed: dict[int, NearPair] = {}
    beside: dict[tuple[int, int], NearPair] = {}
    seen_far: set[tuple[int, int]] = set()
    progress = Progress("looking for near-duplicates", total=len(files.paths), unit="bands")
    for number, hashes in enumerate(files.columns(), start=1):
        cached, key = -1, ""
        for a, b in candidates(hashes, rows).tolist():
            first, second = int(rows[a]), int(rows[b])
            if first in removed or second in removed or (first, second) in beside or (first, second) in seen_far:
                continue
            if cached != first:
                cached, key = first, key_of(first)
            similarity, as_whole = likeness(key, key_of(second), ngram=params.ngram)
            if max(similarity, as_whole) < params.threshold:
                seen_far.add((first, second))
                continue
            pair = NearPair(first, second, similarity)
            if similarity >= params.threshold and meaning[second] in (0, meaning[first]):
                removed[second] = pair
            else:
                beside[first, second] = pair
        progress.update(number, found=f"{len(removed):,}")
    # A pair of which one was removed by another, later band binds nothing any more.
    stay = [pair for pair in beside.values() if pair.first not in removed and pair.second not in removed]
    return removed, stay


def likeness(one: str, other: str, *, ngram: int) -> tuple[float, float]:
    """Jaccard similarity of two keys: of two pairs that of the texts that are less alike, and that of the wholes."""
    texts, others = one.split(PAIR), other.split(PAIR)
    if len(one) + len(other) > _LONG:
        a, b = [_hashes(text, ngram) for text in texts], [_hashes(text, ngram) for text in others]
        whole = jaccard(_joined(a), _joined(b))
        parts = [jaccard(x, y) for x, y in zip(a, b, strict=False)]
    else:
        c, d = [_strings(text, ngram) for text in texts], [_strings(text, ngram) for text in others]
        whole = _jaccard(c[0].union(*c[1:]), d[0].union(*d[1:]))
        parts = [_jaccard(x, y) for x, y in zip(c, d, strict=False)] if len(c) > 1 else [whole]
    return (min(parts) if len(texts) == len(others) else whole), whole


def _hashes(text: str, n: int) -> U64:
    return np.unique(Keys.of_keys([text]).ngrams(n)[0])


def _joined(parts: list[U64]) -> U64:
    return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))


@lru_cache(maxsize=64)
def _strings(text: str, n: int) -> frozenset[str]:
    """N-grams of a short text: for these, strings are several times quicker than arrays."""
    return frozenset(text[place : place + n] for place in range(max(len(text) - n + 1, 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)
