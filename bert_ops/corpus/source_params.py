"""What params.yaml says of a source: a class for each kind, their union ``Source``, and ``ingest.reading``.

A key that a source does not name is None; that is the only default here (a tracked field has none, DVC reads only the
file). A new kind is a class here that stands in ``Source``, and a reader in ``bert_ops.corpus.sources.READERS``.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from bert_ops.corpus.field_paths import parse_path
from bert_ops.corpus.fields import Fields, SourceBase, Unlabelled
from bert_ops.corpus.records import BadRows
from bert_ops.schema import Section

Encoding = Literal["utf-8", "gb18030", "auto"]
Compression = Literal["gzip", "zstd", "xz", "none"]

#: A path that is a URL of fsspec: the protocol, then `://`.
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")


def is_url(path: str) -> bool:
    """Whether a path is a URL, which only the snapshot stage reads."""
    return _URL.match(path) is not None


def public_url(url: str) -> str:
    """A URL without user, password, query and fragment."""
    protocol, _, rest = url.partition("://")
    authority, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{protocol}://{authority.rpartition('@')[2]}{slash}{path}"


class ReadingParams(Section):
    """How files are read and what happens to what cannot be."""

    bad_rows: BadRows = Field(
        description="a row or file that cannot be read: quarantine (counted, listed, the rest is read) or fail; "
        "a source may say otherwise"
    )
    encoding: Encoding = Field(
        description="of text files: utf-8, gb18030, or auto (told by byte order mark or content); a source may differ"
    )
    min_encoding_confidence: float = Field(
        ge=0.0, le=1.0, description="a file whose encoding is less certain than this is not read (auto only)"
    )
    max_row_mebibytes: int = Field(ge=1, le=1024, description="longer rows are skipped, MiB of their bytes")
    max_json_depth: int = Field(ge=1, le=500, description="nesting of a JSON row; deeper ones are refused")


def _usable_path(path: str) -> str:
    if not is_url(path):
        return path
    protocol, _, rest = path.partition("://")
    if "@" in rest.partition("/")[0]:
        raise ValueError("path names a user or password; leave credentials to the environment of the snapshot stage")
    if protocol in ("file", "local") or "::" in path:
        raise ValueError(f"path is {public_url(path)!r}; name a local file by its path, and no URL within another")
    return path


class _Files(SourceBase):
    """Files: one, those of a folder, or those that a glob or a URL names."""

    path: str = Field(
        min_length=1,
        description="file, folder or glob below a folder that the ingest stage depends on, or a URL of fsspec "
        "(s3://bucket/news/*.jsonl.gz), which the snapshot stage copies",
    )
    pattern: str | None = Field(
        None, description="which files of a folder, as a glob ('*.txt', '**/*.txt'); only for folders"
    )

    _path = field_validator("path")(_usable_path)

    @field_validator("pattern")
    @classmethod
    def _pattern_stays_inside(cls, pattern: str | None) -> str | None:
        if pattern is not None and (not pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts):
            raise ValueError(f"pattern is {pattern!r}; it must be relative to path and hold no '..'")
        return pattern


class _TextFiles(_Files):
    """Files that are text once they are decompressed."""

    encoding: Encoding | None = Field(None, description="utf-8, gb18030 or auto; absent: as ingest.reading.encoding")
    compression: Compression | None = Field(
        None, description="gzip, zstd, xz or none; absent: told by the first bytes of each file, not by its name"
    )


class TextSource(_TextFiles, Unlabelled):
    """Plain text; it has no labels."""

    kind: Literal["text"] = Field(description="plain text")
    layout: Literal["line", "file", "paragraph"] = Field(
        description="what a document is: a line, a whole file, or a paragraph (blocks between blank lines)"
    )


class JsonSource(_TextFiles, Fields):
    """JSON documents: an array of objects, an object that is one row, or an object that holds the array."""

    nested: ClassVar[bool] = True
    kind: Literal["json"] = Field(description="a JSON document a file")
    rows: str | None = Field(
        None, description="where the rows stand ('data[*].items[*]'); absent: the elements of the outermost array"
    )

    @field_validator("rows")
    @classmethod
    def _rows_can_be_parsed(cls, rows: str | None) -> str | None:
        if rows is not None:
            parse_path(rows, key="rows", stars=True)
        return rows


class JsonLinesSource(_TextFiles, Fields):
    """JSON Lines: an object a line."""

    nested: ClassVar[bool] = True
    kind: Literal["jsonl"] = Field(description="JSON Lines")


class CsvSource(_TextFiles, Fields):
    """Values by column, with a header: separated by commas (RFC 4180) or by tabs."""

    kind: Literal["csv", "tsv"] = Field(description="comma-separated or tab-separated values with a header")
    delimiter: str | None = Field(None, description="one character between columns; absent: a comma, for tsv a tab")
    quote: str | None = Field(
        None,
        description="one character around values that hold a delimiter or a line end; '' for none; absent: \", "
        "for tsv none",
    )

    @model_validator(mode="after")
    def _single_characters(self) -> Self:
        for key, value in (("delimiter", self.delimiter), ("quote", self.quote or None)):
            if value is not None and (len(value) != 1 or value in "\r\n\0"):
                raise ValueError(f"{key} is {value!r}; it must be one character and no line end")
        if self.delimiter is not None and self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {self.quote!r}; they must differ")
        return self


class ParquetSource(_Files, Fields):
    """Parquet, row group by row group."""

    nested: ClassVar[bool] = True
    kind: Literal["parquet"] = Field(description="Parquet")


class HuggingFaceSource(Fields):
    """A folder that `datasets.Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""

    nested: ClassVar[bool] = True
    kind: Literal["huggingface"] = Field(description="dataset saved by Hugging Face datasets")
    path: str = Field(min_length=1, description="the folder below a folder that the ingest stage depends on, or a URL")
    subset: str | None = Field(None, description="which dataset of a DatasetDict ('train'); absent: a single dataset")

    _path = field_validator("path")(_usable_path)


Parameters = dict[str, StrictStr | StrictInt | StrictFloat | StrictBool | None]


class SqliteSource(Fields):
    """A SQLite database, opened read-only."""

    kind: Literal["sqlite"] = Field(description="SQLite 3 database file")
    path: str = Field(min_length=1, description="file below a folder that the ingest stage depends on")
    query: str = Field(min_length=1, description="one SELECT; give it an ORDER BY, so that the order is defined")
    id: str | None = Field(None, description="column that names a row in messages; absent: its number in the result")
    parameters: Parameters | None = Field(None, description="values bound to the query's :names, never pasted into it")


class SqlSource(Fields):
    """A query on, or a table of, any database that SQLAlchemy reaches; the snapshot stage copies its rows."""

    kind: Literal["sql"] = Field(description="database of SQLAlchemy")
    url: str | None = Field(None, min_length=1, description="SQLAlchemy URL without a password")
    url_from: str | None = Field(
        None, pattern=r"[A-Za-z_][A-Za-z0-9_]*", description="environment variable that holds the SQLAlchemy URL"
    )
    query: str | None = Field(None, min_length=1, description="one SELECT with an ORDER BY")
    table: str | None = Field(None, min_length=1, description="table or schema.table, in the order of its primary key")
    id: str | None = Field(None, description="column that names a row in messages; absent: its number in the result")
    parameters: Parameters | None = Field(None, description="values bound to the query's :names, never pasted into it")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for pair in (("url", "url_from"), ("query", "table")):
            given = [key for key in pair if getattr(self, key) is not None]
            if len(given) != 1:
                raise ValueError(f"{' and '.join(given) or 'neither'} of {pair[0]} and {pair[1]} is set; set one")
        if self.parameters and self.query is None:
            raise ValueError("parameters are set but query is not; only a query takes parameters")
        return self

    @field_validator("url")
    @classmethod
    def _url_holds_no_password(cls, url: str | None) -> str | None:
        # The value itself is not shown: it may hold the password that is the matter.
        if url is not None:
            authority = url.partition("://")[2]
            if ":" in authority.rpartition("@")[0] or "password=" in url.lower():
                raise ValueError("it holds a password; put the URL in an environment variable and name it in url_from")
        return url


Source = Annotated[
    TextSource
    | JsonSource
    | JsonLinesSource
    | CsvSource
    | ParquetSource
    | HuggingFaceSource
    | SqliteSource
    | SqlSource,
    Field(discriminator="kind"),
]
