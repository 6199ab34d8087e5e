"""Step ``lines``: one space between words, none at the ends; blank lines are remembered as ends of sentences."""

from __future__ import annotations

import re
from collections.abc import Callable

from bert_ops.corpus.cleaning.alignment import Edit, apply, check_spans, is_anchored, without_repeats
from bert_ops.corpus.records import Draft, Span

_LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
_WHITE_SPACE = re.compile(r"\s+")


def lines_step() -> Callable[[Draft], None]:
    """Return the step that collapses white space."""

    def collapse(draft: Draft) -> None:
        text = draft.text
        if not is_anchored(draft) and not _LINE_BREAK.search(text):
            draft.text = " ".join(text.split())
            return
        edits, breaks = _edits(text)
        apply(draft, edits)
        draft.breaks = tuple(sorted({*draft.breaks, *breaks}))
        if draft.spans:
            draft.spans = check_spans([_trimmed(draft.text, span) for span in draft.spans])
        if draft.word_starts:
            draft.word_starts = _on_words(draft.text, draft.word_starts)

    return collapse


def _edits(text: str) -> tuple[list[Edit], list[int]]:
    """Edits that collapse white space, and the places of the new text at which lines were blank."""
    edits: list[Edit] = []
    breaks: list[int] = []
    shift = 0
    for match in _WHITE_SPACE.finditer(text):
        start, end = match.span()
        at_an_end = start == 0 or end == len(text)
        if not at_an_end and len(_LINE_BREAK.findall(match.group())) > 1:
            breaks.append(start + shift)
        replacement = "" if at_an_end else " "
        if match.group() != replacement:
            edits.append((start, end, replacement))
            shift += len(replacement) - (end - start)
    return edits, breaks


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
    return without_repeats(
        (start + 1 if text[start] == " " else start for start in starts if start < len(text)), limit=len(text)
    )
