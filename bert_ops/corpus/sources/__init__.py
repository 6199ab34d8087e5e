"""Rows of the sources that params.yaml names, of whatever kind.

A reader yields rows as they stand in the source and judges nothing about their content; that is
:mod:`bert_ops.corpus.examine`. A row, line or file that cannot be read becomes a Rejection with its reason, or ends the
stage where the source's policy is ``fail``. What makes a source as a whole unusable because of params.yaml (no such
path, no file that matches, no such column) always ends the stage.

A new kind of source is a class in :mod:`bert_ops.corpus.source_params`, a reader, and a line in ``READERS``
(docs/sources.md shows one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.source_params import ReadingParams, Source, SqlSource
from bert_ops.corpus.sources.delimited import read_delimited
from bert_ops.corpus.sources.huggingface import read_huggingface
from bert_ops.corpus.sources.json import read_json
from bert_ops.corpus.sources.jsonl import read_jsonl
from bert_ops.corpus.sources.parquet import read_parquet
from bert_ops.corpus.sources.reading import REASONS, REMEDIES, Reading, SourceReport
from bert_ops.corpus.sources.sql import read_sql
from bert_ops.corpus.sources.sqlite import read_sqlite
from bert_ops.corpus.sources.text import read_text
from bert_ops.errors import InputError

__all__ = ["READERS", "REASONS", "REMEDIES", "SourceReport", "read_source"]

#: Kind of source to its reader.
READERS: dict[str, Callable[[Reading], Iterator[Row | Rejection]]] = {
    "text": read_text,
    "json": read_json,
    "jsonl": read_jsonl,
    "csv": read_delimited,
    "tsv": read_delimited,
    "parquet": read_parquet,
    "huggingface": read_huggingface,
    "sqlite": read_sqlite,
    "sql": read_sql,
}


def read_source(
    name: str,
    source: Source,
    *,
    reading: ReadingParams,
    inputs: Sequence[Path],
    snapshots: Path | None,
    report: SourceReport,
) -> Iterator[Row | Rejection]:
    """Yield the rows of a source in their order, and a rejection for each that cannot be read; bounded memory.

    Args:
        name: the source's name in params.yaml, for messages.
        source: what to read.
        reading: how; what the source says of it itself goes first.
        inputs: folders that the stage depends on; every file must lie in one of them.
        snapshots: folder of what the snapshot stage copied, for databases and URLs.
        report: filled while rows are drawn; of a source that is not drawn to its end, it tells what was read.

    Raises:
        InputError: the source is missing, empty or outside the inputs; or a row cannot be read and the policy is fail.
        ArtifactError: its snapshot is missing or damaged.

    """
    own = {key: getattr(source, key, None) for key in ("bad_rows", "encoding")}
    params = reading.model_copy(update={key: value for key, value in own.items() if value is not None})
    this = Reading(name, source, params, tuple(inputs), snapshots, report)
    fail = params.bad_rows == "fail"
    for item in READERS[source.kind](this):
        if isinstance(item, Row):
            report.rows += 1
        else:
            if fail:
                raise _failure(item)
            report.rejected[item.reason] += 1
        yield item
    if not report.rows and set(report.rejected) <= {"empty_file"}:
        raise InputError(
            f"the source {name} is empty: {_place(source)} holds no text",
            remedy=f"fill it, or remove ingest.sources.{name} from params.yaml",
        )


def _failure(rejection: Rejection) -> InputError:
    """What ends the stage where a source may hold no bad row."""
    link = "" if rejection.detail.startswith(("is ", "has ", "holds ")) else ":"
    return InputError(
        f"{rejection.location}{link} {rejection.detail}",
        remedy=REMEDIES.get(rejection.reason, "mend it, or let bad rows go to the quarantine with bad_rows"),
    )


def _place(source: Source) -> str:
    """Where a source stands, for messages; never a password."""
    if isinstance(source, SqlSource):
        return source.table or "its query"
    return source.path
