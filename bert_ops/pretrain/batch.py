"""A packed batch: rows that are filled with several examples each, and how it is cut into smaller ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: Label of an example that is one segment only, ignored by the sentence loss.
NO_PAIR = -100
#: Labels of a pair: B follows A / the segments are in order; B is from another document / the segments are swapped.
IS_NEXT, IS_RANDOM = 0, 1


@dataclass(frozen=True)
class PackedBatch:
    """R rows of T tokens; a row holds several examples one after the other and then padding.

    Attention stays within an example (``examples`` or ``bounds`` say where each ends), and positions begin anew in
    each, so that an example is read as if it stood alone.

    Args:
        ids: (R, T) int64, already corrupted.
        segments: (R, T) int64, 0 in the first segment and on padding, 1 in the second.
        positions: (R, T) int64, from 0 in every example; 0 on padding.
        examples: (R, T) int16, number of the example in its row, from 1; 0 on padding.
        masked: (M,) int64, flat positions (r * T + t) to be predicted, ascending.
        targets: (M,) int64, the ids that stood there.
        cls: (E,) int64, flat position of each example's ``[CLS]``, ascending.
        pair: (E,) int64, 0 is next or in order, 1 is random or swapped, -100 no pair.
        bounds: (S + 1,) int32, flat start of each example and of each row's padding, and R * T at the end
            (``cu_seqlens`` of varlen attention).
        longest: tokens of the longest run between two bounds.
        unit: number of this batch in the infinite sequence.

    """

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    positions: NDArray[np.int64]
    examples: NDArray[np.int16]
    masked: NDArray[np.int64]
    targets: NDArray[np.int64]
    cls: NDArray[np.int64]
    pair: NDArray[np.int64]
    bounds: NDArray[np.int32]
    longest: int
    unit: int

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int(np.count_nonzero(self.examples))

    @property
    def counts(self) -> dict[str, int]:
        """Items of each objective: masked tokens, and examples that are a pair."""
        return {"mlm": len(self.masked), "nsp": int(np.count_nonzero(self.pair != NO_PAIR))}


def split_rows(batch: PackedBatch, parts: int) -> list[PackedBatch]:
    """Cut a batch into up to ``parts`` batches of whole rows, as equal as can be; nothing is lost or repeated.

    Fewer come back if the batch has fewer rows. All keep the number of the unit.
    """
    rows, tokens = batch.ids.shape
    edges = np.linspace(0, rows, min(parts, rows) + 1).round().astype(int)
    return [_slice(batch, int(first), int(stop), tokens) for first, stop in pairwise(edges)]


def _slice(batch: PackedBatch, first: int, stop: int, tokens: int) -> PackedBatch:
    start, end = first * tokens, stop * tokens
    masked = slice(*np.searchsorted(batch.masked, (start, end)))
    cls = slice(*np.searchsorted(batch.cls, (start, end)))
    low, high = np.searchsorted(batch.bounds, (start, end))
    bounds = batch.bounds[low : high + 1] - np.int32(start)
    return PackedBatch(
        ids=batch.ids[first:stop],
        segments=batch.segments[first:stop],
        positions=batch.positions[first:stop],
        examples=batch.examples[first:stop],
        masked=batch.masked[masked] - start,
        targets=batch.targets[masked],
        cls=batch.cls[cls] - start,
        pair=batch.pair[cls],
        bounds=bounds,
        longest=int(np.diff(bounds).max()),
        unit=batch.unit,
    )
