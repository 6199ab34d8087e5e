"""Rows of the sources that params.yaml names: text files, JSON Lines and SQLite.

A reader yields rows as they stand in the source and judges nothing about their content; that is
:mod:`bert_ops.corpus.examine`. What makes the source as a whole unreadable (missing, not UTF-8, a malformed line, no
such column) ends the stage with a message that names file and line: half of a source is no source.

A new kind of source is a section in :mod:`bert_ops.corpus.params`, a reader here, and a line in ``READERS``.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bert_ops.corpus.params import JsonLinesSource, Source, SqliteSource, TextSource
from bert_ops.errors import InputError

#: Stands for a field that a row does not have, which is not the same as a field that is null.
MISSING = object()

#: Operations that a query may perform; everything else (ATTACH, PRAGMA, INSERT) is refused by SQLite itself.
_ALLOWED_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}

#: A file in a content-addressed cache, to which files are linked where `cache.type` is `symlink`; it never changes.
_CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")


@dataclass(frozen=True)
class Row:
    """A row as it stands in a source; ``label`` and ``spans`` are None where the source has no such field."""

    location: str
    text: Any
    label: Any = None
    spans: Any = None


def read_source(name: str, source: Source, *, inputs: Sequence[Path]) -> Iterator[Row]:
    """Yield the rows of a source in their order; constant memory, but for text files that are one document.

    Args:
        name: the source's name in params.yaml, for messages.
        source: what to read.
        inputs: folders that the stage depends on; every file must lie in one of them.

    Raises:
        InputError: the source is missing, empty, outside the inputs, not UTF-8 or malformed.

    """
    path = contained(Path(source.path), what=f"`ingest.sources.{name}.path`", inputs=inputs)
    empty = True
    for row in READERS[source.kind](path, source, inputs):
        empty = False
        yield row
    if empty:
        raise InputError(
            f"the source {name} is empty: {path} holds no text",
            remedy=f"fill it, or remove ingest.sources.{name} from params.yaml",
        )


def contained(path: Path, *, what: str, inputs: Sequence[Path]) -> Path:
    """Return ``path`` if it exists and lies, links resolved, in one of the input folders.

    Raises:
        InputError: it does not exist, or lies elsewhere, where DVC would not notice that it changes.

    """
    if not path.exists():
        raise InputError(
            f"{what}: {path} does not exist",
            remedy="check the path; bring own data as data/raw/README.md says, or fetch it with `dvc pull`",
        )
    resolved = path.resolve()
    inside = any(resolved.is_relative_to(folder.resolve()) for folder in inputs)
    if not inside and not _CACHED.search(resolved.as_posix()):
        raise InputError(
            f"{what}: {path} lies outside the stage's inputs"
            + ("" if resolved == path.absolute() else f" (it leads to {resolved})")
            + ", where a change would go unnoticed",
            allowed=f"a path in {' or '.join(map(str, inputs))}",
            remedy="copy the file there, or add its folder to `deps` and `--input` of the ingest stage in dvc.yaml",
        )
    return path


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which source cannot be read, instead of that something cannot be stored."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", remedy="check the file and its permissions"
        ) from error


def read_text(path: Path, source: TextSource, inputs: Sequence[Path]) -> Iterator[Row]:
    """Yield the documents of text files; blank lines separate and are no documents."""
    if path.is_file():
        if source.pattern is not None:
            raise InputError(
                f"{path} is a file, so the pattern {source.pattern!r} of the source would do nothing",
                remedy="remove the pattern, or name the folder in path",
            )
        files = [path]
    elif source.pattern is None:
        raise InputError(
            f"{path} is a folder, so the source needs a `pattern`", remedy="add pattern: '*.txt' to the source"
        )
    else:
        files = sorted(
            (p for p in path.glob(source.pattern) if p.is_file()), key=lambda p: p.relative_to(path).as_posix()
        )
        if not files:
            raise InputError(
                f"no file in {path} matches the pattern {source.pattern!r}", remedy="correct path or pattern"
            )
    for file in files:
        lines = _lines(contained(file, what="link", inputs=inputs))
        if source.layout == "line":
            yield from (Row(f"{file.as_posix()}:{number}", line) for number, line in lines if not _is_blank(line))
        elif source.layout == "paragraph":
            yield from _paragraphs(file, lines)
        else:
            text = "\n".join(line for _, line in lines)
            if not _is_blank(text):
                yield Row(f"{file.as_posix()}:1", text)


def _paragraphs(file: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    block: list[str] = []
    first = 1
    for number, line in lines:
        if not _is_blank(line):
            first = first if block else number
            block.append(line)
        elif block:
            yield Row(f"{file.as_posix()}:{first}", "\n".join(block))
            block = []
    if block:
        yield Row(f"{file.as_posix()}:{first}", "\n".join(block))


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of each line; only a line feed ends one, and a carriage return before it goes.

    Raises:
        InputError: a line is not UTF-8; the message names the byte.

    """
    offset = 0
    with _reading(path), path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}:{number} is not UTF-8: byte {raw[error.start]:#04x} at offset "
                    f"{offset + error.start} of the file{_guess_encoding(raw, offset)}",
                    remedy=f"convert it, for example with `iconv -f GB18030 -t UTF-8 {path.name}`, and check the text",
                ) from error
            if number == 1:
                line = line.removeprefix("\ufeff")
            yield number, line.rstrip("\r\n")
            offset += len(raw)


def _guess_encoding(raw: bytes, offset: int) -> str:
    if offset == 0 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return " (its first two bytes are those of UTF-16)"
    return ""


def read_jsonl(path: Path, source: JsonLinesSource, inputs: Sequence[Path]) -> Iterator[Row]:
    """Yield the rows of a JSON Lines file; the first row must have every field, a later one may lack it."""
    del inputs
    fields = [field for field in (source.text, source.label, source.spans) if field is not None]
    first = True
    for number, line in _lines(_file(path)):
        if _is_blank(line):
            continue
        value = _parse_object(line, where=f"{path}:{number}")
        absent = [field for field in fields if field not in value]
        if first and absent:
            raise InputError(
                f"{path}:{number} has no field {', '.join(absent)}",
                allowed=f"it has {', '.join(map(str, value)) or 'no field at all'}",
                remedy="name the fields of the file in the source's text, label and spans",
            )
        first = False
        yield Row(
            f"{path.as_posix()}:{number}", *(_get(value, field) for field in (source.text, source.label, source.spans))
        )


def _get(value: dict[str, Any], field: str | None) -> Any:
    return None if field is None else value.get(field, MISSING)


def _parse_object(line: str, *, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not valid JSON: {error.msg} at column {error.colno}",
            allowed="one JSON object a line",
            remedy="mend the line, or remove it",
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where} is not usable JSON: {error}", allowed="one JSON object a line") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{where} holds a JSON {type(value).__name__}, not an object",
            allowed='one JSON object a line, as {"text": "..."}',
            remedy="mend the line, or remove it",
        )
    return value


def read_sqlite(path: Path, source: SqliteSource, inputs: Sequence[Path]) -> Iterator[Row]:
    """Yield the rows of a query; the database is opened read-only and the query can do nothing but read."""
    del inputs
    uri = f"file:{quote(str(_file(path).resolve()))}?mode=ro"
    number = 0
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.set_authorizer(_only_reads)
            connection.text_factory = _strict_utf8
            cursor = connection.execute(source.query, source.parameters or {})
            columns = _columns(cursor, path, source)
            for number, values in enumerate(cursor, start=1):
                row = dict(zip(columns, values, strict=True))
                where = f"{source.id} {row[source.id]}" if source.id is not None else f"row {number}"
                yield Row(
                    f"{path.as_posix()} {where}", *(_get(row, f) for f in (source.text, source.label, source.spans))
                )
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, row {number + 1} of the query, is not UTF-8: byte {error.object[error.start]:#04x} at offset "
            f"{error.start} of the value",
            remedy="store the text as UTF-8",
        ) from error
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise InputError(
            f"{path} cannot be queried: {error}",
            allowed="a SQLite 3 database and one SELECT, with every :name given in the source's parameters",
            remedy=f"correct the source's path, query or parameters; the query is {source.query!r}",
        ) from error


def _columns(cursor: sqlite3.Cursor, path: Path, source: SqliteSource) -> list[str]:
    columns = [column[0] for column in cursor.description or ()]
    wanted = [column for column in (source.text, source.label, source.spans, source.id) if column is not None]
    absent = [column for column in wanted if column not in columns]
    if absent:
        raise InputError(
            f"the query on {path} returns no column {', '.join(absent)}",
            allowed=f"it returns {', '.join(columns) or 'nothing'}",
            remedy="select the column, or name another one in the source",
        )
    return columns


def _strict_utf8(raw: bytes) -> str:
    return raw.decode("utf-8")


def _only_reads(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY


def _file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is a folder", allowed="a file", remedy="name the file itself in the source's path")
    return path


#: Kind of source to its reader.
READERS: dict[str, Callable[[Path, Any, Sequence[Path]], Iterator[Row]]] = {
    "text": read_text,
    "jsonl": read_jsonl,
    "sqlite": read_sqlite,
}
