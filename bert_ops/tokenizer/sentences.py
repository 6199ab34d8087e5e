"""Reading ``sentences.parquet`` a row group at a time, so that memory does not grow with the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bert_ops.errors import ArtifactError
from bert_ops.io import damaged, missing, rerun

#: Columns that older files, and those made by hand, may lack.
_OPTIONAL = ("words", "repeats")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise missing(path, made_by="ingest") from error
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, (str(error) or type(error).__name__).splitlines()[0], made_by="ingest") from error


def row_groups(path: Path, *, columns: Sequence[str]) -> list[int]:
    """Rows of each row group.

    Raises:
        ArtifactError: the file is missing, damaged, or lacks a column.

    """
    with _translated(path), pq.ParquetFile(path) as file:
        present = file.schema_arrow.names
        absent = [column for column in columns if column not in present]
        if absent:
            raise ArtifactError(
                f"{path} has no column {', '.join(absent)} (it has {', '.join(present)})", remedy=rerun("ingest")
            )
        return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]


def batches(
    path: Path, *, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Yield the columns of up to ``rows`` rows at a time, in the order of the file.

    Columns ``words`` and ``repeats`` are None and 1 where the file has none.

    Raises:
        ArtifactError: the file is missing or damaged.

    """
    with _translated(path), pq.ParquetFile(path) as file:
        present = [column for column in columns if column in file.schema_arrow.names]
        wanted = range(file.num_row_groups) if groups is None else groups
        for batch in file.iter_batches(rows, row_groups=list(wanted), columns=present, use_threads=False):
            read: dict[str, list[Any]] = {name: batch.column(name).to_pylist() for name in present}
            for column, value in zip(_OPTIONAL, (None, 1), strict=True):
                if column in columns and column not in read:
                    read[column] = [value] * batch.num_rows
            yield read


def training_texts(path: Path, *, rows: int = 8192) -> Iterator[list[str]]:
    """Yield the texts of the training split, in batches.

    Raises:
        ArtifactError: the file is missing, damaged, or lacks a column.

    """
    row_groups(path, columns=["split", "text"])
    for batch in batches(path, columns=["split", "text"], rows=rows):
        yield [text for split, text in zip(batch["split"], batch["text"], strict=True) if split == "train"]
