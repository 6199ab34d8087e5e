"""Labelled spans of characters, as people give them: ``(start, end, label)``, the end excluded.

Entities, words and parts of speech are all spans; for words and parts of speech they cover the text.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bert_ops.errors import InputError


class Span(NamedTuple):
    """Characters ``start`` to ``end`` (excluded) of a text, and what they are."""

    start: int
    end: int
    label: str


def check_labels(labels: Sequence[str], *, where: str | None = None) -> None:
    """Refuse labels that tags cannot name; ``where`` names their place in the message.

    Raises:
        InputError: there is none, one is empty or stands twice, or holds a hyphen (it separates prefix and label).

    """
    if not labels:
        raise InputError("no label of spans", allowed="at least one", remedy="give examples with spans")
    for label in labels:
        if not isinstance(label, str) or not label.strip() or "-" in label:
            raise InputError(
                f"{f'{where}: ' if where else ''}the label {label!r} cannot be part of a tag",
                allowed="a name that is not empty and has no hyphen, which separates B and I from it",
                remedy="rename it in the source, PER_NAME or PER.NAME for PER-NAME",
            )
    repeated = sorted({label for label in labels if list(labels).count(label) > 1})
    if repeated:
        raise InputError(f"labels stand more than once: {', '.join(map(repr, repeated))}", allowed="each once")


def read_spans(content: str, *, text: str | None = None, where: str) -> list[Span]:
    """Read spans from JSON, ``[[start, end, label], …]``.

    Args:
        content: the JSON text.
        text: that they belong to, if their places are to be checked against its length.
        where: names the example in messages.

    Raises:
        InputError: it is no such list, or :func:`check_spans` refuses it.

    """
    try:
        found = json.loads(content)
        spans = [Span(*item) for item in found]
    except (ValueError, TypeError):
        raise InputError(f"{where}: no list of spans: {content[:80]!r}", allowed="[[start, end, label], …]") from None
    return check_spans(spans, length=None if text is None else len(text), where=where)


def check_spans(spans: Iterable[tuple[int, int, str]], *, length: int | None, where: str) -> list[Span]:
    """Return spans in the order of the text.

    Raises:
        InputError: one is empty or reaches outside of the text, two overlap, or a label cannot be part of a tag.

    """
    found = [Span(*span) for span in spans]
    for span in found:
        if any(isinstance(place, bool) or not isinstance(place, int | np.integer) for place in span[:2]):
            raise InputError(f"{where}: the span {list(span)} has places that are no whole numbers")
        if not 0 <= span.start < span.end or (length is not None and span.end > length):
            until = "" if length is None else f"; the text has {length} characters"
            raise InputError(
                f"{where}: the span {list(span)} is empty or outside of the text{until}",
                allowed="0 <= start < end <= characters of the text, the end excluded",
                remedy="count characters (not bytes, not tokens), from 0",
            )
        check_labels([span.label], where=where)
    found.sort(key=lambda span: span[:2])
    for before, after in itertools.pairwise(found):
        if after.start < before.end:
            raise InputError(
                f"{where}: the spans {list(before)} and {list(after)} overlap",
                allowed="spans side by side, none within another",
                remedy="keep one of them, or make two tasks of them",
            )
    return found
