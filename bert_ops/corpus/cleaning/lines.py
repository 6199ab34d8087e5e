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

from bert_ops.corpus.cleaning.alignment import Edit, apply, check_spans, is_anchored, without_repeats
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
_FIRST_WORD = re.compile(rf"\s*([^\s{_WIDE_CLASS}]*)")
_HYPHENATED = re.compile(r"[A-Za-z]+-\Z")
_LOWER_WORD = re.compile(r"[a-z]+")
_WORDS = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
#: Least number of full lines that make a text a wrapped one, and characters of indentation that begin a paragraph.
_FULL_LINES, _INDENTATION = 2, 2
_LONGEST_HYPHENATED = 40


def lines_step(params: LinesParams) -> Callable[[Draft], None]:
    """Return the step that repairs lines and collapses white space."""

    def repair(draft: Draft) -> None:
        text = draft.text
        has_lines = not text.isprintable() and _LINE_BREAK.search(text) is not None
        if not has_lines and params.spaces_between_han == "keep" and not is_anchored(draft):
            draft.text = " ".join(text.split())
            return
        edits, breaks = _edits(text, params)
        apply(draft, edits)
        draft.breaks = tuple(sorted({*draft.breaks, *breaks}))
        if draft.spans:
            draft.spans = check_spans([_trimmed(draft.text, span) for span in draft.spans])
        if draft.word_starts:
            draft.word_starts = _on_words(draft.text, draft.word_starts)

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
        word = _FIRST_WORD.match(self._text, self._starts[number + 1], self._ends[number + 1])
        room = 2 if word is None or not word.group(1) else 1 + len(word.group(1))
        return self._width >= self._params.min_columns and (
            self._widths[number] + room >= self._params.full_share * self._width
        )

    def number(self, position: int) -> int:
        """Number of the line in which a position of white space stands, at or before the end of the line."""
        return bisect_left(self._ends, position)

    def indentation(self, number: int) -> int:
        """White space at the start of a line, in characters."""
        line = self._text[self._starts[number] : self._ends[number]]
        return len(line) - len(line.lstrip())

    @cached_property
    def is_wrapped(self) -> bool:
        """Say whether enough lines are full."""
        full = 0
        for number in range(len(self._starts) - 1):
            full += self.is_full(number)
            if full == _FULL_LINES:
                return True
        return False

    @cached_property
    def _widths(self) -> list[int]:
        """Columns of each line: a Han character takes two."""
        return [_columns(self._text[start:end].strip()) for start, end in zip(self._starts, self._ends, strict=True)]

    @cached_property
    def _width(self) -> int:
        """Columns of the widest line that could have been wrapped: an address of one long word could not."""
        return max(
            (
                width
                for start, end, width in zip(self._starts, self._ends, self._widths, strict=True)
                if " " in self._text[start:end].strip() or _WIDE.search(self._text, start, end)
            ),
            default=0,
        )

    @cached_property
    def words(self) -> frozenset[str]:
        """Latin words of the text in lower case, hyphenated ones whole."""
        return frozenset(_WORDS.findall(self._text.lower()))


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
    if lines.indentation(number + 1) >= _INDENTATION and lines.indentation(number) < lines.indentation(number + 1):
        return None
    if not lines.is_full(number):
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


def _on_words(text: str, starts: list[int]) -> list[int]:
    """Move starts that came to stand on the space before their word."""
    return without_repeats((start + 1 if text[start] == " " else start for start in starts), limit=len(text))
