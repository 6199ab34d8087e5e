"""From a row of a source to a draft that can be used; what cannot is refused with a reason.

Reasons are a fixed list, so that they can be counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bert_ops.corpus.answers import has_surrogate, reader
from bert_ops.corpus.cleaning.cleaner import Cleaner
from bert_ops.corpus.fields import ROLES
from bert_ops.corpus.keys import key
from bert_ops.corpus.records import MISSING, Draft, Row, Span, Unfit
from bert_ops.corpus.source_params import Source

#: Why a row was refused here, and what that means, in the words of the report.
REASONS = {
    "missing_field": "a field that the first row has is absent",
    "not_text": "the text, or the second text of a pair, is null or not a string",
    "no_letters": "the text has neither letter nor digit",
    "null_label": "the label is null or empty",
    "bad_label": "the label is neither a string nor a whole number nor a truth value",
    "bad_labels": "the labels are neither a list of labels nor a text that holds one",
    "bad_value": "the value is not a finite number",
    "bad_spans": "the spans are not a list of [start, end, label] within the text, or overlap",
    "bad_words": "the words are not a list of strings that make up the text",
    "bad_group": "the group is neither a string nor a whole number",
    "label_conflict": "an equal text has another label",
}


#: Steps before and after the cleaning, as the counts name them.
FIELDS_STEP, SPANS_STEP = "fields", "spans"


@dataclass(frozen=True, slots=True)
class Examined:
    """A row that can be used.

    Attributes:
        draft: the cleaned text, with what follows its characters.
        pair: the cleaned second text, or None.
        label: answer for the whole text: a label, a list of labels as JSON, or a number.
        spans: the spans as JSON.
        target: what must be equal for two rows not to contradict each other: the label, or the spans by their place in
            the key of the text.
        group: rows of equal group of one source stay together.

    """

    draft: Draft
    pair: Draft | None
    label: str | None
    spans: str | None
    target: Any
    group: str | None


def examine(row: Row, *, source: Source, cleaner: Cleaner) -> Examined:
    """Check the fields of a row and clean its text, and the second text of a pair by the same steps.

    Raises:
        Unfit: the row cannot be used; the first reason that applies.

    """
    if MISSING in (row.text, row.pair, row.label, row.spans, row.words, row.group):
        absent = [name for name in ROLES if getattr(row, name) is MISSING]
        raise Unfit("missing_field", f"no field for {', '.join(absent)}")
    if not isinstance(row.text, str):
        raise Unfit("not_text", f"the text is {type(row.text).__name__}")
    draft, pair = Draft(row.text), None
    if source.pair is not None:
        if not isinstance(row.pair, str):
            raise Unfit("not_text", f"the second text is {type(row.pair).__name__}")
        pair = Draft(row.pair)
    if source.spans is not None:
        draft.spans = _spans(row.spans, row.text)
    if source.words is not None and row.words is not None:
        draft.word_starts = _word_starts(row.words, row.text)
    label = reader(source)(row.label)
    group = None if source.group is None else _group(row.group)
    cleaner.clean(draft, pair)
    if source.spans is not None:
        _check_after_cleaning(draft.spans)
    return Examined(
        draft=draft,
        pair=pair,
        label=label,
        spans=None if source.spans is None else json.dumps(draft.spans, ensure_ascii=False),
        target=label if source.spans is None else _places(draft),
        group=group,
    )


def _places(draft: Draft) -> list[tuple[int, int, str]]:
    """Spans by their place in the key, so that punctuation between them does not make two texts differ."""
    places, end_in_text, end_in_key = [], 0, 0
    for start, end, label in draft.spans:
        first = end_in_key + len(key(draft.text[end_in_text:start]))
        end_in_text, end_in_key = end, first + len(key(draft.text[start:end]))
        places.append((first, end_in_key, label))
    return places


def _group(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unfit("bad_group", f"the group is {type(value).__name__}")
    return str(value)


def _list(value: Any, *, reason: str, what: str) -> list[Any]:
    """A list, or JSON text of one: a table column holds lists as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Unfit(reason, f"not JSON: {error}") from error
    if not isinstance(value, list):
        raise Unfit(reason, f"the {what} are {'null' if value is None else type(value).__name__}, not a list")
    return value


def _word_starts(value: Any, text: str) -> list[int]:
    """Where each of the given words begins; between two of them only white space may stand."""
    starts, place = [], 0
    for word in _list(value, reason="bad_words", what="words"):
        if not isinstance(word, str):
            raise Unfit("bad_words", f"a word is {type(word).__name__}")
        if not word.strip():
            continue
        while place < len(text) and text[place].isspace():
            place += 1
        word = word.strip()  # noqa: PLW2901 - white space around a word is not part of it
        if not text.startswith(word, place):
            raise Unfit("bad_words", f"the word {word[:40]!r} does not stand at {place} of the text")
        starts.append(place)
        place += len(word)
    if text[place:].strip():
        raise Unfit("bad_words", f"the words end at {place}, the text goes on")
    return starts


def _spans(value: Any, text: str) -> list[Span]:
    """Check spans against the text as it stands in the source; sorted by place."""
    spans = [_span(item, len(text)) for item in _list(value, reason="bad_spans", what="spans")]
    return _without_overlap(sorted(spans))


def _span(item: Any, length: int) -> Span:
    if not isinstance(item, list) or len(item) != 3:
        raise Unfit("bad_spans", f"{json.dumps(item, ensure_ascii=True)[:80]} is not [start, end, label]")
    start, end, label = item
    if any(isinstance(place, bool) or not isinstance(place, int) for place in (start, end)):
        raise Unfit("bad_spans", f"{json.dumps(item, ensure_ascii=True)[:80]}: start and end are not whole numbers")
    if not 0 <= start < end <= length:
        raise Unfit("bad_spans", f"[{start}, {end}) is empty or not within the {length} characters of the text")
    if not isinstance(label, str) or not label.strip() or has_surrogate(label):
        raise Unfit("bad_spans", f"[{start}, {end}) has no label")
    return start, end, label.strip()


def _without_overlap(spans: list[Span]) -> list[Span]:
    for (_, end, _), (start, _, _) in pairwise(spans):
        if start < end:
            raise Unfit("bad_spans", f"two spans overlap at {start}")
    return spans


def _check_after_cleaning(spans: list[Span]) -> None:
    try:
        for start, end, label in spans:
            if start >= end:
                raise Unfit("bad_spans", f"nothing is left of a span labelled {label} after cleaning")
        _without_overlap(spans)
    except Unfit as unfit:
        unfit.step = SPANS_STEP
        raise
