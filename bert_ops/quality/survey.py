"""What rules that span rows and tables need to know: a few dozen bytes a row, no text.

Ids and hashes are held as 64-bit hashes of their text: of a hundred million different ones two are taken for equal
with odds of 3e-4.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.quality import characters
from bert_ops.quality.read import SPLITS, CorpusFiles, TableFile

if TYPE_CHECKING:
    import pyarrow as pa

Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]

#: Split of a row that names none of the three.
NO_SPLIT = len(SPLITS)
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
class Examples:
    """The N examples of a task.

    Attributes:
        ids, contents, clusters, answers: (N,) keys; the answer is the label or the spans.
        split: (N,) index into SPLITS, or NO_SPLIT.
        labelled, spanned: examples that have a label, and that have spans.

    """

    ids: Keys
    contents: Keys
    clusters: Keys
    answers: Keys
    split: NDArray[np.int8]
    labelled: int
    spanned: int

    @property
    def classification(self) -> bool:
        """Whether the task labels whole texts; the others label spans."""
        return self.labelled >= self.spanned


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
        examples={task: _examples(table) for task, table in files.examples.items()},
        rejected=_count(files.quarantine, "source"),
        duplicates=_count(files.duplicates, "source"),
    )


def keys(texts: pa.Array) -> Keys:
    """64-bit hash of each text, the same in every process; all nulls have the same one."""
    from pandas.util import hash_array

    hashed: Keys = hash_array(objects(texts), categorize=False)
    return hashed


def objects(texts: pa.Array) -> NDArray[np.object_]:
    """Python strings, None for nulls: what compares as people expect."""
    return np.array(texts.to_pylist(), dtype=object)


def repeated(keys: Keys) -> Flags:
    """Whether the key of a row occurs in another row, too."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    flags = np.zeros(len(keys), bool)
    flags[order[1:][same]] = True
    flags[order[:-1][same]] = True
    return flags


def on_several_sides(keys: Keys, sides: NDArray[Any]) -> Flags:
    """Whether the key of a row also occurs with another side (split, label)."""
    order = np.lexsort((sides, keys))
    ordered, beside = keys[order], sides[order]
    torn = (ordered[1:] == ordered[:-1]) & (beside[1:] != beside[:-1])
    return np.isin(keys, ordered[1:][torn])


def split_numbers(splits: pa.Array) -> NDArray[np.int8]:
    """Index into SPLITS of each name, NO_SPLIT for others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(splits.cast(pa.string()), pa.array(SPLITS, pa.string()))
    numbers: NDArray[np.int8] = pc.fill_null(found, NO_SPLIT).to_numpy(zero_copy_only=False).astype(np.int8)
    return numbers


def column(table: pa.Table, name: str) -> pa.Array:
    """One column of a batch as one array."""
    import pyarrow as pa

    chunks = table.column(name)
    return chunks.chunk(0) if chunks.num_chunks == 1 else pa.concat_arrays(chunks.chunks or [pa.array([], chunks.type)])


def numbers(table: pa.Table, name: str, *, null: int = -1) -> Numbers:
    """A column of integers or truth values as 64-bit integers; a null becomes ``null``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = pc.fill_null(column(table, name).cast(pa.int64()), null)
    values: Numbers = filled.to_numpy(zero_copy_only=False)
    return values


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


def numbers_of(encoded: pa.Array) -> Numbers:
    """Positions in the dictionary of an encoded array, -1 for nulls."""
    import pyarrow.compute as pc

    positions: Numbers = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return positions


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
        splits.update(_values(column(table, "split")))
    return np.concatenate(begun), splits


def _examples(file: TableFile) -> Examples:
    parts: dict[str, list[NDArray[Any]]] = {}
    labelled = spanned = 0
    for table in file.batches(["example_id", "content_hash", "cluster", "split", "label", "spans"]):
        found: dict[str, NDArray[Any]] = {
            name: keys(column(table, name)) for name in ("example_id", "content_hash", "cluster", "label", "spans")
        }
        found["split"] = split_numbers(column(table, "split"))
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
        labelled += len(table) - table.column("label").null_count
        spanned += len(table) - table.column("spans").null_count
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    return Examples(
        ids=whole["example_id"],
        contents=whole["content_hash"],
        clusters=whole["cluster"],
        answers=whole["label"] if labelled >= spanned else whole["spans"],
        split=whole["split"],
        labelled=labelled,
        spanned=spanned,
    )


def _count(file: TableFile, name: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for table in file.batches([name]):
        counts.update(_values(column(table, name)))
    return counts


def _values(array: pa.Array) -> dict[str, int]:
    """How often each text occurs; a null counts as an empty one."""
    return {entry["values"] or "": entry["counts"] for entry in array.value_counts().to_pylist()}
