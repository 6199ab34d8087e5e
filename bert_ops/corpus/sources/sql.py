"""Databases: the rows that the snapshot stage copied, so that a run is the same after the table has changed.

A row of the copy holds, for each role that the source names and for its ``id``, the value as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bert_ops.corpus.fields import ROLES, named_fields
from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import SqlSource
from bert_ops.corpus.sources.reading import FileFacts, QueryFacts, Reading
from bert_ops.corpus.sources.rows import too_long
from bert_ops.corpus.sources.snapshots import STAGE, checked, snapshot_folder, snapshot_record
from bert_ops.corpus.sources.values import NOT_UTF8
from bert_ops.io import damaged

ROWS = "rows.parquet"


def sql_expectation(source: SqlSource) -> dict[str, Any]:
    """What of a source must stand in its snapshot for it to be a snapshot of that source."""
    named = {} if source.id is None else {"id": source.id}
    return {
        "kind": "sql",
        "url_from": source.url_from,
        "query": source.query,
        "table": source.table,
        "parameters": sorted(source.parameters or {}),
        "fields": named_fields(source) | named,
    }


def read_sql(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the rows of a query as they were when the snapshot was taken.

    Raises:
        ArtifactError: the snapshot is missing, damaged, or of another query.

    """
    source = reading.source
    assert isinstance(source, SqlSource)
    record = snapshot_record(reading, **sql_expectation(source))
    path = checked(snapshot_folder(reading) / ROWS, record.get("sha256"))
    facts = FileFacts(path.as_posix(), bytes=path.stat().st_size)
    reading.report.files.append(facts)
    reading.report.query = QueryFacts(record["statement"], record["rows"], record["content_hash"])
    where = f"{reading.name} ({source.table or 'query'})"
    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(1024, use_threads=False):
                columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
                nothing = [None] * batch.num_rows
                for *fields, name in zip(*(columns.get(role, nothing) for role in (*ROLES, "id")), strict=True):
                    number += 1
                    label = f"row {number}" if name is None else f"{source.id} {json.loads(name)}"
                    item = _row(reading, f"{where} {label}", number, fields)
                    facts.rows, facts.rejected = facts.rows + isinstance(item, Row), number - facts.rows
                    yield item
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, str(error).partition("\n")[0], made_by=STAGE) from error
    if number != record["rows"]:
        raise damaged(path, f"{number:,} rows, not {record['rows']:,}", made_by=STAGE)


def _row(reading: Reading, location: str, number: int, fields: list[str | None]) -> Row | Rejection:
    values = [None if field is None else json.loads(field) for field in fields]
    for value in values:
        if isinstance(value, dict) and NOT_UTF8 in value:
            return reading.reject(location, "bad_bytes", f"row {number} of the query, is not UTF-8: {value[NOT_UTF8]}")
    row = Row(location, *values)
    return too_long(reading, row) or row
