"""From a row of a source to a record that can be used, or to a rejection that says why not.

Nothing disappears here: each row becomes one of the two, and a rejection carries the place, the reason and the start of
the text. Reasons are a fixed list, so that they can be counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bert_ops.corpus import dedup
from bert_ops.corpus.clean import Cleaned, Span, clean, clean_with_spans, has_lone_surrogate
from bert_ops.corpus.dedup import Record
from bert_ops.corpus.params import IngestParams, Source
from bert_ops.corpus.sources import MISSING, Row

_EXCERPT_CHARACTERS = 200

#: Why a row was rejected, and what that means, in the words of the report.
REASONS = {
    "missing_field": "a field that the first row has is absent",
    "not_text": "the text is null or not a string",
    "invalid_text": "the text holds half of a surrogate pair",
    "empty": "nothing is left of the text after cleaning",
    "no_letters": "the text has neither letter nor digit",
    "too_short": "fewer characters than ingest.min_characters",
    "too_long": "more characters than ingest.max_characters",
    "null_label": "the label is null or empty",
    "bad_label": "the label is neither a string nor a whole number nor a truth value",
    "bad_spans": "the spans are not a list of [start, end, label] within the text, or overlap",
    "label_conflict": "an equal text has another label",
}


@dataclass(frozen=True)
class Rejection:
    """A row that is not used: a line of the quarantine file."""

    source: str
    location: str
    reason: str
    detail: str
    excerpt: str


class _Unfit(Exception):
    """Internal: a row fails a check."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def examine(row: Row, *, name: str, source: Source, params: IngestParams) -> Record | Rejection:
    """Clean a row and check it.

    Returns:
        A record, or why there is none; the first reason in the order of ``REASONS`` that applies.

    """
    try:
        return _record(row, name=name, source=source, params=params)
    except _Unfit as unfit:
        return reject(name, row.location, unfit.reason, unfit.detail, row.text)


def reject(source: str, location: str, reason: str, detail: str, text: object) -> Rejection:
    """Build a rejection; its excerpt is the start of the text, made fit for UTF-8."""
    assert reason in REASONS, reason
    shown = "" if text is None or text is MISSING else str(text)[:_EXCERPT_CHARACTERS]
    return Rejection(source, location, reason, detail, shown.encode("utf-8", "replace").decode("utf-8"))


def _record(row: Row, *, name: str, source: Source, params: IngestParams) -> Record:
    fields = {"text": row.text, "label": row.label, "spans": row.spans}
    absent = [field for field, value in fields.items() if value is MISSING]
    if absent:
        raise _Unfit("missing_field", f"no field for {', '.join(absent)}")
    if not isinstance(row.text, str):
        raise _Unfit("not_text", f"the text is {type(row.text).__name__}")
    if has_lone_surrogate(row.text):
        raise _Unfit("invalid_text", "an unpaired \\ud800..\\udfff escape")
    spans: tuple[Span, ...] | None = None
    if source.spans is not None:
        raw_spans = _spans(row.spans, row.text)
        cleaned, moved = clean_with_spans(row.text, raw_spans, form=params.normalization)
        spans = tuple(_checked_after_cleaning(moved))
    else:
        cleaned = clean(row.text, form=params.normalization)
    key = _check_content(cleaned, params)
    return Record(
        source=name,
        location=row.location,
        text=cleaned.text,
        breaks=cleaned.breaks,
        key=key,
        task=source.task,
        label=None if source.label is None else _label(row.label),
        spans=spans,
    )


def _check_content(cleaned: Cleaned, params: IngestParams) -> str:
    """Check a cleaned text; returns its key."""
    text = cleaned.text
    if not text:
        raise _Unfit("empty", "only white space or invisible characters")
    key = dedup.key(text)
    if not key:
        raise _Unfit("no_letters", "only punctuation or symbols")
    solid = len(text) - text.count(" ")
    if solid < params.min_characters:
        raise _Unfit("too_short", f"{solid} of at least {params.min_characters} characters")
    if len(text) > params.max_characters:
        raise _Unfit("too_long", f"{len(text)} of at most {params.max_characters} characters")
    return key


def _label(value: Any) -> str:
    """A label as a string; whole numbers and truth values are written as JSON writes them."""
    if value is None:
        raise _Unfit("null_label", "the label is null")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise _Unfit("bad_label", f"the label is {type(value).__name__}")
    if has_lone_surrogate(value):
        raise _Unfit("bad_label", "the label holds half of a surrogate pair")
    stripped = value.strip()
    if not stripped:
        raise _Unfit("null_label", "the label is empty")
    return stripped


def _spans(value: Any, text: str) -> list[Span]:
    """Check spans against the text as it stands in the source; sorted by place.

    A SQLite column holds them as JSON text, a JSON Lines field as a list.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _Unfit("bad_spans", f"not JSON: {error}") from error
    if not isinstance(value, list):
        raise _Unfit("bad_spans", f"the spans are {'null' if value is None else type(value).__name__}, not a list")
    spans = [_span(item, len(text)) for item in value]
    return _without_overlap(sorted(spans))


def _span(item: Any, length: int) -> Span:
    if not isinstance(item, list) or len(item) != 3:
        raise _Unfit("bad_spans", f"{json.dumps(item, ensure_ascii=True)[:80]} is not [start, end, label]")
    start, end, label = item
    if any(isinstance(place, bool) or not isinstance(place, int) for place in (start, end)):
        raise _Unfit("bad_spans", f"{json.dumps(item, ensure_ascii=True)[:80]}: start and end are not whole numbers")
    if not 0 <= start < end <= length:
        raise _Unfit("bad_spans", f"[{start}, {end}) is empty or not within the {length} characters of the text")
    if not isinstance(label, str) or not label.strip() or has_lone_surrogate(label):
        raise _Unfit("bad_spans", f"[{start}, {end}) has no label")
    return start, end, label.strip()


def _without_overlap(spans: list[Span]) -> list[Span]:
    for (_, end, _), (start, _, _) in pairwise(spans):
        if start < end:
            raise _Unfit("bad_spans", f"two spans overlap at {start}")
    return spans


def _checked_after_cleaning(spans: list[Span]) -> list[Span]:
    for start, end, label in spans:
        if start >= end:
            raise _Unfit("bad_spans", f"nothing is left of a span labelled {label} after cleaning")
    return _without_overlap(spans)
