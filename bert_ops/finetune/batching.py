"""Rows of examples as batches: of similar length side by side, or several packed into a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bert_ops.finetune.encoding import Rows
from bert_ops.finetune.problems.base import Items
from bert_ops.model.attention import Pattern
from bert_ops.pretrain.packing import Packing, pack
from bert_ops.seeding import generator

Ints = NDArray[np.int64]
Layout = Literal["bucketed", "packed"]

#: oneDNN keeps the code it makes for a shape: with widths as they come, an epoch of the sample took 1,032 MiB and a
#: fifth more time than with multiples of 8 (385 MiB).
WIDTH_STEP = 8

#: Batches whose rows are sorted by length together: enough to save padding, few enough to stay random.
SORT_WINDOW = 50


@dataclass(frozen=True)
class Pieces:
    """Rows of examples before they are laid out: ids (T,), segments (T,) or None, columns and targets of items."""

    ids: list[Ints]
    segments: list[Ints] | None
    places: list[Ints]
    targets: list[NDArray[Any]]

    @classmethod
    def of(cls, rows: Rows, items: Items, targets: NDArray[Any] | None, chosen: Ints) -> Pieces:
        """Take some rows; without targets they can only be answered."""
        cuts = [slice(items.starts[i], items.starts[i + 1]) for i in chosen]
        return cls(
            ids=[rows.ids[i] for i in chosen],
            segments=None if rows.segments is None else [rows.segments[i] for i in chosen],
            places=[items.places[cut] for cut in cuts],
            targets=[] if targets is None else [targets[cut] for cut in cuts],
        )

    def part(self, chosen: Ints) -> Pieces:
        """Take some of the rows."""
        return Pieces(
            ids=[self.ids[i] for i in chosen],
            segments=None if self.segments is None else [self.segments[i] for i in chosen],
            places=[self.places[i] for i in chosen],
            targets=[self.targets[i] for i in chosen] if self.targets else [],
        )


@dataclass(frozen=True)
class TaskBatch:
    """A batch of R rows of T tokens.

    Args:
        unit: number of the batch in the run.
        ids: (R, T) int64.
        segments: (R, T) int64.
        positions: (R, T) int64, from 0 in every example; None if a row is one example.
        examples: (R, T) int16, number of the example in its row, 0 on padding; None if there is no padding.
        picked: (M,) int64, flat positions of the items.
        targets: (M, …).
        bounds: (S + 1,) int32, flat start of each run of one example or of padding, and R * T.
        longest: tokens of the longest of these runs.
        pieces: what it was made of, to divide it.

    """

    unit: int
    ids: Ints
    segments: Ints
    positions: Ints | None
    examples: NDArray[np.int16] | None
    picked: Ints
    targets: NDArray[Any]
    bounds: NDArray[np.int32]
    longest: int
    pieces: Pieces

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return sum(len(ids) for ids in self.pieces.ids)

    @property
    def starts(self) -> Ints:
        """First item of each text, and M."""
        return np.cumsum([0, *(len(places) for places in self.pieces.places)])

    @property
    def counts(self) -> dict[str, int]:
        """Items that the loss is a mean of."""
        return {"loss": len(self.picked)}


def lay_out(pieces: Pieces, *, layout: Layout, pad_id: int, unit: int, limit: int) -> TaskBatch:
    """Lay rows out as a batch about as wide as the longest of them, at most ``limit`` (positions of the encoder).

    Widths are multiples of :data:`WIDTH_STEP`: on a CPU every new shape costs time and memory of its own.
    """
    lengths = np.fromiter((len(ids) for ids in pieces.ids), np.int64, len(pieces.ids))
    longest = int(lengths.max(initial=1))
    width = max(longest, min(-(-longest // WIDTH_STEP) * WIDTH_STEP, limit))
    packed = layout == "packed" and len(lengths) > 1
    where = pack(lengths, width) if packed else Packing(np.arange(len(lengths)), np.zeros_like(lengths), len(lengths))
    flat = np.full(where.rows * width, pad_id, np.int64)
    segments, positions = np.zeros_like(flat), np.zeros_like(flat)
    examples = np.zeros(len(flat), np.int16)
    starts = where.row * width + where.column
    numbers = _numbers_in_row(where)
    for n, (ids, start) in enumerate(zip(pieces.ids, starts.tolist(), strict=True)):
        here = slice(start, start + len(ids))
        flat[here], examples[here] = ids, numbers[n]
        if packed:
            positions[here] = np.arange(len(ids))
        if pieces.segments is not None:
            segments[here] = pieces.segments[n]
    edges = np.unique(np.concatenate([starts, starts + lengths, np.arange(where.rows + 1) * width]))
    shape = (where.rows, width)
    return TaskBatch(
        unit=unit,
        ids=flat.reshape(shape),
        segments=segments.reshape(shape),
        positions=positions.reshape(shape) if packed else None,
        examples=examples.reshape(shape) if packed or not examples.all() else None,
        picked=np.concatenate([place + start for place, start in zip(pieces.places, starts, strict=True)]),
        targets=np.concatenate(pieces.targets) if pieces.targets else np.zeros(0, np.int64),
        bounds=edges.astype(np.int32),
        longest=int(np.diff(edges).max()),
        pieces=pieces,
    )


def _numbers_in_row(where: Packing) -> Ints:
    """Number of each example in its row, from 1."""
    order = np.lexsort((where.column, where.row))
    firsts = np.searchsorted(where.row[order], np.arange(where.rows))
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order)) - firsts[where.row[order]] + 1
    return numbers


def divide(batch: TaskBatch, parts: int, *, layout: Layout, pad_id: int, limit: int) -> list[TaskBatch]:
    """The batch in up to ``parts`` smaller ones, for passes that do not fit into memory."""
    cuts = [cut for cut in np.array_split(np.arange(len(batch.pieces.ids)), parts) if len(cut)]
    return [lay_out(batch.pieces.part(cut), layout=layout, pad_id=pad_id, unit=batch.unit, limit=limit) for cut in cuts]


def forward(model: nn.Module, batch: TaskBatch) -> tuple[Tensor, Tensor]:
    """Logits (M, C) of the items, and their targets (M, …), on the model's device."""
    device = next(model.parameters()).device

    def put(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    full = batch.examples is None
    pattern = Pattern(
        None if batch.examples is None else put(batch.examples),
        bounds=None if full else put(batch.bounds),
        longest=batch.longest,
    )
    logits: Tensor = model(
        put(batch.ids),
        put(batch.segments),
        positions_BT=None if batch.positions is None else put(batch.positions),
        pattern=pattern,
        picked_M=put(batch.picked),
    )
    return logits, put(batch.targets)


def epoch_order(lengths: Ints, *, batch: int, layout: Layout, seed: int, epoch: int) -> list[Ints]:
    """Batches of one epoch in random order; every row occurs exactly once, and seed and epoch alone decide.

    Bucketed batches hold rows of similar length, which saves padding.
    """
    rng = generator(seed, "batches", epoch)
    order = rng.permutation(len(lengths))
    if layout == "packed":
        return [order[i : i + batch] for i in range(0, len(order), batch)]
    batches: list[Ints] = []
    for start in range(0, len(order), batch * SORT_WINDOW):
        window = order[start : start + batch * SORT_WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[i : i + batch] for i in range(0, len(window), batch)]
    return [batches[i] for i in rng.permutation(len(batches))]


def order_from(lengths: Ints, step: int, *, batch: int, layout: Layout, seed: int) -> Iterator[Ints]:
    """Yield batches of row numbers for ever, beginning with the one of ``step``."""
    epoch, skip = divmod(step, steps_per_epoch(len(lengths), batch=batch))
    while True:
        yield from epoch_order(lengths, batch=batch, layout=layout, seed=seed, epoch=epoch)[skip:]
        epoch, skip = epoch + 1, 0


def steps_per_epoch(rows: int, *, batch: int) -> int:
    """Batches of an epoch; both layouts have the same number, the last one may be smaller."""
    return -(-rows // batch)


def in_order_of_length(lengths: Ints, *, batch: int) -> Iterator[Ints]:
    """Yield all rows in batches of similar length, to measure on."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch):
        yield order[start : start + batch]
