"""From a value with named fields to a row, by what params.yaml says of the fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bert_ops.corpus.field_paths import getter
from bert_ops.corpus.records import MISSING, Rejection, Row
from bert_ops.corpus.sources.reading import Reading, Stop
from bert_ops.errors import InputError

#: What a source says of its fields, in the order of Row.
ROLES = ("text", "label", "spans", "words", "group")


def named_fields(reading: Reading) -> dict[str, str]:
    """Role to field or column, of those that the source names."""
    source: Any = reading.source
    return {role: getattr(source, role) for role in ROLES if getattr(source, role) is not None}


def row_maker(reading: Reading) -> Callable[[str, Any], Row]:
    """Return a function of (location, nested value) that builds the row; checks the first one.

    Raises (the function):
        InputError: the first row of the source lacks a field; a later one may.

    """
    source: Any = reading.source
    get_text, get_label, get_spans, get_words, get_group = (getter(getattr(source, role)) for role in ROLES)

    def make(location: str, value: Any) -> Row:
        row = Row(location, get_text(value), get_label(value), get_spans(value), get_words(value), get_group(value))
        if not reading.proven:
            _prove(reading, row, value)
        return row

    return make


def _prove(reading: Reading, row: Row, value: Any) -> None:
    absent = [path for role, path in named_fields(reading).items() if getattr(row, role) is MISSING]
    if absent:
        raise InputError(
            f"{row.location} has no field {', '.join(absent)}",
            allowed=f"it has {', '.join(map(str, value)) or 'no field at all'}",
            remedy="name the fields of the file in the source's text, label, spans, words and group",
        )
    reading.proven = True


def too_long(reading: Reading, row: Row) -> Rejection | None:
    """Refuse a row of a table whose text is longer than allowed; characters stand for bytes here."""
    if not isinstance(row.text, str | bytes) or len(row.text) <= reading.max_bytes:
        return None
    return reading.reject(
        row.location,
        "row_too_long",
        f"{len(row.text):,} characters; ingest.reading.max_row_mebibytes allows {reading.max_bytes:,}",
        row.text,
    )


def find_columns(reading: Reading, columns: list[str], *, where: str, more: Iterable[str] = ()) -> list[int | None]:
    """Places of the fields among the columns, in the order of ROLES and then ``more``; None where none is named.

    Raises:
        InputError: the first file (or the query) has no such column.
        Stop: a later file has other columns than the first.

    """
    names = [getattr(reading.source, role) for role in ROLES] + list(more)
    absent = [name for name in names if name is not None and name not in columns]
    if absent and reading.proven:
        raise Stop("wrong_columns", f"it has no column {', '.join(absent)}; it has {', '.join(columns) or 'none'}")
    if absent:
        raise InputError(
            f"{where} has no column {', '.join(absent)}",
            allowed=f"it has {', '.join(columns) or 'none'}",
            remedy="name columns that are there in the source's text, label, spans, words and group",
        )
    twice = sorted({name for name in names if name is not None and columns.count(name) > 1})
    if twice:
        raise InputError(
            f"{where} has the column {', '.join(twice)} twice", remedy="give each column a name of its own"
        )
    reading.proven = True
    return [None if name is None else columns.index(name) for name in names]
