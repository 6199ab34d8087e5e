"""Parquet: row groups as they stream by; and rows of Arrow batches, which saved datasets share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bert_ops.corpus.field_paths import parse_path
from bert_ops.corpus.fields import named_fields
from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.sources.files import SourceFile, read_files
from bert_ops.corpus.sources.reading import FileFacts, Reading, Stop
from bert_ops.corpus.sources.rows import NAME_FIELDS, row_maker, too_long
from bert_ops.errors import InputError

#: Bytes of rows that a batch holds, as far as the mean of its row group tells; and rows.
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 4096


def read_parquet(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the rows of Parquet files."""
    make = row_maker(reading)

    def read(reading: Reading, file: SourceFile, _: FileFacts) -> Iterator[Row | Rejection]:
        file.path.open("rb").close()  # a file that may not be read is said to be that
        number = 0
        try:
            with pq.ParquetFile(file.path, buffer_size=1 << 20, pre_buffer=False) as parquet:
                columns = wanted_columns(reading, parquet.schema_arrow.names, where=file.shown)
                for group in range(parquet.num_row_groups):
                    size = _batch_rows(parquet.metadata.row_group(group))
                    for batch in parquet.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
                        for item in rows_of(reading, batch, make, where=file.shown, first=number + 1):
                            number += 1
                            yield item
        except (pa.ArrowException, OSError) as error:
            detail = (str(error) or type(error).__name__).splitlines()[0]
            raise Stop("broken_file", f"no Parquet from row {number + 1} on: {detail}") from error

    return read_files(reading, read)


def _batch_rows(group: Any) -> int:
    mean = max(1, group.total_byte_size // max(1, group.num_rows))
    return int(min(_BATCH_ROWS, max(1, _BATCH_BYTES // mean)))


def wanted_columns(reading: Reading, columns: list[str], *, where: str) -> list[str]:
    """Columns in which the fields of a source stand, in the order of the file.

    Raises:
        InputError: the first file lacks one.
        Stop: a later one does.

    """
    roots = {str(parse_path(path, key=role)[0]) for role, path in named_fields(reading.source).items()}
    absent = sorted(roots - set(columns))
    if absent and reading.proven:
        raise Stop("wrong_columns", f"it has no column {', '.join(absent)}; it has {', '.join(columns) or 'none'}")
    if absent:
        raise InputError(
            f"{where} has no column {', '.join(absent)}",
            allowed=f"it has {', '.join(columns) or 'none'}",
            remedy=NAME_FIELDS,
        )
    return [column for column in columns if column in roots]


def rows_of(
    reading: Reading, batch: pa.RecordBatch, make: Callable[[str, Any], Row], *, where: str, first: int
) -> Iterator[Row | Rejection]:
    """Yield the rows of a batch, numbered from ``first``; a value that is not UTF-8 or no date refuses its row."""
    try:
        values: list[Any] = batch.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        values = [_single(batch.slice(place, 1)) for place in range(batch.num_rows)]
    for number, value in enumerate(values, start=first):
        location = f"{where} row {number}"
        if isinstance(value, dict):
            row = make(location, value)
            yield too_long(reading, row) or row
        else:
            yield reading.reject(location, "bad_bytes", f"a value cannot be decoded: {value}")


def _single(row: pa.RecordBatch) -> dict[str, Any] | str:
    try:
        value: dict[str, Any] = row.to_pylist()[0]
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return str(error)
    return value
