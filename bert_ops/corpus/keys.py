"""What makes a text different from others: its key, the hash of the key, and the character n-grams of the key.

Two texts are the same if their letters, marks and digits are: normalised by NFKC, in lower case, everything else
removed. Punctuation and spacing do not tell two reviews apart, and a held-out text that stands in the training split
but for its full stop would flatter every score. Combining marks count, because in Indic scripts they are the vowels.

:func:`key` says this for one text; :class:`Keys` does it for a batch by table look-up, some thirty times faster, and
falls back on :func:`key` for texts with characters that interact with their neighbours.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")
_CODE_POINTS = 0x110000

#: Blocks whose characters are looked at one by one when the table is built; all others but the next are left to `key`.
_EXAMINED = ((0x0000, 0x3400), (0xA000, 0xAC00), (0xF900, 0x10000), (0x1F000, 0x1FB00), (0x2F800, 0x2FA20))
#: Ideographs and Hangul syllables: each is its own key if it is assigned.
_OWN_KEY = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0x20000, 0x2F800), (0x30000, 0x323B0))
#: Entries of the table: the character is dropped; it needs :func:`key`.
_DROPPED, _INTERACTS = 0xFFFFFFFE, 0xFFFFFFFF

#: Stands between the keys of the two texts of a pair, in the key of the pair; no key of a text holds it.
PAIR = "\x1f"

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: Fibonacci hashing (Knuth, TAOCP 6.4)


def key(text: str) -> str:
    """Reduce a text to what makes it different from others; empty if it has no letter and no digit."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    if folded.isalnum():
        return folded
    if folded.isascii() or not any(unicodedata.category(character)[0] == "M" for character in folded):
        return _NEITHER_LETTER_NOR_DIGIT.sub("", folded)
    # Without the space between them, a letter and a mark may compose.
    return unicodedata.normalize("NFKC", _NEITHER_LETTER_NOR_DIGIT.sub(_keep_marks, folded))


def _keep_marks(match: re.Match[str]) -> str:
    return "".join(character for character in match.group() if unicodedata.category(character)[0] == "M")


def content_hash(key: str) -> str:
    """SHA-256 of a key, 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class Keys:
    """Keys of N texts, one after the other.

    Attributes:
        codes: (C,) uint32, code points of all keys.
        ends: (N + 1,) int64, where each key begins, and C.

    """

    codes: NDArray[np.uint32]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Keys:
        """Return the keys of cleaned texts (no lone surrogates)."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        raw = _codes("".join(texts))
        mapped = _table()[raw]
        interacts = np.flatnonzero(mapped == _INTERACTS)
        slow = np.unique(np.searchsorted(starts, interacts, side="right") - 1) if len(interacts) else interacts
        if len(slow):
            return cls._with_slow(texts, slow=set(slow.tolist()))
        kept = mapped != _DROPPED
        counts = np.concatenate([[0], np.cumsum(kept)])
        return cls(mapped[kept], counts[starts])

    @classmethod
    def of_keys(cls, keys: Sequence[str]) -> Keys:
        """Take strings that are keys already, of single texts or of pairs."""
        lengths = np.fromiter(map(len, keys), np.int64, len(keys))
        return cls(_codes("".join(keys)), np.concatenate([[0], np.cumsum(lengths)]))

    @classmethod
    def _with_slow(cls, texts: Sequence[str], *, slow: set[int]) -> Keys:
        quick = cls.of(["" if index in slow else text for index, text in enumerate(texts)])
        pieces = [
            _codes(key(text)) if index in slow else quick.codes[quick.ends[index] : quick.ends[index + 1]]
            for index, text in enumerate(texts)
        ]
        ends = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
        return cls(np.concatenate(pieces).astype(np.uint32), ends.astype(np.int64))

    def strings(self) -> list[str]:
        """The keys as strings."""
        joined = self.codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        ends = self.ends.tolist()
        return [joined[start:end] for start, end in pairwise(ends)]

    def ngrams(self, n: int) -> tuple[U64, NDArray[np.int64]]:
        """Hashes of the n-grams of each key; a key shorter than ``n`` is one n-gram by itself, an empty one has none.

        Returns:
            (G,) uint64 hashes of all keys, and (N + 1,) int64 where those of each key begin.

        """
        lengths = np.diff(self.ends)
        counts = np.where(lengths == 0, 0, np.maximum(lengths - n + 1, 1))
        # Zeros behind each key, so that a short one has n characters too; no text holds U+0000 after cleaning.
        padded = np.zeros(len(self.codes) + n - 1, np.uint64)
        padded[: len(self.codes)] = self.codes
        starts = np.repeat(self.ends[:-1], counts) + _ranges(counts)
        room = np.repeat(self.ends[1:], counts) - starts
        whole = np.zeros(len(starts), np.uint64)
        for offset in range(n):
            character = padded[starts + offset]
            if offset:
                character[room <= offset] = 0
            whole *= _MULTIPLIER
            whole += character + np.uint64(1)
        return mixed(whole), np.concatenate([[0], np.cumsum(counts)])


def _ranges(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … c - 1 for each count c, one after the other."""
    total = int(counts.sum())
    firsts = np.cumsum(counts) - counts
    return np.arange(total, dtype=np.int64) - np.repeat(firsts, counts)


def mixed(values: U64) -> U64:
    """Spread the bits of 64-bit values, in place (the finaliser of SplitMix64; Steele et al. 2014)."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@cache
def _table() -> NDArray[np.uint32]:
    """What each code point becomes in a key of which no two characters interact."""
    table = np.full(_CODE_POINTS, _INTERACTS, np.uint32)
    for first, last in _OWN_KEY:
        codes = np.arange(first, last, dtype=np.uint32)
        assigned = np.fromiter((chr(code).isalnum() for code in codes), bool, len(codes))
        table[first:last][assigned] = codes[assigned]
    for first, last in _EXAMINED:
        for code in range(first, last):
            table[code] = _entry(chr(code))
    return table


def _entry(character: str) -> int:
    if unicodedata.category(character)[0] in "MC" and character not in "\t\n\r":
        # Marks reorder and compose; among "C" are format characters, surrogates and what a later Unicode may assign.
        return _INTERACTS
    decomposed = unicodedata.normalize("NFKD", character)
    if any(unicodedata.combining(c) for c in decomposed) and len(key(character)) != 1:
        return _INTERACTS
    if "\u1100" <= character <= "\u11ff" or any("\u1100" <= c <= "\u11ff" for c in decomposed):
        return _INTERACTS  # Hangul letters compose to syllables
    if character == "\u03a3":
        return _INTERACTS  # its lower case depends on where it stands in the word
    reduced = key(character)
    if not reduced:
        return _DROPPED
    # A spacing accent (¨) leaves its mark, which composes with the letter before it.
    return ord(reduced) if len(reduced) == 1 and not unicodedata.combining(reduced) else _INTERACTS
