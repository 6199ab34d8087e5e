"""Copying the result of a query, streamed, by an engine that can only read; no error shows a password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from bert_ops.corpus.source_params import SqlSource
from bert_ops.corpus.sources.files import contained
from bert_ops.corpus.sources.sql import ROWS, sql_expectation
from bert_ops.corpus.sources.sqlite import connect_read_only, only_queries
from bert_ops.corpus.sources.values import RowsHash, as_json
from bert_ops.errors import BertOpsError, InputError
from bert_ops.io import file_sha256

#: Rows that are drawn from the server, and characters that are held, before they are written.
_DRAWN_ROWS = 1000
_HELD_CHARACTERS = 4 << 20

#: Seconds after which a server that does not answer is given up; a URL may say otherwise.
_CONNECT_SECONDS = 20

_READS = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|values|table)\b", re.IGNORECASE | re.DOTALL)


def copy_rows(name: str, source: SqlSource, *, out: Path, inputs: Sequence[Path]) -> dict[str, Any]:
    """Write the rows of a source to ``out``; returns what snapshot.json says of them.

    Raises:
        InputError: the server, the query or a column is not there; the message holds no password.

    """
    where = f"ingest.sources.{name}"
    url = _url(source, where=where)
    if source.query is not None:
        require_select(source.query, where=where)
    # What a driver says may hold the URL. It is raised anew outside of the `except`, so that no traceback leads to it.
    problem: str | None = None
    try:
        engine = _engine(url, where=where, inputs=inputs)
        try:
            return _copy(source, engine, out=out, where=where, shown=_shown(url))
        finally:
            engine.dispose()
    except BertOpsError:
        raise
    except (SQLAlchemyError, ImportError, ValueError) as error:
        problem = hide_secrets(_what(error), url)
    raise InputError(
        f"{where}: {_shown(url)} cannot be queried: {problem}",
        allowed="a server that can be reached, and one SELECT, with every :name given in the source's parameters",
        remedy=f"check the server, the {'URL in ' + source.url_from if source.url_from else 'url'} and the "
        f"{'query' if source.query else 'table'}: {source.query or source.table!r}",
    )


def _url(source: SqlSource, *, where: str) -> sa.URL:
    """Where the database is.

    Raises:
        InputError: the environment variable is not set, or what it holds is no URL; its value is not shown.

    """
    text = source.url
    if source.url_from is not None:
        text = os.environ.get(source.url_from)
        if not text:
            raise InputError(
                f"{where}.url_from is {source.url_from}, an environment variable that is not set",
                remedy=f"set {source.url_from} to a SQLAlchemy URL, such as postgresql+psycopg2://user@host/database",
            )
    assert text is not None
    try:
        return sa.make_url(text)
    except (ArgumentError, ValueError):
        pass
    raise InputError(
        f"{where}: {f'the value of {source.url_from}' if source.url_from else repr(text)} is no SQLAlchemy URL",
        allowed="dialect+driver://user@host:port/database, with special characters of a password percent-encoded",
        remedy="correct it",
    )


def _engine(url: sa.URL, *, where: str, inputs: Sequence[Path]) -> sa.Engine:
    """An engine whose connections can only read, as far as the database lets a client say so."""
    kind = url.get_backend_name()
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise InputError(f"{where}.url names no SQLite file", allowed="sqlite:///path/to/file", remedy="name it")
        path = contained(Path(url.database), what=f"`{where}.url`", inputs=inputs)
        if not path.is_file():
            raise InputError(f"{where}.url: {path} is no SQLite file", remedy="name the file itself")
        return sa.create_engine("sqlite://", creator=lambda: connect_read_only(path), poolclass=sa.NullPool)
    options: dict[str, Any] = {}
    if kind == "postgresql":
        options["execution_options"] = {"postgresql_readonly": True}
        if "connect_timeout" not in url.query and url.get_driver_name() in ("psycopg2", "psycopg"):
            options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
    return sa.create_engine(url, poolclass=sa.NullPool, **options)


def require_select(query: str, *, where: str) -> None:
    """Check that a query is one statement that reads; what it may do beyond that, the database refuses.

    Raises:
        InputError: it is another statement, or holds a semicolon other than at its end.

    """
    if not _READS.match(query):
        raise InputError(f"{where}.query does not read: {query!r}", allowed="one SELECT", remedy="correct the query")
    if ";" in query.rstrip().removesuffix(";"):
        raise InputError(
            f"{where}.query holds a semicolon, as if it were several statements: {query!r}",
            allowed="one SELECT",
            remedy="remove it; give text that holds one as a parameter",
        )


def _copy(source: SqlSource, engine: sa.Engine, *, out: Path, where: str, shown: str) -> dict[str, Any]:
    expected = sql_expectation(source)
    fields: dict[str, str] = expected["fields"]
    with engine.connect() as connection:
        statement = (
            _whole_table(source, connection, where=where, wanted=fields)
            if source.query is None
            else sa.text(source.query)
        )
        if engine.dialect.name == "sqlite":
            only_queries(connection.connection.dbapi_connection)  # type: ignore[arg-type]
        result = connection.execution_options(stream_results=True, yield_per=_DRAWN_ROWS).execute(
            statement, source.parameters or {}
        )
        columns = list(result.keys()) if result.returns_rows else []
        _require_columns(columns, fields, what=f"{where}: the query returns")
        places = [columns.index(column) for column in fields.values()]
        digest = RowsHash()
        schema = pa.schema([(role, pa.string()) for role in fields])
        with pq.ParquetWriter(out / ROWS, schema, compression="zstd") as writer:
            for held in _batches(result, places, digest):
                writer.write_table(
                    pa.Table.from_arrays([pa.array(values, pa.string()) for values in held], schema=schema)
                )
        connection.rollback()
    return expected | {
        "url": shown,
        "statement": source.query or str(statement),
        "columns": columns,
        "rows": digest.rows,
        "content_hash": digest.hexdigest(),
        "sha256": file_sha256(out / ROWS),
    }


def _batches(result: sa.CursorResult[Any], places: list[int], digest: RowsHash) -> Iterator[list[list[str]]]:
    """Columns of JSON text, a bounded number of rows at a time."""
    held: list[list[str]] = [[] for _ in places]
    size = 0
    for row in result:
        values = [row[place] for place in places]
        digest.add(values)
        for column, value in zip(held, values, strict=True):
            column.append(as_json(value))
            size += len(column[-1])
        if size > _HELD_CHARACTERS:
            yield held
            held, size = [[] for _ in places], 0
    if held[0]:
        yield held


def _whole_table(
    source: SqlSource, connection: sa.Connection, *, where: str, wanted: dict[str, str]
) -> sa.Select[tuple[Any, ...]]:
    assert source.table is not None
    schema, _, table = source.table.rpartition(".")
    inspector = sa.inspect(connection)
    if not inspector.has_table(table, schema=schema or None):
        known = sorted(inspector.get_table_names(schema=schema or None))
        raise InputError(
            f"{where}.table is {source.table!r}, and there is no such table",
            allowed=", ".join(islice(known, 20)) or "none: there are no tables",
            remedy="correct the table, or write schema.table",
        )
    _require_columns(
        [column["name"] for column in inspector.get_columns(table, schema=schema or None)],
        wanted,
        what=f"{where}: the table has",
    )
    keys = inspector.get_pk_constraint(table, schema=schema or None).get("constrained_columns") or []
    if not keys:
        raise InputError(
            f"{where}.table is {source.table!r}, which has no primary key, so its rows have no order",
            remedy="give a query with an ORDER BY instead",
        )
    columns: list[sa.ColumnClause[Any]] = [sa.column(column) for column in dict.fromkeys(wanted.values())]
    chosen = sa.select(*columns).select_from(sa.table(table, schema=schema or None))
    return chosen.order_by(*(sa.column(key) for key in keys))


def _require_columns(columns: list[str], wanted: dict[str, str], *, what: str) -> None:
    absent = sorted({column for column in wanted.values() if column not in columns})
    if absent:
        raise InputError(
            f"{what} no column {', '.join(absent)}",
            allowed=f"{', '.join(columns) or 'nothing is returned'}",
            remedy="select the column, or name another one in the source",
        )


def _what(error: Exception) -> str:
    """What a driver says, without the statement and the values bound to it."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return " ".join(str(error.orig).split())
    if isinstance(error, ImportError):
        return f"{error}; install the driver"
    return " ".join(str(error).split("\n[")[0].split())


def hide_secrets(text: str, url: sa.URL) -> str:
    """Replace what only the owner of a URL should know, as it stands and percent-encoded."""
    secrets = [str(url.password)] if url.password else []
    secrets += [
        value
        for key, values in url.query.items()
        if re.search("pass|secret|token|key", key, re.IGNORECASE)
        for value in ([values] if isinstance(values, str) else values)
    ]
    for secret in secrets:
        for form in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}:
            text = text.replace(form, "***")
    return text


def _shown(url: sa.URL) -> str:
    """A URL without its password and without what follows the question mark."""
    return sa.URL.create(url.drivername, url.username, None, url.host, url.port, url.database).render_as_string()
