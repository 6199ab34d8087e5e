"""Encoding by table: the ids of ``Tokenizer.encode_batch_fast``, faster.

A character that is a word by itself (:mod:`bert_ops.tokenizer.characters`) has one id whatever stands around it, so
Chinese is a table look-up over an array of code points. What stands between such characters (Latin words, numbers,
marks, controls) forms runs. White space and isolated characters end words, nothing before them reaches over, so a run
has the same ids alone as in its text: they are kept in a dictionary, and only runs that are not yet there are given to
the library. Texts with a special or user token in them are given to it whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.tokenizer import characters
from bert_ops.tokenizer.characters import SPACE
from bert_ops.tokenizer.joined import Joined, join, runs_in
from bert_ops.tokenizer.runs import Runs, flat

#: Prefix of a piece that continues a word.
CONTINUATION = "##"

#: Marks in the table of ids.
_NOTHING, _CONTEXT = -1, -2

#: A batch of which this share is new, and that is large enough to tell, is the sign of text without repetition.
_MOSTLY, _FAIR_SAMPLE, _MOST_SKIPPED = 0.7, 2**14, 32

#: Characters that are worked on at a time, unless one text has more; bounds memory (about 50 bytes each).
_MOST_CHARACTERS = 2**20


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
        specification = json.loads(tokenizer.to_str())
        frame = characters.frame_of(specification)
        self.table = None if frame is None else _id_table(specification["model"], frame)
        self.runs = None if frame is None else Runs(tokenizer, specification, frame, free_id=size)
        self._skip = 0
        #: Batches to leave to the library when the next one is new; None while batches repeat themselves.
        self._next_skip: int | None = 0

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
        if self.table is None or self._skip > 0:
            self._skip -= 1
            return self._by_library(texts, joined, inside)
        head = self._head(joined)
        if head < len(texts):
            cut = int(joined.bounds[head])
            parts = [
                self.encode(texts[:head], inside=None if inside is None else inside[: cut - 1]),
                self.encode(texts[head:], inside=None if inside is None else inside[cut:]),
            ]
            return _concatenated(parts)
        return self._by_table(texts, joined, inside)

    def _head(self, joined: Joined) -> int:
        """How many texts of a batch to encode first: all but where it is too large, or must be tried.

        A fair sample is tried while it is not known that batches repeat themselves.
        """
        count = len(joined.bounds) - 1
        sample = int(np.searchsorted(joined.bounds, _FAIR_SAMPLE + 1))
        if self._next_skip is not None and sample < count // 2:
            return sample
        if joined.bounds[-1] > _MOST_CHARACTERS:
            return max(int(np.searchsorted(joined.bounds, _MOST_CHARACTERS, side="right")) - 1, 1)
        return count

    def forget(self) -> None:
        """Forget all runs."""
        self._skip, self._next_skip = 0, 0
        if self.runs is not None:
            self.runs.forget(keep=-1)

    def _by_table(self, texts: Sequence[str], joined: Joined, inside: NDArray[np.bool_] | None) -> Encoded:
        assert self.table is not None and self.runs is not None
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
        """Leave some batches to the library if nearly all of this one was new: text without repetition.

        Looking for repetitions then costs more than it saves; it is tried again after 1, 2, 4 … 32 batches, on a part.
        """
        if characters_read < _FAIR_SAMPLE:
            return
        if unknown < characters_read * _MOSTLY:
            self._next_skip = None
            return
        self._next_skip = min(2 * (self._next_skip or 0) or 1, _MOST_SKIPPED)
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
        ids, lengths = flat(encodings)
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


def _concatenated(parts: Sequence[Encoded]) -> Encoded:
    before = np.cumsum([0, *(len(part.ids) for part in parts)])
    offsets = [part.offsets[1:] + first for part, first in zip(parts, before[:-1], strict=True)]
    return Encoded(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([part.word_starts for part in parts]),
    )


def _id_table(model: dict[str, Any], frame: str) -> NDArray[np.int32]:
    """Id of every isolated character, -1 for white space, -2 for the rest, (0x110000,)."""
    kinds = characters.kinds(frame)
    vocabulary, unknown = model["vocab"], model["vocab"][model["unk_token"]]
    table = np.full(len(kinds), _CONTEXT, np.int32)
    table[kinds == SPACE] = _NOTHING
    points, words = characters.isolated(frame)
    table[points] = [vocabulary.get(word, unknown) for word in words]
    return table
