"""Encoding by table: the ids of ``Tokenizer.encode_batch_fast``, faster.

A character that is a word by itself (:mod:`bert_ops.tokenizer.characters`) has one id whatever stands around it, so
Chinese is a table look-up over an array of code points. What stands between such characters (Latin words, numbers,
marks, controls) forms runs. White space and isolated characters end words, nothing before them reaches over, so a run
has the same ids alone as in its text: they are kept in a dictionary, and only runs that are not yet there are given to
the library. Texts with a special or user token in them are given to it whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.errors import InputError
from bert_ops.tokenizer import characters
from bert_ops.tokenizer.characters import SPACE

#: Prefix of a piece that continues a word.
CONTINUATION = "##"

#: Marks in the table of ids.
_NOTHING, _CONTEXT = -1, -2

#: Runs of more characters are rarely seen twice.
_LONGEST_KEPT = 64

#: Characters of unknown runs that are given to the library as one text.
_CHUNK = 4096

#: A batch of which this share is new, and that is large enough to tell, is the sign of text without repetition.
_MOSTLY, _FAIR_SAMPLE, _MOST_SKIPPED = 0.5, 2**14, 32


@dataclass(frozen=True)
class Encoded:
    """Token ids of B texts, one text after the other.

    Args:
        ids: (T,) uint16, or uint32 for a vocabulary of more than 65,536 entries.
        offsets: (B + 1,) int64, where each text begins.
        word_starts: (T,) bool, whether a token begins a word.

    """

    ids: NDArray[np.unsignedinteger[Any]]
    offsets: NDArray[np.int64]
    word_starts: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, index: int) -> NDArray[np.unsignedinteger[Any]]:
        """Ids of one text."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


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


class FastEncoder:
    """Encodes batches of texts as ``tokenizer.encode_batch_fast(texts, add_special_tokens=False)`` does.

    A tokenizer that is no plain BERT WordPiece (see :func:`bert_ops.tokenizer.characters.frame_of`) is used as it is.

    Args:
        tokenizer: the tokenizer; must not be changed afterwards.
        kept_runs: runs whose ids are remembered; bounds memory (about 250 bytes each).

    """

    def __init__(self, tokenizer: Tokenizer, *, kept_runs: int = 2**18) -> None:
        self.tokenizer, self.kept_runs = tokenizer, kept_runs
        pieces = tokenizer.get_vocab(with_added_tokens=True)
        size = max(pieces.values()) + 1
        self.dtype = np.dtype(np.uint16 if size <= 2**16 else np.uint32)
        self.special = tuple(token.content for token in tokenizer.get_added_tokens_decoder().values())
        self.continues = np.zeros(size, np.bool_)
        for piece, number in pieces.items():
            self.continues[number] = piece.startswith(CONTINUATION) and piece not in {CONTINUATION, *self.special}
        frame = characters.frame_of(tokenizer)
        self.table = None if frame is None else _id_table(tokenizer, frame)
        self.runs = None if frame is None else _Runs(tokenizer, frame)
        self._skip = self._next_skip = 0

    def encode(self, texts: Sequence[str], *, inside: NDArray[np.bool_] | None = None) -> Encoded:
        """Encode texts.

        Args:
            texts: B texts.
            inside: bool for every character of ``join(texts)``, True where a word of several characters goes on, as
                :mod:`bert_ops.tokenizer.segment` gives it; without it every Chinese character begins a word.

        Raises:
            InputError: a text holds half of a surrogate pair.

        """
        if not texts:
            return Encoded(np.zeros(0, self.dtype), np.zeros(1, np.int64), np.zeros(0, np.bool_))
        joined = join(texts)
        if self.table is None or self.runs is None or self._skip > 0:
            self._skip -= 1
            return self._by_library(texts, joined, inside)
        values = self.table[joined.points]
        whole = self._texts_with_special(joined)
        for number in whole:
            values[joined.bounds[number] : joined.bounds[number + 1] - 1] = _CONTEXT
        starts, stops = runs_in(values == _CONTEXT)
        # A text that is given to the library whole is one run, which begins where the text does.
        rows = np.searchsorted(starts, joined.bounds[whole])
        parts = list(map(joined.text.__getitem__, map(slice, starts.tolist(), stops.tolist())))
        numbers, unknown = self.runs.resolve(parts, whole=rows.tolist())
        self._weigh(unknown, len(joined.text))
        encoded = self._assemble(values, joined, starts, numbers, inside)
        self.runs.forget(keep=self.kept_runs)
        if inside is not None and whole:
            self._mark_by_library(encoded, texts, joined, numbers=whole, inside=inside)
        return encoded

    def _weigh(self, unknown: int, characters_read: int) -> None:
        """Leave some batches to the library if most of this one was new: text without repetition, as of random words.

        Looking for repetitions then costs more than it saves; it is tried again after 1, 2, 4 … 32 batches.
        """
        if characters_read < _FAIR_SAMPLE or unknown < characters_read * _MOSTLY:
            self._next_skip = 0
            return
        self._next_skip = min(max(1, 2 * self._next_skip), _MOST_SKIPPED)
        self._skip = self._next_skip

    def _texts_with_special(self, joined: Joined) -> list[int]:
        """Numbers of the texts that hold the content of an added token, ascending."""
        found: set[int] = set()
        for content in self.special:
            place = joined.text.find(content)
            while place >= 0:
                number = int(np.searchsorted(joined.bounds, place, side="right")) - 1
                found.add(number)
                place = joined.text.find(content, int(joined.bounds[number + 1]))
        # A token with a line feed in it may be found across the border of two texts: harmless, unless one is empty.
        return sorted(number for number in found if joined.bounds[number + 1] - joined.bounds[number] > 1)

    def _assemble(
        self,
        values: NDArray[np.int32],
        joined: Joined,
        starts: NDArray[np.int64],
        numbers: NDArray[np.int64],
        inside: NDArray[np.bool_] | None,
    ) -> Encoded:
        """Put the ids of isolated characters and those of runs in their order."""
        assert self.runs is not None
        places = np.flatnonzero(values >= 0)
        first, lengths = self.runs.spans(numbers)
        passed = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=passed[1:])
        total = int(passed[-1])
        ids = np.empty(len(places) + total, self.dtype)
        single = np.ones(len(ids), np.bool_)
        count = np.arange(total)
        target = np.repeat(np.searchsorted(places, starts), lengths) + count
        single[target] = False
        ids[target] = self.runs.pool[np.repeat(first - passed[:-1], lengths) + count]
        ids[single] = values[places]
        offsets = np.searchsorted(places, joined.bounds) + passed[np.searchsorted(starts, joined.bounds)]
        word_starts = ~self.continues[ids]
        if inside is not None:
            goes_on = inside[places] & characters.is_chinese(joined.points[places])
            word_starts[np.flatnonzero(single)[goes_on]] = False
        return Encoded(ids, offsets, word_starts)

    def _by_library(self, texts: Sequence[str], joined: Joined, inside: NDArray[np.bool_] | None) -> Encoded:
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids, lengths = _flat(encodings)
        encoded = Encoded(ids.astype(self.dtype), np.concatenate([[0], np.cumsum(lengths)]), ~self.continues[ids])
        if inside is not None:
            self._mark_by_library(encoded, texts, joined, numbers=range(len(texts)), inside=inside)
        return encoded

    def _mark_by_library(
        self,
        encoded: Encoded,
        texts: Sequence[str],
        joined: Joined,
        *,
        numbers: Sequence[int],
        inside: NDArray[np.bool_],
    ) -> None:
        """Take the mark of a word's start from Chinese characters inside words, in texts that the library encoded."""
        goes_on = inside & characters.is_chinese(joined.points)
        encodings = self.tokenizer.encode_batch([texts[number] for number in numbers], add_special_tokens=False)
        for number, encoding in zip(numbers, encodings, strict=True):
            begin, first = int(joined.bounds[number]), int(encoded.offsets[number])
            for place, (start, stop) in enumerate(encoding.offsets):
                if stop - start == 1 and goes_on[begin + start]:
                    encoded.word_starts[first + place] = False


class _Runs:
    """Ids of runs: those seen before from a dictionary, others from the library, many in one text."""

    def __init__(self, tokenizer: Tokenizer, frame: str) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, int] = {}
        self.pool = np.empty(1024, np.int32)
        self.ends = np.zeros(1024, np.int64)
        self.size = 0
        self.alone, self.separator = _separated(tokenizer, frame)

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
        self._add(*_flat(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)))
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
            return _flat(self.tokenizer.encode_batch_fast(parts, add_special_tokens=False))
        mark, mark_id = self.separator
        texts = [mark.join(chunk) + mark for chunk in _chunks(parts)]
        ids, _ = _flat(self.alone.encode_batch_fast(texts, add_special_tokens=False))
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


def _flat(encodings: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def runs_in(marked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and stops of the stretches of True."""
    edges = np.flatnonzero(marked[1:] != marked[:-1]) + 1
    if len(marked) and marked[0]:
        edges = np.concatenate([[0], edges])
    if len(marked) and marked[-1]:
        edges = np.concatenate([edges, [len(marked)]])
    return edges[::2], edges[1::2]


def _id_table(tokenizer: Tokenizer, frame: str) -> NDArray[np.int32]:
    """Id of every isolated character, -1 for white space, -2 for the rest, (0x110000,)."""
    kinds = characters.kinds(frame)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary, unknown = model["vocab"], model["vocab"][model["unk_token"]]
    table = np.full(len(kinds), _CONTEXT, np.int32)
    table[kinds == SPACE] = _NOTHING
    points, words = characters.isolated(frame)
    table[points] = [vocabulary.get(word, unknown) for word in words]
    return table


def _separated(tokenizer: Tokenizer, frame: str) -> tuple[Tokenizer, tuple[str, int] | None]:
    """A copy of the tokenizer with one more piece, an isolated character that separates runs, and its id.

    The character stands in no vocabulary and in no run, so that its id marks the ends of runs without doubt.
    """
    specification = json.loads(tokenizer.to_str())
    vocabulary = specification["model"]["vocab"]
    # Backwards: the last of them are rare. One that stands for another, or that another stands for, may be in a run.
    points, words = characters.isolated(frame)
    written = map(chr, reversed(points.tolist()))
    mark = next(
        (c for c, word in zip(written, reversed(words), strict=True) if c == word and c not in vocabulary), None
    )
    if mark is None:
        return tokenizer, None
    mark_id = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    vocabulary[mark] = mark_id
    specification["added_tokens"] = []
    specification["post_processor"] = None
    return Tokenizer.from_str(json.dumps(specification)), (mark, mark_id)
