"""The tables of a corpus, read piece by piece: never more than a row group of texts at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_ops.errors import ArtifactError
from bert_ops.io import damaged, missing, read_json, rerun

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "validation", "test")

#: Rows of a row group that are looked at together.
BATCH_ROWS = 20_000

#: Columns of each artifact and what they hold.
DOCUMENT_COLUMNS = {
    "doc_id": "text", "source": "text", "split": "text", "text": "text", "characters": "integer",
    "content_hash": "text", "language": "text", "cluster": "text", "repeats": "integer", "pretrain": "boolean",
}  # fmt: skip
SENTENCE_COLUMNS = {
    "doc_id": "text", "source": "text", "split": "text", "position": "integer", "text": "text",
    "words": "list of integers", "repeats": "integer",
}  # fmt: skip
EXAMPLE_COLUMNS = {
    "example_id": "text", "source": "text", "split": "text", "text": "text", "pair": "text", "label": "text",
    "spans": "text", "content_hash": "text", "cluster": "text",
}  # fmt: skip
QUARANTINE_COLUMNS = {
    "source": "text", "location": "text", "step": "text", "reason": "text", "detail": "text", "excerpt": "text",
}  # fmt: skip
DUPLICATE_COLUMNS = {
    "source": "text", "location": "text", "kind": "text", "doc_id": "text", "similarity": "number", "excerpt": "text",
}  # fmt: skip
LEAK_COLUMNS = {"doc_id": "text", "task": "text", "example_id": "text", "share": "number", "dropped": "boolean"}


@dataclass(frozen=True)
class TableFile:
    """A Parquet file with the columns that it must have."""

    path: Path
    schema: dict[str, str]
    made_by: str = "ingest"

    def check(self) -> None:
        """Look at the file's schema.

        Raises:
            ArtifactError: the file is missing or damaged, lacks a column, or a column has another type.

        """
        with self._open() as file:
            present = file.schema_arrow
            absent = [column for column in self.schema if column not in present.names]
            if absent:
                raise ArtifactError(
                    f"{self.path} has no column {', '.join(absent)} (it has {', '.join(present.names)})",
                    remedy=rerun(self.made_by),
                )
            for column, kind in self.schema.items():
                found = present.field(column).type
                if not _fits(found, kind):
                    raise ArtifactError(
                        f"{self.path}: column {column} holds values of type {found}",
                        allowed=kind,
                        remedy=rerun(self.made_by),
                    )

    @property
    def names(self) -> list[str]:
        """Columns that the file has."""
        with self._open() as file:
            return list(file.schema_arrow.names)

    @property
    def rows(self) -> int:
        """Rows, as the file's footer says."""
        with self._open() as file:
            return int(file.metadata.num_rows)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows in their order, at least one table, an empty one if there are none.

        Raises:
            ArtifactError: the file is missing or damaged.

        """
        import pyarrow as pa

        wanted = list(columns or self.schema)
        with self._open() as file:
            if not file.metadata.num_rows:
                yield file.schema_arrow.empty_table().select(wanted)
            for group in range(file.num_row_groups):
                try:
                    table = file.read_row_group(group, columns=wanted)
                except (pa.ArrowException, OSError) as error:
                    raise damaged(self.path, _first_line(error), made_by=self.made_by) from error
                for start in range(0, len(table), BATCH_ROWS):
                    yield table.slice(start, BATCH_ROWS).combine_chunks()

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except FileNotFoundError as error:
            raise missing(self.path, made_by=self.made_by) from error
        except (pa.ArrowException, OSError) as error:
            raise damaged(self.path, _first_line(error), made_by=self.made_by) from error


@dataclass(frozen=True)
class CorpusFiles:
    """What ``ingest`` wrote; ``examples`` has a file for each task, ``metrics`` are its counts."""

    documents: TableFile
    sentences: TableFile
    quarantine: TableFile
    duplicates: TableFile
    leaks: TableFile
    examples: dict[str, TableFile]
    metrics: dict[str, Any]

    @property
    def tables(self) -> list[TableFile]:
        """All tables."""
        fixed = [self.documents, self.sentences, self.quarantine, self.duplicates, self.leaks]
        return fixed + list(self.examples.values())

    def said_of(self, task: str) -> dict[str, Any] | None:
        """What the counts say a task asks for; None where they do not."""
        said = (self.metrics.get("tasks") or {}).get(task)
        return said if isinstance(said, dict) else None


def corpus_files(folder: Path, metrics: Path) -> CorpusFiles:
    """Find the artifacts of ``ingest`` and look at their schemas.

    Raises:
        ArtifactError: a file is missing or damaged, lacks a column, or a column has another type.

    """
    if not folder.is_dir():
        raise missing(folder, made_by="ingest")
    counts = read_json(metrics, made_by="ingest")
    absent = [key for key in ("read", "sources", "split_shares", "rejected_by_reason") if key not in counts]
    if absent:
        raise damaged(metrics, f"it has no {', '.join(absent)}", made_by="ingest")
    files = CorpusFiles(
        documents=TableFile(folder / "documents.parquet", DOCUMENT_COLUMNS),
        sentences=TableFile(folder / "sentences.parquet", SENTENCE_COLUMNS),
        quarantine=TableFile(folder / "quarantine.parquet", QUARANTINE_COLUMNS),
        duplicates=TableFile(folder / "duplicates.parquet", DUPLICATE_COLUMNS),
        leaks=TableFile(folder / "leaks.parquet", LEAK_COLUMNS),
        examples={
            path.stem: TableFile(path, EXAMPLE_COLUMNS) for path in sorted((folder / "examples").glob("*.parquet"))
        },
        metrics=counts,
    )
    for table in files.tables:
        table.check()
    return files


def _fits(found: pa.DataType, kind: str) -> bool:
    import pyarrow as pa

    tests = {
        "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_null(t),
        "integer": pa.types.is_integer,
        "number": lambda t: pa.types.is_floating(t) or pa.types.is_null(t),
        "boolean": pa.types.is_boolean,
        "list of integers": lambda t: (
            (pa.types.is_list(t) and pa.types.is_integer(t.value_type)) or pa.types.is_null(t)
        ),
    }
    return bool(tests[kind](found))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
