"""What rules that span rows and tables need to know: a few dozen bytes a row, no text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.quality import characters
from bert_ops.quality.columns import (
    Flags,
    Keys,
    Numbers,
    column,
    keys,
    numbers,
    numbers_of,
    occurrences,
    split_numbers,
)
from bert_ops.quality.examples import Examples, read_examples
from bert_ops.quality.read import CorpusFiles, TableFile

if TYPE_CHECKING:
    import pyarrow as pa

_COUNTS = ("length", "visible", "replacement", "signs")


@dataclass(frozen=True)
class Documents:
    """The N documents.

    Attributes:
        ids, contents, clusters: (N,) keys of id, content hash and cluster.
        split: (N,) index into SPLITS, or NO_SPLIT.
        pretrain: (N,) whether ingest lets it be pretraining text.
        repeats: (N,) passes over it in an epoch.
        counts: ``length``, ``visible``, ``replacement`` and ``signs``, (N,) each, see :func:`characters.count`.
        sources: documents, visible characters and ideographs of each source.

    """

    ids: Keys
    contents: Keys
    clusters: Keys
    split: NDArray[np.int8]
    pretrain: Flags
    repeats: NDArray[np.int16]
    counts: dict[str, NDArray[np.int32]]
    sources: dict[str, Counter[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def used(self) -> Flags:
        """Whether a document must have sentences."""
        return self.pretrain & (self.repeats > 0)

    @cached_property
    def _order(self) -> Numbers:
        return np.argsort(self.ids, kind="stable")

    def places(self, ids: Keys) -> Numbers:
        """Position of the first document with each id, -1 where there is none."""
        if not len(self):
            return np.full(len(ids), -1, np.int64)
        ordered = self.ids[self._order]
        found = np.minimum(np.searchsorted(ordered, ids), len(self) - 1)
        places: Numbers = np.where(ordered[found] == ids, self._order[found], -1)
        return places


@dataclass(frozen=True)
class Survey:
    """What the first pass over a corpus found.

    Attributes:
        documents: all documents.
        begun: (R,) key of the document at each row of sentences.parquet at which another document begins.
        sentences: rows of sentences.parquet by split.
        examples: examples of each task.
        rejected, duplicates: rows of quarantine.parquet and duplicates.parquet by source.

    """

    documents: Documents
    begun: Keys
    sentences: Counter[str]
    examples: dict[str, Examples]
    rejected: Counter[str]
    duplicates: Counter[str]


def survey(files: CorpusFiles) -> Survey:
    """Pass over all tables once.

    Raises:
        ArtifactError: a table is damaged.

    """
    begun, sentences = _sentences(files.sentences)
    return Survey(
        documents=_documents(files.documents),
        begun=begun,
        sentences=sentences,
        examples={task: read_examples(table, files.said_of(task)) for task, table in files.examples.items()},
        rejected=_count(files.quarantine, "source"),
        duplicates=_count(files.duplicates, "source"),
    )


def _documents(file: TableFile) -> Documents:
    parts: dict[str, list[NDArray[Any]]] = {}
    sources: dict[str, Counter[str]] = {}
    wanted = ["doc_id", "source", "split", "text", "content_hash", "cluster", "repeats", "pretrain"]
    for table in file.batches(wanted):
        counts = characters.count(column(table, "text"))
        found: dict[str, NDArray[Any]] = {name: counts[name].astype(np.int32) for name in _COUNTS}
        found |= {name: keys(column(table, name)) for name in ("doc_id", "content_hash", "cluster")}
        found["split"] = split_numbers(column(table, "split"))
        found["pretrain"] = numbers(table, "pretrain", null=0).astype(bool)
        found["repeats"] = numbers(table, "repeats", null=0).astype(np.int16)
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
        _add_sources(sources, column(table, "source"), counts)
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    return Documents(
        ids=whole["doc_id"],
        contents=whole["content_hash"],
        clusters=whole["cluster"],
        split=whole["split"],
        pretrain=whole["pretrain"],
        repeats=whole["repeats"],
        counts={name: whole[name] for name in _COUNTS},
        sources=sources,
    )


def _add_sources(sources: dict[str, Counter[str]], names: pa.Array, counts: dict[str, Numbers]) -> None:
    encoded = names.dictionary_encode()
    of_row = numbers_of(encoded)
    for number, name in enumerate(encoded.dictionary.to_pylist()):
        rows = of_row == number
        figures = {key: int(counts[key][rows].sum()) for key in ("visible", "cjk")}
        sources.setdefault(name, Counter()).update({"documents": int(rows.sum()), **figures})


def _sentences(file: TableFile) -> tuple[Keys, Counter[str]]:
    begun: list[Keys] = []
    splits: Counter[str] = Counter()
    last: np.uint64 | None = None
    for table in file.batches(["doc_id", "split"]):
        found = keys(column(table, "doc_id"))
        begins = np.ones(len(found), bool)
        begins[1:] = found[1:] != found[:-1]
        if last is not None and len(found):
            begins[0] = found[0] != last
        if len(found):
            last = found[-1]
        begun.append(found[begins])
        splits.update(occurrences(column(table, "split")))
    return np.concatenate(begun), splits


def _count(file: TableFile, name: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for table in file.batches([name]):
        counts.update(occurrences(column(table, name)))
    return counts
