"""The tables of a corpus: their columns, and Parquet files that grow row by row.

Memory and row groups are bounded, and the same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

_STRING = pa.string()
DOCUMENTS = pa.schema(
    [
        *((name, _STRING) for name in ("doc_id", "source", "split", "text")),
        ("characters", pa.int64()),
        ("content_hash", _STRING),
        ("language", _STRING),
        ("cluster", _STRING),
        ("repeats", pa.uint8()),
        ("pretrain", pa.bool_()),
    ]
)
SENTENCES = pa.schema(
    [
        *((name, _STRING) for name in ("doc_id", "source", "split")),
        ("position", pa.int64()),
        ("text", _STRING),
        ("words", pa.list_(pa.uint16())),
        ("repeats", pa.uint8()),
    ]
)
EXAMPLES = pa.schema(
    [
        (name, _STRING)
        for name in ("example_id", "source", "split", "text", "pair", "label", "spans", "content_hash", "cluster")
    ]
)
DUPLICATES = pa.schema(
    [
        *((name, _STRING) for name in ("source", "location", "kind", "doc_id")),
        ("similarity", pa.float64()),
        ("excerpt", _STRING),
    ]
)
LEAKS = pa.schema(
    [
        *((name, _STRING) for name in ("doc_id", "task", "example_id")),
        ("share", pa.float64()),
        ("dropped", pa.bool_()),
    ]
)

#: Bytes in memory after which a row group ends.
ROW_GROUP_BYTES = 16 << 20


class TableWriter:
    """Writes one Parquet file; a table given in one call never crosses a row group."""

    def __init__(self, path: Path, schema: pa.Schema, *, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.schema, self.limit, self.rows = schema, row_group_bytes, 0
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._pending: list[pa.Table] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Append rows of the schema."""
        if not len(table):
            return
        self.rows += len(table)
        self._pending.append(table)
        self._bytes += table.nbytes
        if self._bytes >= self.limit:
            self._flush()

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows given as mappings."""
        self.write(pa.Table.from_pylist(list(rows), schema=self.schema))

    def _flush(self) -> None:
        if self._pending:
            table = pa.concat_tables(self._pending).combine_chunks()
            self._writer.write_table(table, row_group_size=len(table))
            self._pending, self._bytes = [], 0
