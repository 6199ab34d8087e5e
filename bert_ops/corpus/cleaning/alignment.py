"""Edits of a text, and what follows its characters through them: labelled spans, word starts and breaks.

A step that changes a text either hands over the places that it replaces (:func:`apply`, :func:`substitute`) or, where
all it has is a conversion without a map, has it done piece by piece (:func:`convert_between_anchors`). A draft without
anything that must follow takes the quick way of a plain replacement; both ways give the same text.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from bert_ops.corpus.records import Draft, Span, Unfit

#: (start, end, replacement): text[start:end] becomes the replacement. Lists of edits are sorted and do not overlap.
Edit = tuple[int, int, str]

_SOLID = re.compile(r"\S")

#: Why an edit can make a draft unfit.
REASONS = {"lost_span": "nothing is left of a labelled span after cleaning, or two spans became one"}


def is_anchored(draft: Draft) -> bool:
    """Say whether anything must follow the characters of the draft."""
    return bool(draft.spans or draft.word_starts or draft.breaks)


def substitute(draft: Draft, pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str]) -> None:
    """Replace the matches of a pattern, and move what follows the text.

    Raises:
        Unfit: ``lost_span``.

    """
    if not is_anchored(draft):
        draft.text = pattern.sub(replace, draft.text)
        return
    text = draft.text
    edits = []
    for match in pattern.finditer(text):
        replacement = replace(match)
        if replacement != match.group():
            edits.append((match.start(), match.end(), replacement))
    apply(draft, edits)


def apply(draft: Draft, edits: Sequence[Edit]) -> None:
    """Make edits and move what follows the text.

    A span that cuts through a replaced place grows to the whole of the replacement. A word that begins within a
    replaced place and goes on behind it begins behind it; words that were replaced altogether are gone, and the word
    that begins where the place does begins with the replacement. Breaks move as words do.

    Raises:
        Unfit: ``lost_span``.

    """
    if not edits:
        return
    text = draft.text
    pieces: list[str] = []
    end = 0
    for first, last, replacement in edits:
        assert end <= first <= last, edits
        pieces += (text[end:first], replacement)
        end = last
    pieces.append(text[end:])
    draft.text = "".join(pieces)
    if draft.word_starts:
        draft.word_starts = _behind_space(draft.text, _moved(draft.word_starts, edits, limit=len(draft.text)))
    if draft.breaks:
        moved = _moved(draft.breaks, edits, limit=len(draft.text))
        draft.breaks = tuple(moved[1:] if moved and moved[0] == 0 else moved)
    if draft.spans:
        draft.spans = check_spans(_moved_spans(draft.spans, edits))


def _moved(positions: Sequence[int], edits: Sequence[Edit], *, limit: int) -> list[int]:
    """Move ascending positions along; those at ``limit``, the end of the new text, begin nothing and are left out."""
    moved: list[int] = []
    index = shift = 0
    for start, end, replacement in edits:
        # At the start of a replaced place: before the replacement. At a mere insertion: behind what is inserted.
        until = bisect_right(positions, start, index) if end > start else bisect_left(positions, start, index)
        moved += [position + shift for position in positions[index:until]] if shift else positions[index:until]
        index = bisect_left(positions, end, until)
        shift += len(replacement) - (end - start)
        if index > until and (index == len(positions) or positions[index] != end):
            moved.append(end + shift)
    moved += [position + shift for position in positions[index:]]
    return _without_repeats(moved, limit=limit)


def _behind_space(text: str, starts: list[int]) -> list[int]:
    """Move starts that came to stand on white space, because the rest of their word is gone, to the next word."""
    if not any(text[start].isspace() for start in starts):
        return starts
    moved: list[int] = []
    for start in starts:
        if not moved or start > moved[-1]:
            match = _SOLID.search(text, start)
            moved.append(match.start() if match else len(text))
    return _without_repeats(moved, limit=len(text))


def _without_repeats(positions: Iterable[int], *, limit: int) -> list[int]:
    """Ascending positions below ``limit``, each once."""
    kept: list[int] = []
    previous = -1
    for position in positions:
        if previous < position < limit:
            kept.append(position)
            previous = position
    return kept


def _moved_spans(spans: Sequence[Span], edits: Sequence[Edit]) -> list[Span]:
    starts = [start for start, _, _ in edits]
    shifts = [0]
    for start, end, replacement in edits:
        shifts.append(shifts[-1] + len(replacement) - (end - start))

    def move(position: int, *, opens: bool) -> int:
        # The last edit that begins before the position; for an opening one also an insertion right at it.
        index = bisect_left(starts, position) - 1
        while opens and index + 1 < len(edits) and edits[index + 1][:2] == (position, position):
            index += 1
        if index < 0 or edits[index][1] <= position:
            return position + shifts[index + 1]
        start, end, _ = edits[index]
        return start + shifts[index] if opens else end + shifts[index + 1]

    return [(move(start, opens=True), move(end, opens=False), label) for start, end, label in spans]


def check_spans(spans: list[Span]) -> list[Span]:
    """Return spans that are neither empty nor overlapping.

    Raises:
        Unfit: ``lost_span``: one is.

    """
    for start, end, label in spans:
        if start >= end:
            raise Unfit("lost_span", f"nothing is left of a span labelled {label}")
    for (_, end, _), (start, _, _) in pairwise(spans):
        if start < end:
            raise Unfit("lost_span", f"two spans overlap at {start} after an edit")
    return spans


def convert_between_anchors(draft: Draft, convert: Callable[[str], str]) -> None:
    """Convert the text piece by piece, cut wherever a span, a word or a sentence begins or ends.

    Raises:
        Unfit: ``lost_span``.

    """
    cuts = {0, len(draft.text), *(draft.word_starts or ()), *draft.breaks}
    for start, end, _ in draft.spans:
        cuts |= {start, end}
    edits = []
    for start, end in pairwise(sorted(cuts)):
        piece = draft.text[start:end]
        converted = convert(piece)
        if converted != piece:
            edits.append((start, end, converted))
    apply(draft, edits)
