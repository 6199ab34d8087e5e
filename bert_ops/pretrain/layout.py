"""Laying examples out in the rows of a packed batch: one gather copies all of their tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bert_ops.pretrain.batch import PackedBatch
from bert_ops.pretrain.examples import A_LENGTH, A_START, B_LENGTH, B_START, PAIR, Plan, lengths, ranges
from bert_ops.pretrain.order import Numbers
from bert_ops.tokenizer.store import SplitView


def lay_out(
    view: SplitView,
    examples: Plan,
    column: Numbers,
    *,
    in_row: Numbers,
    sequence_tokens: int,
    with_word_starts: bool,
    unit: int,
) -> tuple[PackedBatch, NDArray[np.bool_] | None]:
    """Frame examples as ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]`` and put them into rows.

    Args:
        view: where the tokens are.
        examples: (E, 5), by row, then by column.
        column: (E,), first column of each.
        in_row: (R,), examples of each row.
        sequence_tokens: T, tokens of a row.
        with_word_starts: return word starts too.
        unit: number of the batch.

    Returns:
        The batch, uncorrupted and with nothing masked; and (R * T,) bool, True where a word begins and on special
        tokens and padding, or None.

    """
    rows, special = len(in_row), view.special
    size = rows * sequence_tokens
    length, a, b = lengths(examples), examples[:, A_LENGTH], examples[:, B_LENGTH]
    cls = np.repeat(np.arange(rows) * sequence_tokens, in_row) + column
    pairs = np.flatnonzero(b)
    # Flat positions: the [SEP] that ends A, and where B begins.
    middle, b_begins = cls + a + 1, (cls + a + 2)[pairs]
    segments = np.concatenate([a, b[pairs]])
    to = ranges(np.concatenate([cls + 1, b_begins]), segments)
    source = ranges(np.concatenate([examples[:, A_START], examples[pairs, B_START]]), segments)
    ids = np.full(size, special.pad, np.int64)
    ids[to] = view.take(source)
    ids[cls] = special.cls
    ids[middle] = ids[(cls + length - 1)[pairs]] = special.sep
    segment, position, example = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int16)
    segment[ranges(b_begins, b[pairs] + 1)] = 1
    whole = ranges(cls, length)
    position[whole] = whole - np.repeat(cls, length)
    example[whole] = np.repeat(ranges(np.ones_like(in_row), in_row), length)
    # Where an example ends, either the next one or padding begins.
    bounds = np.union1d(cls, np.append(cls + length, size)).astype(np.int32)
    word_starts = None
    if with_word_starts:
        word_starts = np.ones(size, np.bool_)
        word_starts[to] = view.take_word_starts(source)
        # A long sentence may have been cut within a word.
        word_starts[cls + 1] = word_starts[b_begins] = True
    nothing = np.zeros(0, np.int64)
    shape = (rows, sequence_tokens)
    batch = PackedBatch(
        ids=ids.reshape(shape),
        segments=segment.reshape(shape),
        positions=position.reshape(shape),
        examples=example.reshape(shape),
        masked=nothing,
        targets=nothing,
        cls=cls,
        pair=examples[:, PAIR].copy(),
        bounds=bounds,
        longest=int(np.diff(bounds).max()),
        unit=unit,
    )
    return batch, word_starts
