"""What a row says its task should answer, checked and written as text: a label, a list of labels, or a number."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bert_ops.corpus.fields import Fields, Unlabelled
from bert_ops.corpus.records import Unfit

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def as_label(value: Any) -> str:
    """A label as a string; whole numbers and truth values are written as JSON writes them.

    Raises:
        Unfit: null_label, bad_label.

    """
    if value is None:
        raise Unfit("null_label", "the label is null")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise Unfit("bad_label", f"the label is {type(value).__name__}")
    if has_surrogate(value):
        raise Unfit("bad_label", "the label holds half of a surrogate pair")
    stripped = value.strip()
    if not stripped:
        raise Unfit("null_label", "the label is empty")
    return stripped


def as_labels(value: Any, *, separator: str | None = None) -> str:
    """A list of labels as JSON, sorted and without repeats; an empty list says that none applies.

    Args:
        value: a list, JSON text of one, or with a separator text that it divides.
        separator: what divides the labels of a text; empty pieces are no labels.

    Raises:
        Unfit: null_label for null, bad_labels for anything else that is no list of labels.

    """
    if value is None:
        raise Unfit("null_label", "the labels are null; an empty list says that none applies")
    if isinstance(value, str):
        value = _listed(value) if separator is None else [piece for piece in value.split(separator) if piece.strip()]
    if not isinstance(value, list):
        raise Unfit("bad_labels", f"the labels are {type(value).__name__}, not a list")
    try:
        labels = {as_label(item) for item in value}
    except Unfit as unfit:
        raise Unfit("bad_labels", f"one of the labels: {unfit.detail}") from unfit
    return json.dumps(sorted(labels), ensure_ascii=False)


def _listed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unfit(
            "bad_labels",
            f"{text[:40]!r} is not a JSON list; where a sign divides the labels, name it in label_separator",
        ) from error


def as_value(value: Any) -> str:
    """A finite number as Python writes a float (the shortest text that gives it back); -0.0 becomes 0.0.

    Raises:
        Unfit: null_label for null and empty text, bad_value for anything else that is no finite number.

    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Unfit("null_label", f"the number is {'null' if value is None else 'empty'}")
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            more = "; write a decimal point, not a comma" if _DECIMAL_COMMA.fullmatch(text) else ""
            raise Unfit("bad_value", f"{text[:40]!r} is not a number{more}")
        value = text
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Unfit("bad_value", f"the number is {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Unfit("bad_value", f"{str(value)[:40]} is not a finite number")
    return repr(number + 0.0)


def has_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no file can."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def reader(source: Fields | Unlabelled) -> Callable[[Any], str | None]:
    """What reads the answer for the whole text of a row of a source; None where the task has spans or there is none."""
    if source.target == "label":
        return as_label
    if source.target == "labels":
        return lambda value: as_labels(value, separator=source.label_separator)
    return as_value if source.target == "value" else lambda _: None
