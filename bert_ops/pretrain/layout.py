"""Examples to tokens: copying the texts of a window, and laying examples out in the rows of a packed batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bert_ops.pretrain.batch import PackedBatch
from bert_ops.pretrain.examples import A_LENGTH, A_START, B_LENGTH, B_START, PAIR, Plan, lengths, ranges
from bert_ops.tokenizer.store import Ids, Numbers, SplitView
from bert_ops.tokenizer.wordpiece import SpecialIds

#: Examples that are copied at a time, so that what addresses their tokens stays small beside them.
CHUNK = 2**15


def copy_texts(
    view: SplitView, examples: Plan, *, with_word_starts: bool
) -> tuple[Ids, NDArray[np.bool_] | None, Numbers]:
    """Copy the texts of N examples out of the store, one after the other.

    Returns:
        Ids of segments A and B of each example, (P,), without special tokens; whether each begins a word, (P,), or
        None; and the first token of each example, and P, (N + 1,).

    """
    ends = np.concatenate([[0], np.cumsum(examples[:, A_LENGTH] + examples[:, B_LENGTH])])
    ids = np.empty(ends[-1], view.dtype)
    word_starts = np.empty(ends[-1], np.bool_) if with_word_starts else None
    for first in range(0, len(examples), CHUNK):
        some = examples[first : first + CHUNK]
        here = slice(ends[first], ends[first + len(some)])
        ids[here], starts = view.copy(
            some[:, [A_START, B_START]].reshape(-1),
            some[:, [A_LENGTH, B_LENGTH]].reshape(-1),
            word_starts=with_word_starts,
        )
        if word_starts is not None:
            word_starts[here] = starts
    return ids, word_starts, ends


def lay_out(
    examples: Plan,
    column: Numbers,
    text: Ids,
    text_word_starts: NDArray[np.bool_] | None,
    *,
    in_row: Numbers,
    sequence_tokens: int,
    special: SpecialIds,
    unit: int,
) -> tuple[PackedBatch, NDArray[np.bool_] | None]:
    """Frame examples as ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]`` and put them into rows.

    Args:
        examples: (E, 5), by row, then by column.
        column: (E,), first column of each.
        text: (P,), their ids, as :func:`copy_texts` returns them.
        text_word_starts: (P,), whether each begins a word, or None.
        in_row: (R,), examples of each row.
        sequence_tokens: T, tokens of a row.
        special: ids that frame and fill.
        unit: number of the batch.

    Returns:
        The batch, uncorrupted and with nothing masked; and (R * T,) bool, True where a word begins and on special
        tokens and padding, or None.

    """
    rows = len(in_row)
    size = rows * sequence_tokens
    length, a, b = lengths(examples), examples[:, A_LENGTH], examples[:, B_LENGTH]
    cls = np.repeat(np.arange(rows) * sequence_tokens, in_row) + column
    pairs = np.flatnonzero(b)
    # Flat positions: the [SEP] that ends A, and where B begins, if there is one.
    middle, b_begins = cls + a + 1, cls + a + 2
    to = ranges(np.stack([cls + 1, b_begins], 1).reshape(-1), examples[:, [A_LENGTH, B_LENGTH]].reshape(-1))
    ids = np.full(size, special.pad, np.int64)
    ids[to] = text
    ids[cls] = special.cls
    ids[middle] = ids[(cls + length - 1)[pairs]] = special.sep
    segment, position, example = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int16)
    segment[ranges(b_begins[pairs], b[pairs] + 1)] = 1
    whole = ranges(cls, length)
    position[whole] = whole - np.repeat(cls, length)
    example[whole] = np.repeat(ranges(np.ones_like(in_row), in_row), length)
    # Where an example ends, either the next one or padding begins.
    bounds = np.union1d(cls, np.append(cls + length, size)).astype(np.int32)
    word_starts = None
    if text_word_starts is not None:
        # A piece of a word that was cut off at the start of a segment stands behind a special token: a word by itself.
        word_starts = np.ones(size, np.bool_)
        word_starts[to] = text_word_starts
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
