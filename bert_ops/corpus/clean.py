"""Normalised text, and the exact place in it of each character of the original.

Three steps, in this order: characters that show nothing are dropped (control and format characters, zero-width marks,
variation selectors), the rest is brought to a Unicode normalisation form, and white space is collapsed. Labelled spans
follow their characters through all three.

Source: Unicode Standard Annex 15, "Unicode Normalization Forms" (boundaries of composition), and the cleaning of BERT's
own tokeniser (``BasicTokenizer._clean_text`` drops the categories Cc and Cf too).
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

Form = Literal["NFC", "NFKC"]
Span = tuple[int, int, str]

#: Zero-width marks that are neither control nor format characters: joiner of graphemes, variation selectors.
_ZERO_WIDTH_MARKS = frozenset(
    map(chr, [0x034F, *range(0x180B, 0x180E), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)

#: Planes of Unicode with assigned characters that are not for private use (Unicode Standard, section 2.8).
_ASSIGNED = (*range(0x40000), *range(0xE0000, 0xE1000))

#: Characters without a combining class that still compose with the one before them ("NFC_Quick_Check = Maybe").
_COMPOSING_STARTERS = frozenset(
    map(
        chr,
        [
            *(0x09BE, 0x09D7, 0x0B3E, 0x0B56, 0x0B57, 0x0BBE, 0x0BD7, 0x0CC2, 0x0CD5, 0x0CD6, 0x0D3E, 0x0D57, 0x0DCF),
            *(0x0DDF, 0x102E, 0x1B35, 0x11127, 0x1133E, 0x11357, 0x114B0, 0x114BA, 0x114BD, 0x115AF, 0x11930),
            *range(0x1161, 0x1176),
            *range(0x11A8, 0x11C3),
        ],
    )
)

_LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Cleaned:
    """A cleaned text.

    Attributes:
        text: normalised, without invisible characters, single spaces between words and none at the ends.
        breaks: positions in ``text`` at which the original left at least one line blank, so that a sentence ends there
            whatever its punctuation (titles, for one, have none).

    """

    text: str
    breaks: tuple[int, ...] = ()


def has_lone_surrogate(text: str) -> bool:
    """Say whether the text holds half of a surrogate pair, which no file can store as UTF-8."""
    return _SURROGATE.search(text) is not None


def clean(text: str, *, form: Form) -> Cleaned:
    """Clean a text that has no spans; the same result as :func:`clean_with_spans`, faster."""
    normalised = unicodedata.normalize(form, _invisible().sub("", text))
    if "\n" not in normalised and "\r" not in normalised and not _LINE_BREAK.search(normalised):
        return Cleaned(" ".join(normalised.split()))
    pieces: list[str] = []
    breaks: list[int] = []
    length = end = 0
    for word in re.finditer(r"\S+", normalised):
        if pieces:
            if len(_LINE_BREAK.findall(normalised, end, word.start())) > 1:
                breaks.append(length)
            length += 1
        pieces.append(word.group())
        length, end = length + len(word.group()), word.end()
    return Cleaned(" ".join(pieces), tuple(breaks))


def clean_with_spans(text: str, spans: list[Span], *, form: Form) -> tuple[Cleaned, list[Span]]:
    """Clean a text and move its spans along.

    A span that cuts through characters which normalisation fuses (a letter and its accent) or through one that it
    unfolds (㈱ to (株)) grows to whole characters of the new text. White space at a span's ends leaves it.

    Args:
        text: the original.
        spans: (start, end, label) with 0 <= start < end <= len(text).
        form: Unicode normalisation form.

    Returns:
        The cleaned text and the spans in it, in the order given; a span of which nothing is left has start == end.

    """
    cleaned = clean(text, form=form)
    if not spans:
        return cleaned, []
    if cleaned.text == text:
        return cleaned, [(*_trim(text, start, end), label) for start, end, label in spans]
    starts, targets = _segments(text, form=form)
    assert "".join(targets) == unicodedata.normalize(form, _invisible().sub("", text))
    places = _collapsed_places("".join(targets))
    offsets = [0]
    for target in targets:
        offsets.append(offsets[-1] + len(target))
    moved = []
    for start, end, label in spans:
        first = bisect_right(starts, start) - 1
        last = bisect_right(starts, end - 1) - 1
        moved.append((*_trim(cleaned.text, places[offsets[first]], places[offsets[last + 1]]), label))
    return cleaned, moved


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Move the ends of a span inwards past white space."""
    end = min(end, len(text))
    while start < end and text[start] == " ":
        start += 1
    while end > start and text[end - 1] == " ":
        end -= 1
    return min(start, end), end


def _segments(text: str, *, form: Form) -> tuple[list[int], list[str]]:
    """Cut a text into pieces that normalise independently of each other.

    Returns:
        The start of each piece in ``text`` and what the piece becomes; invisible characters belong to the piece that
        they follow.

    """
    invisible = _invisible()
    starts: list[int] = []
    pieces: list[list[str]] = []
    for index, character in enumerate(text):
        if not starts or (_begins_segment(character, form) and not invisible.match(character)):
            starts.append(index)
            pieces.append([])
        if not invisible.match(character):
            pieces[-1].append(character)
    return starts, [unicodedata.normalize(form, "".join(piece)) for piece in pieces]


@lru_cache(maxsize=65_536)
def _begins_segment(character: str, form: Form) -> bool:
    """Say whether no character before this one can change what it normalises to."""
    first = unicodedata.normalize("NFKD" if form == "NFKC" else "NFD", character)[0]
    return unicodedata.combining(first) == 0 and first not in _COMPOSING_STARTERS


def _collapsed_places(text: str) -> list[int]:
    """Position of each character of ``text``, and of its end, once white space is collapsed."""
    places: list[int] = []
    length, pending = 0, False
    for character in text:
        if character.isspace():
            places.append(length)
            pending = length > 0
            continue
        length += pending
        pending = False
        places.append(length)
        length += 1
    return [*places, length]


@cache
def _invisible() -> re.Pattern[str]:
    """Compile the class of characters that show nothing: control and format, but not white space."""
    return character_class(
        lambda character: (
            (unicodedata.category(character) in ("Cc", "Cf") and not character.isspace())
            or character in _ZERO_WIDTH_MARKS
        )
    )


def character_class(belongs: Callable[[str], bool]) -> re.Pattern[str]:
    """Compile the class of all characters for which ``belongs`` is true, by a look at each of them (0.1 s)."""
    runs: list[list[int]] = []
    for code in filter(lambda code: belongs(chr(code)), _ASSIGNED):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return re.compile("[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs) + "]")
