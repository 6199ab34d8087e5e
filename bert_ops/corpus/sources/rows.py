"""From a value with named fields to a row, by what params.yaml says of the fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from bert_ops.corpus.field_paths import getter
from bert_ops.corpus.fields import ROLES, field_of, named_fields
from bert_ops.corpus.records import MISSING, Rejection, Row
from bert_ops.corpus.sources.reading import Reading, Stop
from bert_ops.errors import InputError

#: What to do about a field that is not there.
NAME_FIELDS = (
    "name columns that are there in the source's text, pair, label, labels, value, spans, words and group; of a table, "
    "the first line holds their names"
)


def row_maker(reading: Reading) -> Callable[[str, Any], Row]:
    """Return a function of (location, nested value) that builds the row; checks the first one.

    Raises (the function):
        InputError: the first row of the source lacks a field; a later one may.

    """
    getters = [getter(field_of(reading.source, role)) for role in ROLES]

    def make(location: str, value: Any) -> Row:
        row = Row(location, *[get(value) for get in getters])
        if not reading.proven:
            _prove(reading, row, value)
        return row

    return make


def _prove(reading: Reading, row: Row, value: Any) -> None:
    absent = [path for role, path in named_fields(reading.source).items() if getattr(row, role) is MISSING]
    if absent:
        raise InputError(
            f"{row.location} has no field {', '.join(absent)}",
            allowed=f"it has {', '.join(map(str, value)) or 'no field at all'}",
            remedy=NAME_FIELDS,
        )
    reading.proven = True


def _alike(absent: list[str], columns: list[str]) -> str | None:
    """Ask whether another column was meant, where the names of some are alike."""
    by_name = {column.casefold(): column for column in columns}
    meant = {
        name: by_name[close[0]]
        for name in absent
        if (close := get_close_matches(name.casefold().strip(), by_name, n=1, cutoff=0.75))
    }
    if not meant:
        return None
    return "; ".join(f"did you mean {column!r} for {name!r}" for name, column in meant.items()) + "?"


def too_long(reading: Reading, row: Row) -> Rejection | None:
    """Refuse a row of a table whose texts are longer than allowed; characters stand for bytes here."""
    length = sum(len(text) for text in (row.text, row.pair) if isinstance(text, str | bytes))
    if length <= reading.max_bytes:
        return None
    return reading.reject(
        row.location,
        "row_too_long",
        f"{length:,} characters; ingest.reading.max_row_mebibytes allows {reading.max_bytes:,}",
        row.text,
    )


def find_columns(
    reading: Reading, columns: list[str], *, where: str, more: Iterable[str] = (), hint: str | None = None
) -> list[int | None]:
    """Places of the fields among the columns, in the order of ROLES and then ``more``; None where none is named.

    ``hint`` says what to do about a column that is missing, where that is known.

    Raises:
        InputError: the first file (or the query) has no such column.
        Stop: a later file has other columns than the first.

    """
    names = [field_of(reading.source, role) for role in ROLES] + list(more)
    absent = [name for name in names if name is not None and name not in columns]
    if absent and reading.proven:
        raise Stop("wrong_columns", f"it has no column {', '.join(absent)}; it has {', '.join(columns) or 'none'}")
    if absent:
        raise InputError(
            f"{where} has no column {', '.join(absent)}",
            allowed=f"it has {', '.join(columns) or 'none'}",
            remedy=hint or _alike(absent, columns) or NAME_FIELDS,
        )
    twice = sorted({name for name in names if name is not None and columns.count(name) > 1})
    if twice:
        raise InputError(
            f"{where} has the column {', '.join(twice)} twice", remedy="give each column a name of its own"
        )
    reading.proven = True
    return [None if name is None else columns.index(name) for name in names]
