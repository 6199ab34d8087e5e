"""Watches a database table for new rows: highest value of a column that only grows, and the number of rows."""

from __future__ import annotations

import datetime
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .errors import SourceError
from .settings import NewRows
from .triggers import Decision, Memory
from .workspace import digest

_CONNECT_S = 5
#: A look must end well before the 60 s after which Dagster gives a tick up.
_STATEMENT_S = 30
_CONNECT = {
    "postgresql": {"connect_timeout": _CONNECT_S, "options": f"-c statement_timeout={_STATEMENT_S * 1000}"},
    "mysql": {"connect_timeout": _CONNECT_S, "read_timeout": _STATEMENT_S},
    "mariadb": {"connect_timeout": _CONNECT_S, "read_timeout": _STATEMENT_S},
    "sqlite": {"timeout": _CONNECT_S},
}
#: Kinds of marks that JSON does not know, by the name under which they are remembered.
_KINDS: dict[str, Any] = {
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "Decimal": Decimal,
}


def new_rows(root: Path, settings: NewRows, memory: Memory) -> Decision:
    """Compare a table with the last look.

    The first look only remembers: whether the rows that are there were ever run on, nobody can tell. Rows that were
    deleted or changed in place are not seen.

    Raises:
        SourceError: the database or the table cannot be read; the message holds no password.
    """
    seen = memory.get("rows")
    highest, count, above = _look(root, settings, _decoded(seen["highest"]) if seen else None)
    rows = {"highest": _encoded(highest), "count": count}
    if seen is None:
        return Decision(
            {**memory, "rows": rows}, f"{settings.table} has {count} rows: from now on new ones are waited for"
        )
    # A row that came late with a value below the mark, or with the last one's time, shows in the count.
    fresh = max(above, count - seen["count"])
    if fresh < settings.min_rows:
        # After deletions, what comes next must count as growth.
        memory = {**memory, "rows": {**seen, "count": min(count, seen["count"])}}
        return Decision(memory, f"{settings.table}: {max(fresh, 0)} new rows, {settings.min_rows} call for a run")
    return Decision({**memory, "rows": rows}, f"{settings.table}: {fresh} new rows", digest(rows), stage=settings.stage)


def _look(root: Path, settings: NewRows, mark: Any) -> tuple[Any, int, int]:
    """Highest value, number of rows, and number of rows above the mark (of all if there is none)."""
    url = _url(root, settings)
    schema, _, name = settings.table.rpartition(".")
    column: sa.ColumnClause[Any] = sa.column(settings.column)
    table = sa.table(name, column, schema=schema or None)
    above = sa.func.count() if mark is None else sa.func.sum(sa.case((column > mark, 1), else_=0))
    query = sa.select(sa.func.max(column), sa.func.count(), above).select_from(table)
    try:
        arguments = _CONNECT.get(url.get_backend_name(), {})
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
        with engine.connect() as connection:
            highest, count, fresh = connection.execute(query).one()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        raise SourceError(
            f"{url.render_as_string(hide_password=True)}: {' '.join(str(cause).split())}",
            remedy="start or reach the database, install its driver, or correct automation.new_rows in params.yaml",
        ) from None
    return highest, int(count), int(fresh or 0)


def _url(root: Path, settings: NewRows) -> sa.URL:
    text = settings.url
    if settings.url_from is not None:
        text = os.environ.get(settings.url_from)
        if not text:
            raise SourceError(
                f"the environment variable {settings.url_from} is not set",
                remedy="set it to the database's SQLAlchemy URL where the code server starts (docs/automation.md)",
            )
    try:
        url = sa.make_url(text or "")
    except sa.exc.ArgumentError:
        raise SourceError(
            f"the environment variable {settings.url_from} holds no SQLAlchemy URL",
            remedy="write it as `postgresql+psycopg2://user:password@host/database`",
        ) from None
    if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:"):
        path = root / url.database
        if not path.is_file():  # SQLite would make an empty one
            raise SourceError(f"{path} does not exist", remedy="correct automation.new_rows.url in params.yaml")
        url = url.set(database=str(path))
    return url


def _encoded(value: Any) -> Any:
    kind = type(value).__name__
    if kind in _KINDS:
        return {"kind": kind, "value": value.isoformat() if hasattr(value, "isoformat") else str(value)}
    if value is None or isinstance(value, int | float | str):
        return value
    raise SourceError(
        f"values of type {kind} cannot be remembered",
        remedy="name a column of numbers, times or texts in automation.new_rows.column in params.yaml",
    )


def _decoded(value: Any) -> Any:
    return _KINDS[value["kind"]](value["value"]) if isinstance(value, dict) else value
