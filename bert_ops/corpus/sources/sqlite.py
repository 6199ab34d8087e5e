"""SQLite: the rows of a query on a file, which can do nothing but read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import SqliteSource
from bert_ops.corpus.sources.files import contained
from bert_ops.corpus.sources.reading import FileFacts, QueryFacts, Reading
from bert_ops.corpus.sources.rows import find_columns, too_long
from bert_ops.corpus.sources.values import BadText, RowsHash
from bert_ops.errors import InputError

#: Operations that a query may perform; everything else (ATTACH, PRAGMA, INSERT) is refused by SQLite itself.
_ALLOWED_ACTIONS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION,
}


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a database that cannot be written to; a value that is not UTF-8 comes as BadText."""
    connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
    connection.text_factory = BadText.or_text
    return connection


def only_queries(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let a connection do nothing but SELECT from now on: mode=ro alone would let a query attach another file."""
    connection.set_authorizer(_only_reads)
    return connection


def read_sqlite(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the rows of a query in its order.

    Raises:
        InputError: the database or the query cannot be used.

    """
    source = reading.source
    assert isinstance(source, SqliteSource)
    path = contained(Path(source.path), what=f"`ingest.sources.{reading.name}.path`", inputs=reading.inputs)
    if not path.is_file():
        raise InputError(
            f"{path} is {'a folder' if path.is_dir() else 'no file'}",
            allowed="a file",
            remedy="name the file itself in the source's path",
        )
    reading.report.files.append(facts := FileFacts(path.as_posix(), bytes=path.stat().st_size))
    digest = RowsHash()
    try:
        with closing(only_queries(connect_read_only(path))) as connection:
            cursor = connection.execute(source.query, source.parameters or {})
            columns = [column[0] for column in cursor.description or ()]
            places = find_columns(reading, columns, where=f"the query on {path}", more=[source.id or source.text])
            for number, values in enumerate(cursor, start=1):
                digest.add(values)
                item = _row(reading, path, number, values, places)
                facts.rows, facts.rejected = facts.rows + isinstance(item, Row), number - facts.rows
                yield item
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError) as error:  # names in a damaged file need not be UTF-8
        raise InputError(
            f"{path} cannot be queried: {error}",
            allowed="a SQLite 3 database and one SELECT, with every :name given in the source's parameters",
            remedy=f"correct the source's path, query or parameters; the query is {source.query!r}",
        ) from error
    reading.report.query = QueryFacts(source.query, digest.rows, digest.hexdigest())


def _row(
    reading: Reading, path: Path, number: int, values: tuple[Any, ...], places: list[int | None]
) -> Row | Rejection:
    source = reading.source
    assert isinstance(source, SqliteSource)
    *fields, name = [None if place is None else values[place] for place in places]
    location = f"{path.as_posix()} {f'row {number}' if source.id is None else f'{source.id} {name}'}"
    for value in fields:
        if isinstance(value, BadText):
            detail = f"row {number} of the query, is not UTF-8: {value.what}"
            return reading.reject(location, "bad_bytes", detail)
    row = Row(location, *fields)
    return too_long(reading, row) or row


def _only_reads(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY
