"""Packing of examples into rows of a fixed length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Packing(NamedTuple):
    """Where N examples stand: row (N,), first column (N,), and the number of rows."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    rows: int


def pack(lengths: NDArray[np.int64], capacity: int) -> Packing:
    """Pack examples of these lengths, each from 1 to ``capacity`` tokens, into as few rows as best fit finds.

    Best-fit decreasing (Johnson 1973): the longest first, each into the row with the least space that still holds it.
    Rows wait in one list for each remaining space, and one bit a list says whether it holds any, so that an example
    costs the same however many there are. At most 11/9 of the optimum; on texts that hold short examples, full rows.
    """
    order = np.argsort(-lengths, kind="stable")
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]
    some, rows = 0, 0
    row_of, column_of = [0] * len(order), [0] * len(order)
    for place, length in enumerate(lengths[order].tolist()):
        fitting = some >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = waiting[space].pop()
            if not waiting[space]:
                some ^= 1 << space
        else:
            space, row = capacity, rows
            rows += 1
        row_of[place], column_of[place] = row, capacity - space
        waiting[space - length].append(row)
        some |= 1 << (space - length)
    row, column = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    row[order], column[order] = row_of, column_of
    return Packing(row, column, rows)
