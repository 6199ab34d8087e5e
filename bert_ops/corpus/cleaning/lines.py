"""Step ``lines``: hard-wrapped lines are joined, white space is collapsed, and ends of paragraphs are remembered.

A line break is a wrap if the first word of the next line would not have fitted behind the line, given the width that
the text was wrapped to; it takes two such lines to believe that a text is wrapped at all. Any other line break ends a
sentence (a title, a list item, a verse), as a blank line and an indented line do: see ``Draft.breaks``.

Between Han characters, kana and their punctuation a joined wrap leaves no space, and neither does it between one of
them and anything else. A hyphen at the end of a line goes only if the word stands elsewhere in the text without it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from functools import cached_property

from bert_ops.corpus.cleaning.alignment import Edit, apply, check_spans, is_anchored
from bert_ops.corpus.cleaning.params import LinesParams
from bert_ops.corpus.records import Draft, Span

_LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
#: White space that is not one space between two words.
_UNEVEN = re.compile(r"\s{2,}|[^\S ]|\A\s|\s\Z")
_SPACES = re.compile(r"\s+")
#: Han characters, kana, bopomofo, their punctuation and full-width forms: no spaces stand between them.
_WIDE_CLASS = (
    r"\u2e80-\u2fdf\u3001-\u303f\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f"
    r"\uff01-\uff60\U00020000-\U000323af"
)
_WIDE = re.compile(f"[{_WIDE_CLASS}]+")
_FIRST_WORD = re.compile(rf"[^\s{_WIDE_CLASS}]+")
_HYPHENATED = re.compile(r"[A-Za-z]+-\Z")
_LOWER_WORD = re.compile(r"[a-z]+")
_WORDS = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
#: Least number of full lines that make a text a wrapped one, and characters of indentation that begin a paragraph.
_FULL_LINES, _INDENTATION = 2, 2
#: Columns of a first word at most: longer ones are addresses, and say nothing about the width.
_FIRST_WORD_MOST = 40
_LONGEST_HYPHENATED = 40


def lines_step(params: LinesParams) -> Callable[[Draft], None]:
    """Return the step that repairs lines and collapses white space."""

    def repair(draft: Draft) -> None:
        text = draft.text
        collapsed = " ".join(text.split())
        as_it_is = collapsed == text or (not is_anchored(draft) and not _LINE_BREAK.search(text))
        if as_it_is and params.spaces_between_han == "keep":
            draft.text = collapsed
        else:
            edits, breaks = _edits(text, params)
            apply(draft, edits)
            draft.breaks = tuple(sorted({*draft.breaks, *breaks}))
        if draft.spans and " " in draft.text:
            draft.spans = check_spans([_trimmed(draft.text, span) for span in draft.spans])

    return repair


class _Lines:
    """The lines of a text, as far as it must be known how wide they are."""

    def __init__(self, text: str, params: LinesParams) -> None:
        self._text = text
        self._params = params
        places = [0]
        for match in _LINE_BREAK.finditer(text):
            places += match.span()
        places.append(len(text))
        self._starts, self._ends = places[0::2], places[1::2]

    def is_full(self, number: int) -> bool:
        """Say whether the first word of the next line would not have fitted behind this one."""
        return self._full[number]

    def number(self, position: int) -> int:
        """Number of the line in which a position of white space stands, at or before the end of the line."""
        return bisect_left(self._ends, position)

    def begins_paragraph(self, number: int) -> bool:
        """Say whether a line is indented, and more than the one before it."""
        indentation = self._indentation(number)
        return indentation >= _INDENTATION and self._indentation(number - 1) < indentation

    def _indentation(self, number: int) -> int:
        line = self._text[self._starts[number] : self._ends[number]]
        return len(line) - len(line.lstrip())

    @cached_property
    def is_wrapped(self) -> bool:
        """Say whether enough lines are full."""
        return sum(self._full) >= _FULL_LINES

    @cached_property
    def _full(self) -> list[bool]:
        lines = [self._text[start:end].strip() for start, end in zip(self._starts, self._ends, strict=True)]
        widths = [_columns(line) for line in lines]
        # The widest line that could have been wrapped: an address of one long word could not.
        widest = max(
            (width for width, line in zip(widths, lines, strict=True) if width > len(line) or " " in line), default=0
        )
        if widest < self._params.min_columns:
            return [False] * len(lines)
        least = self._params.full_share * widest
        return [
            width + _FIRST_WORD_MOST >= least and width + _first_columns(following) >= least
            for width, following in zip(widths[:-1], lines[1:], strict=True)
        ]

    @cached_property
    def words(self) -> frozenset[str]:
        """Latin words of the text in lower case, hyphenated ones whole."""
        return frozenset(_WORDS.findall(self._text.lower()))


def _first_columns(line: str) -> int:
    """Columns that the first word of a line would have taken behind the line before, with the space between them."""
    match = _FIRST_WORD.match(line)
    return 1 + min(len(match.group()), _FIRST_WORD_MOST - 1) if match else 2


def _columns(line: str) -> int:
    return len(line) if line.isascii() else len(line) + sum(map(len, _WIDE.findall(line)))


def _edits(text: str, params: LinesParams) -> tuple[list[Edit], list[int]]:
    """Edits of white space, and the places of the new text at which a paragraph ends."""
    lines = _Lines(text, params)
    edits: list[Edit] = []
    breaks: list[int] = []
    shift = 0
    for match in (_UNEVEN if params.spaces_between_han == "keep" else _SPACES).finditer(text):
        start, end = match.span()
        found = match.group()
        if start == 0 or end == len(text):
            replacement = ""
        elif (number := len(_LINE_BREAK.findall(found))) == 0:
            wide = params.spaces_between_han == "remove" and _WIDE.match(text, start - 1) and _WIDE.match(text, end)
            replacement = "" if wide else " "
        else:
            edit = None if number > 1 else _joint(text, start, end, lines, params)
            if edit is None:
                breaks.append(start + shift)
                replacement = " "
            else:
                start, end, replacement = edit
        if text[start:end] != replacement:
            edits.append((start, end, replacement))
            shift += len(replacement) - (end - start)
    return edits, breaks


def _joint(text: str, start: int, end: int, lines: _Lines, params: LinesParams) -> Edit | None:
    """Edit that joins two lines, the white space between which is text[start:end]; None if a paragraph ends there."""
    hyphen = _hyphen(text, start, end, lines, params)
    if hyphen is not None:
        return hyphen
    if not params.join_wrapped:
        return None
    number = lines.number(start)
    if not lines.is_full(number) or lines.begins_paragraph(number + 1):
        return None
    wide = _WIDE.match(text, start - 1) or _WIDE.match(text, end)
    return (start, end, "" if wide and lines.is_wrapped else " ")


def _hyphen(text: str, start: int, end: int, lines: _Lines, params: LinesParams) -> Edit | None:
    """Edit for a Latin word that was hyphenated at the end of a line."""
    if text[start - 1] != "-":
        return None
    left = _HYPHENATED.search(text, max(start - _LONGEST_HYPHENATED, 0), start)
    right = _LOWER_WORD.match(text, end, end + _LONGEST_HYPHENATED)
    if left is None or right is None:
        return None
    first, second = left.group()[:-1].lower(), right.group()
    if first + second in lines.words:
        joined = True
    elif f"{first}-{second}" in lines.words:
        joined = False
    else:
        joined = params.hyphens == "join"
    return (start - 1 if joined else start, end, "")


def _trimmed(text: str, span: Span) -> Span:
    """Move the ends of a span inwards past white space."""
    start, end, label = span
    while start < end and text[start] == " ":
        start += 1
    while end > start and text[end - 1] == " ":
        end -= 1
    return start, end, label
