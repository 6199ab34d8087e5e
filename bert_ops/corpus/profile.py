"""What the texts of a corpus are made of: lengths, classes of characters, the most frequent tokens.

Texts pass by once. What is kept of them does not grow with their number: a table of counts over the code points and
one over the lengths for each source, and a sample of at most :data:`SAMPLE_CHARACTERS` for counting words. Counting
runs over arrays of code points (several hundred megabytes a second); a character is classified only once, at the end.
Sums and the sample depend on the texts alone, not on their order or on how they came in batches.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

#: Classes of characters, in the order in which they are shown.
CLASSES = (
    "Han", "Kana", "Hangul", "Latin", "other letters", "digits", "punctuation", "symbols", "space", "other",
)  # fmt: skip
#: Shares of the documents whose lengths are reported.
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: Characters of all texts together that words are counted in.
SAMPLE_CHARACTERS = 2_000_000
#: Characters of one document that may enter the sample.
SAMPLE_OF_DOCUMENT = 2_000
#: Most frequent tokens that are listed.
TOP = 40

#: Characters by whose hash, together with its length, a document is drawn.
_HASHED_CHARACTERS = 64
_BLOCK_CHARACTERS = 1 << 20
_HAN = ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_KANA = ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D), (0x1AFF0, 0x1B16F))
_HANGUL = ((0x1100, 0x11FF), (0x3131, 0x318E), (0xA960, 0xA97C), (0xAC00, 0xD7FB), (0xFFA0, 0xFFDC))
_RANGES = (("Han", _HAN), ("Kana", _KANA), ("Hangul", _HANGUL))
#: Lengths from here on are counted with nine significant bits, within 0.4% of the truth.
_EXACT_LENGTHS = 1 << 9
_HASHES = 1 << 32


@dataclass
class _Source:
    """Counts of one source."""

    documents: int = 0
    codes: Counts = field(default_factory=lambda: np.zeros(0x300, np.int64))
    lengths: Counter[int] = field(default_factory=Counter)
    shortest: int | None = None
    longest: int = 0


class Profile:
    """Counts over texts that pass by.

    Memory: up to 9 MB a source for code points (0.5 MB while only the first plane of Unicode occurs), some thousand
    lengths, and the sample.
    """

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._splits: dict[str, list[int]] = {}
        self._sample: dict[tuple[int, str], list[str]] = {}
        self._sampled = 0
        self._below = _HASHES

    def add(self, source: str, split: str, texts: Sequence[str]) -> None:
        """Count documents of one source and split."""
        if not texts:
            return
        kept = self._sources.setdefault(source, _Source())
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        kept.documents += len(texts)
        shortest = int(lengths.min())
        kept.shortest = shortest if kept.shortest is None else min(kept.shortest, shortest)
        kept.longest = max(kept.longest, int(lengths.max()))
        values, times = np.unique(_rounded(lengths), return_counts=True)
        for value, number in zip(values.tolist(), times.tolist(), strict=True):
            kept.lengths[value] += number
        for block in _blocks(texts):
            kept.codes = _sum(kept.codes, _code_counts(block))
        counted = self._splits.setdefault(split, [0, 0])
        counted[0] += len(texts)
        counted[1] += int(lengths.sum())
        self._draw(source, texts)

    def _draw(self, source: str, texts: Sequence[str]) -> None:
        """Keep the texts whose hash is low enough; the bar sinks whenever the sample grows too large.

        Which texts are left follows from the set of all texts: the bar ends at the highest of 2^32, 2^31, … at which
        those below it fit.
        """
        for text in texts:
            place = zlib.crc32(text[:_HASHED_CHARACTERS].encode("utf-8", "replace"), len(text))
            if place < self._below:
                start = text[:SAMPLE_OF_DOCUMENT]
                self._sample.setdefault((place, source), []).append(start)
                self._sampled += len(start)
        while self._sampled > SAMPLE_CHARACTERS:
            self._below //= 2
            for key in [key for key in self._sample if key[0] >= self._below]:
                self._sampled -= sum(map(len, self._sample.pop(key)))

    def result(self) -> dict[str, Any]:
        """Return the profile, ready for JSON.

        Returns:
            ``all`` and, by name, ``sources``: documents, characters, bytes (as UTF-8), distinct_characters, lengths
            (min, mean, max, quantiles, and a histogram: ``counts[i]`` documents have from ``edges[i]`` up to below
            ``edges[i + 1]`` characters), classes (characters of each of :data:`CLASSES`), and the most frequent
            letters, punctuation, words and one_character_words as [token, count], where words are counted in
            ``words_counted_in`` characters; ``splits``: documents and characters of each.

        """
        words, sampled = self._words()
        whole = _merge(self._sources.values())
        return {
            "all": _facts(whole, sum(words.values(), Counter()), sum(sampled.values())),
            "sources": {
                name: _facts(source, words.get(name, Counter()), sampled.get(name, 0))
                for name, source in sorted(self._sources.items())
            },
            "splits": {
                split: {"documents": documents, "characters": characters}
                for split, (documents, characters) in sorted(self._splits.items())
            },
        }

    def _words(self) -> tuple[dict[str, Counter[str]], Counter[str]]:
        """Count the words of the sample by source, and its characters."""
        import rjieba

        words: dict[str, Counter[str]] = {}
        sampled: Counter[str] = Counter()
        for (_, source), texts in self._sample.items():
            of_source = words.setdefault(source, Counter())
            for text in texts:
                sampled[source] += len(text)
                of_source.update(word for word in rjieba.cut(text.lower()) if word[:1].isalpha())
        return words, sampled


def character_class(character: str) -> str:
    """Name the class of a character: its script where that is Han, Kana, Hangul or Latin, else its general category.

    Source: Unicode Character Database, blocks and general categories.
    """
    code = ord(character)
    for name, ranges in _RANGES:
        if any(low <= code <= high for low, high in ranges):
            return name
    if character.isspace():
        return "space"
    category = unicodedata.category(character)
    if category[0] == "L":
        return "Latin" if "LATIN" in unicodedata.name(character, "") else "other letters"
    return {"N": "digits", "P": "punctuation", "S": "symbols", "Z": "space", "M": "other letters"}.get(
        category[0], "other"
    )


def _blocks(texts: Iterable[str]) -> Iterator[str]:
    """Lay texts end to end in blocks of a bounded size; a long text is cut."""
    waiting: list[str] = []
    size = 0
    for text in texts:
        if size + len(text) > _BLOCK_CHARACTERS:
            yield "".join(waiting)
            waiting, size = [], 0
        if len(text) > _BLOCK_CHARACTERS:
            for start in range(0, len(text), _BLOCK_CHARACTERS):
                yield text[start : start + _BLOCK_CHARACTERS]
        else:
            waiting.append(text)
            size += len(text)
    yield "".join(waiting)


def _code_counts(block: str) -> Counts:
    """Count the code points of a block, (highest + 1,)."""
    codes = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return np.bincount(codes)


def _sum(left: Counts, right: Counts) -> Counts:
    if len(left) < len(right):
        left = np.pad(left, (0, len(right) - len(left)))
    left[: len(right)] += right
    return left


def _rounded(lengths: Counts) -> Counts:
    """Lengths with their nine highest bits; small ones stay as they are."""
    bits = np.frexp(np.maximum(lengths, 1).astype(np.float64))[1]
    shift = np.maximum(bits - _EXACT_LENGTHS.bit_length() + 1, 0)
    rounded: Counts = (lengths >> shift) << shift
    return rounded


def _merge(sources: Iterable[_Source]) -> _Source:
    whole = _Source()
    for source in sources:
        whole.documents += source.documents
        whole.codes = _sum(whole.codes, source.codes)
        whole.lengths.update(source.lengths)
        if source.shortest is not None:
            whole.shortest = source.shortest if whole.shortest is None else min(whole.shortest, source.shortest)
        whole.longest = max(whole.longest, source.longest)
    return whole


def _facts(source: _Source, words: Counter[str], sampled: int) -> dict[str, Any]:
    present = np.flatnonzero(source.codes)
    counts = dict(zip(map(chr, present.tolist()), source.codes[present].tolist(), strict=True))
    classes: Counter[str] = Counter()
    of_class = {character: _class(character) for character in counts}
    for character, number in counts.items():
        classes[of_class[character]] += number
    letters = {c: n for c, n in counts.items() if of_class[c] in {"Han", "Kana", "Hangul", "Latin", "other letters"}}
    marks = {c: n for c, n in counts.items() if of_class[c] in {"punctuation", "symbols"}}
    return {
        "documents": source.documents,
        "characters": sum(counts.values()),
        "bytes": sum(number * _utf8_bytes(ord(character)) for character, number in counts.items()),
        "distinct_characters": len(counts),
        "lengths": _lengths(source, sum(counts.values())),
        "classes": {name: classes[name] for name in CLASSES},
        "letters": _most(letters),
        "punctuation": _most(marks),
        "words": _most({word: number for word, number in words.items() if len(word) > 1}),
        "one_character_words": _most({word: number for word, number in words.items() if len(word) == 1}),
        "words_counted_in": sampled,
    }


@cache
def _class(character: str) -> str:
    return character_class(character)


def _utf8_bytes(code: int) -> int:
    return 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)


def _most(counts: dict[str, int]) -> list[list[Any]]:
    """Most frequent first; equals in the order of their code points."""
    return [[token, number] for token, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]]


def _lengths(source: _Source, characters: int) -> dict[str, Any]:
    """Summary of the lengths of documents, in characters."""
    values = np.array(sorted(source.lengths), np.int64)
    times = np.array([source.lengths[value] for value in values.tolist()], np.int64)
    edges = _edges(source.longest)
    histogram = np.bincount(np.searchsorted(edges, values, side="right") - 1, weights=times, minlength=len(edges) - 1)
    running = np.cumsum(times)
    quantiles = {}
    for share in QUANTILES:
        # the smallest length that at least this share of the documents does not exceed
        place = int(np.searchsorted(running, share * source.documents)) if source.documents else 0
        quantiles[f"{share:g}"] = int(values[min(place, len(values) - 1)]) if len(values) else None
    return {
        "min": source.shortest,
        "mean": round(characters / source.documents, 3) if source.documents else None,
        "max": source.longest if source.documents else None,
        "quantiles": quantiles,
        "edges": edges.tolist(),
        "counts": histogram.astype(np.int64).tolist() if len(values) else [0] * (len(edges) - 1),
    }


def _edges(longest: int) -> Counts:
    """Edges of bins, ten to a factor of ten where whole numbers allow it (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16)."""
    edges = [0, 1]
    exponent = 1
    while edges[-1] <= longest:
        edge = round(10 ** (exponent / 10))
        if edge > edges[-1]:
            edges.append(edge)
        exponent += 1
    return np.array(edges, np.int64)
