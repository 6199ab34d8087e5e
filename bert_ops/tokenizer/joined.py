"""Texts joined to one string and one array of code points, so that numpy sees a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError


@dataclass(frozen=True)
class Joined:
    """Texts as one string with a line feed between them, and as code points.

    Args:
        text: the string, N characters.
        points: (N,) uint32.
        bounds: (B + 1,) int64, where each text begins; ``bounds[i + 1] - 1`` is the line feed after it, or the end.

    """

    text: str
    points: NDArray[np.uint32]
    bounds: NDArray[np.int64]


def join(texts: Sequence[str]) -> Joined:
    """Join texts.

    Raises:
        InputError: a text holds half of a surrogate pair, which no encoding can hold (the library refuses it too).

    """
    text = "\n".join(texts)
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1, out=bounds[1:])
    try:
        points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    except UnicodeEncodeError as error:
        number = int(np.searchsorted(bounds, error.start, side="right")) - 1
        raise InputError(
            f"text {number} holds half of a surrogate pair (U+{ord(text[error.start]):04X}) at character "
            f"{error.start - int(bounds[number])}",
            allowed="Unicode characters",
            remedy="clean the text, or read it with its true encoding",
        ) from error
    return Joined(text, points, bounds)


def runs_in(marked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and stops of the stretches of True."""
    edges = np.flatnonzero(marked[1:] != marked[:-1]) + 1
    if len(marked) and marked[0]:
        edges = np.concatenate([[0], edges])
    if len(marked) and marked[-1]:
        edges = np.concatenate([edges, [len(marked)]])
    return edges[::2], edges[1::2]
