"""Ids of the runs between isolated characters: remembered, or asked of the library many at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.tokenizer import characters

#: Runs of more characters are rarely seen twice.
_LONGEST_KEPT = 64

#: Characters of unknown runs that are given to the library as one text.
_CHUNK = 4096


class Runs:
    """Ids of runs: those seen before from a dictionary, others from the library, many in one text."""

    def __init__(self, tokenizer: Tokenizer, specification: dict[str, Any], frame: str, *, free_id: int) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, int] = {}
        self.pool = np.empty(1024, np.int32)
        self.ends = np.zeros(1024, np.int64)
        self.size = 0
        self.separator: tuple[str, int] | None = None
        self.alone = tokenizer
        mark = _free_character(specification["model"]["vocab"], frame)
        if mark is not None:
            self.separator = mark, free_id
            self.alone = _with_piece(specification, mark, free_id)

    def resolve(self, parts: list[str], *, whole: list[int]) -> tuple[NDArray[np.int64], int]:
        """Number of each run, (R,), and how many characters had to be given to the library.

        Args:
            parts: the runs.
            whole: rows of those with special tokens in them.

        """
        numbers = np.fromiter(map(self.known.get, parts, repeat(-1)), np.int64, len(parts))
        numbers[whole] = -2
        new = list(dict.fromkeys(map(parts.__getitem__, np.flatnonzero(numbers == -1).tolist())))
        # What is remembered comes first, so that what follows can be forgotten.
        new.sort(key=_is_long)
        first = self.size
        self._add(*self._encode(new))
        placed = dict(zip(new, range(first, self.size), strict=True))
        self.known.update((part, number) for part, number in placed.items() if not _is_long(part))
        for row in np.flatnonzero(numbers == -1).tolist():
            numbers[row] = placed[parts[row]]
        numbers[whole] = np.arange(self.size, self.size + len(whole))
        texts = [parts[row] for row in whole]
        self._add(*flat(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)))
        return numbers, sum(map(len, new))

    def spans(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the ids of runs stand in the pool, and how many there are."""
        first = self.ends[numbers]
        return first, self.ends[numbers + 1] - first

    def forget(self, *, keep: int) -> None:
        """Forget the runs that are not worth remembering, or all of them if there are more than ``keep``."""
        if len(self.known) > keep:
            self.known.clear()
        self.size = len(self.known)

    def _encode(self, parts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of runs, one after the other, and how many each has."""
        if self.separator is None or not parts:
            return flat(self.tokenizer.encode_batch_fast(parts, add_special_tokens=False))
        mark, mark_id = self.separator
        texts = [mark.join(chunk) + mark for chunk in _chunks(parts)]
        ids, _ = flat(self.alone.encode_batch_fast(texts, add_special_tokens=False))
        is_mark = ids == mark_id
        ends = np.flatnonzero(is_mark) - np.arange(len(parts))
        return ids[~is_mark], np.diff(ends, prepend=0)

    def _add(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        begin, first = int(self.ends[self.size]), self.size + 1
        self.pool = _room(self.pool, begin + len(ids))
        self.ends = _room(self.ends, first + len(lengths))
        self.pool[begin : begin + len(ids)] = ids
        self.ends[first : first + len(lengths)] = begin + np.cumsum(lengths)
        self.size += len(lengths)


def _room(array: NDArray[Any], needed: int) -> NDArray[Any]:
    """The array, made longer if it has to be; at least doubled, so that adding is cheap on the whole."""
    if needed <= len(array):
        return array
    return np.concatenate([array, np.empty(max(needed - len(array), len(array)), array.dtype)])


def flat(encodings: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of encodings, one after the other, and how many each has."""
    lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, int(lengths.sum()))
    return ids, lengths


def _is_long(run: str) -> bool:
    return len(run) > _LONGEST_KEPT


def _chunks(parts: list[str]) -> Iterable[list[str]]:
    """Cut a list where its texts together reach the size of a chunk."""
    chunk: list[str] = []
    size = 0
    for part in parts:
        chunk.append(part)
        size += len(part) + 1
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _free_character(vocabulary: dict[str, int], frame: str) -> str | None:
    """An isolated character that is no piece and that normalisation leaves as it is; None if there is none.

    The last of them are rare ideographs, or punctuation where Chinese is not split: no run becomes one of these when it
    is normalised, so that its id marks the ends of runs without doubt.
    """
    points, words = characters.isolated(frame)
    written = map(chr, reversed(points.tolist()))
    return next(
        (c for c, word in zip(written, reversed(words), strict=True) if c == word and c not in vocabulary), None
    )


def _with_piece(specification: dict[str, Any], piece: str, number: int) -> Tokenizer:
    """The tokenizer with one more piece and without added tokens, which no run holds."""
    model = specification["model"]
    changed = {
        **specification,
        "model": {**model, "vocab": {**model["vocab"], piece: number}},
        "added_tokens": [],
        "post_processor": None,
    }
    return Tokenizer.from_str(json.dumps(changed))
