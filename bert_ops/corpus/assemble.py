"""The second pass of ``ingest``: rows whose fate is decided become the tables of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bert_ops.corpus.answer_counts import Answers
from bert_ops.corpus.decide import CONFLICT, COPY, KEPT, NEAR, Decision, Indices, Rows
from bert_ops.corpus.leakage import LeakFinder
from bert_ops.corpus.params import IngestParams
from bert_ops.corpus.prepare import whole_texts
from bert_ops.corpus.profile import Profile
from bert_ops.corpus.records import excerpt
from bert_ops.corpus.split import SPLITS
from bert_ops.corpus.spool import Spool
from bert_ops.corpus.tables import DOCUMENTS, DUPLICATES, EXAMPLES, LEAKS, SENTENCES, TableWriter

_STRING = pa.string()
_TRAIN, _TEST = SPLITS.index("train"), SPLITS.index("test")
#: Examples of each reason that the data card shows.
SHOWN = 5
_KEPT_SHOWN = 8


def repeats_of(rows: Rows, decision: Decision, params: IngestParams) -> NDArray[np.uint8]:
    """Passes over each row in an epoch of pretraining, by the weight of its source; held-out texts are read once."""
    weights = np.array([1.0 if s.weight is None else s.weight for s in params.sources.values()])[rows["source"]]
    whole = np.floor(weights)
    passes = whole + (rows["draw"] < weights - whole)
    return np.where(decision.split == _TRAIN, passes, 1).astype(np.uint8)


class Assembler:
    """Writes the tables of a corpus to a folder, batch by batch.

    Args:
        out: folder for the tables.
        rows: numbers of all rows.
        decision: what becomes of them.
        spool: their texts.
        params: names of sources, weights, leakage.
        tasks: names of the tasks, in the order of their numbers.

    """

    def __init__(
        self,
        out: Path,
        *,
        rows: Rows,
        decision: Decision,
        spool: Spool,
        params: IngestParams,
        tasks: Sequence[str],
    ) -> None:
        self.rows, self.decision, self.spool, self.params, self.tasks = rows, decision, spool, params, tasks
        self.sources = list(params.sources)
        self.repeats = repeats_of(rows, decision, params)
        self.profile = Profile()
        self.answers = Answers(params)
        self.characters = 0
        self.leaks: list[dict[str, Any]] = []
        self.leaky_documents = 0
        self.shown: dict[str, list[dict[str, Any]]] = {}
        kept = decision.indices(KEPT)
        self._show = set(kept[np.argsort(rows["high"][kept], kind="stable")[:_KEPT_SHOWN]].tolist())
        self.finder, self.test_rows = self._leak_finder()
        self._open = ExitStack()
        self.documents = self._open.enter_context(TableWriter(out / "documents.parquet", DOCUMENTS))
        self.sentences = self._open.enter_context(TableWriter(out / "sentences.parquet", SENTENCES))
        self.duplicates = self._open.enter_context(TableWriter(out / "duplicates.parquet", DUPLICATES))
        present = np.unique(rows["task"][decision.example]).tolist()
        self.examples = {
            task: self._open.enter_context(TableWriter(out / "examples" / f"{tasks[task]}.parquet", EXAMPLES))
            for task in present
        }
        self.leak_table = self._open.enter_context(TableWriter(out / "leaks.parquet", LEAKS))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _leak_finder(self) -> tuple[LeakFinder | None, Indices]:
        leakage = self.params.leakage
        home = self.decision.of
        tests = np.flatnonzero(self.decision.example & (self.decision.split[home] == _TEST))
        if leakage.action == "off":
            return None, tests
        keys = [self.spool.key_of(row) for row in tests.tolist()]
        return LeakFinder(keys, ngram=leakage.ngram, min_share=leakage.min_share), tests

    def doc_ids(self, rows: Indices) -> list[str]:
        """First 16 digits of the content hash (64 bits: two of a million texts share one with odds of 3e-8)."""
        return [f"{high:016x}" for high in self.rows["high"][rows].tolist()]

    def add(self, first: int, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch."""
        here = np.arange(first, first + len(batch))
        status = self.decision.status[here]
        kept = here[status == KEPT]
        pretrain = self._without_leaks(kept)
        self._write_documents(kept, batch.take(pa.array(kept - first)), pretrain)
        examples = here[self.decision.example[here]]
        for task, writer in self.examples.items():
            of_task = examples[self.rows["task"][examples] == task]
            self._write_examples(task, of_task, batch.take(pa.array(of_task - first)), writer)
        gone = here[(status == COPY) | (status == NEAR)]
        self._write_duplicates(gone, batch.take(pa.array(gone - first)))

    def _without_leaks(self, kept: Indices) -> NDArray[np.bool_]:
        """Say of each kept row whether it may be pretraining text."""
        pretrain = np.ones(len(kept), bool)
        if self.finder is None:
            return pretrain
        train = np.flatnonzero(self.decision.split[kept] == _TRAIN)
        leaks = self.finder.find([self.spool.key_of(row) for row in kept[train].tolist()])
        drop = self.params.leakage.action == "drop"
        for leak in leaks:
            document, example = int(kept[train[leak.document]]), int(self.test_rows[leak.example])
            pretrain[train[leak.document]] = not drop
            self.leaks.append(
                {
                    "doc_id": self.doc_ids(np.array([document]))[0],
                    "task": self.tasks[self.rows["task"][example]],
                    "example_id": self.doc_ids(np.array([example]))[0],
                    "share": leak.share,
                    "dropped": drop,
                }
            )
        self.leaky_documents += len({leak.document for leak in leaks})
        return pretrain

    def _write_documents(self, rows: Indices, batch: pa.RecordBatch, pretrain: NDArray[np.bool_]) -> None:
        if not len(rows):
            return
        doc_ids = pa.array(self.doc_ids(rows), _STRING)
        sources = pa.array([self.sources[s] for s in self.rows["source"][rows].tolist()], _STRING)
        splits = pa.array([SPLITS[s] for s in self.decision.split[rows].tolist()], _STRING)
        repeats = pa.array(self.repeats[rows], pa.uint8())
        texts = whole_texts(batch)
        lengths = pc.utf8_length(texts).cast(pa.int64())
        columns = [
            doc_ids,
            sources,
            splits,
            texts,
            lengths,
            _hexadecimal(batch["content_hash"]),
            batch["language"],
            pa.array(self.doc_ids(self.decision.cluster[rows]), _STRING),
            repeats,
            pa.array(pretrain),
        ]
        self.documents.write(pa.Table.from_arrays(columns, schema=DOCUMENTS))
        self.characters += pc.sum(lengths).as_py()
        self._profile(sources, splits, texts)
        for position in [i for i, row in enumerate(rows.tolist()) if row in self._show]:
            text, location = texts[position].as_py(), batch["location"][position].as_py()
            self._note("kept", sources[position].as_py(), location, splits[position].as_py(), text, limit=_KEPT_SHOWN)
        used = np.flatnonzero(pretrain & (self.repeats[rows] > 0))
        parents = pa.array(np.repeat(used, _lengths(batch["sentences"].take(pa.array(used)))))
        taken = batch.take(pa.array(used))
        counts = _lengths(taken["sentences"])
        positions = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = [
            doc_ids.take(parents),
            sources.take(parents),
            splits.take(parents),
            pa.array(positions, pa.int64()),
            taken["sentences"].flatten(),
            _words(taken["words"], counts),
            repeats.take(parents),
        ]
        self.sentences.write(pa.Table.from_arrays(columns, schema=SENTENCES))

    def _profile(self, sources: pa.Array, splits: pa.Array, texts: pa.Array) -> None:
        """Describe the texts, those of a source and split together."""
        values = texts.to_pylist()
        groups: dict[tuple[str, str], list[str]] = {}
        for source, split, text in zip(sources.to_pylist(), splits.to_pylist(), values, strict=True):
            groups.setdefault((source, split), []).append(text)
        for (source, split), members in groups.items():
            self.profile.add(source, split, members)

    def _write_examples(self, task: int, rows: Indices, batch: pa.RecordBatch, writer: TableWriter) -> None:
        home = self.decision.of[rows]
        splits = [SPLITS[s] for s in self.decision.split[home].tolist()]
        columns = [
            pa.array(self.doc_ids(rows), _STRING),
            pa.array([self.sources[s] for s in self.rows["source"][rows].tolist()], _STRING),
            pa.array(splits, _STRING),
            batch["text"],
            batch["pair"],
            batch["label"],
            batch["spans"],
            _hexadecimal(batch["content_hash"]),
            pa.array(self.doc_ids(self.decision.cluster[home]), _STRING),
        ]
        writer.write(pa.Table.from_arrays(columns, schema=EXAMPLES))
        self.answers.add(self.tasks[task], splits, labels=batch["label"].to_pylist(), spans=batch["spans"].to_pylist())

    def _write_duplicates(self, rows: Indices, batch: pa.RecordBatch) -> None:
        values = []
        for row, of, location, text in zip(
            rows.tolist(),
            self.doc_ids(self.decision.of[rows]),
            batch["location"].to_pylist(),
            whole_texts(batch).to_pylist(),
            strict=True,
        ):
            near = self.decision.status[row] == NEAR
            source = self.sources[self.rows["source"][row]]
            similarity = self.decision.similarity.get(row)
            kind = "near" if near else "exact"
            values.append(
                {
                    "source": source,
                    "location": location,
                    "kind": kind,
                    "doc_id": of,
                    "similarity": similarity,
                    "excerpt": excerpt(text),
                }
            )
            detail = f"as {of}" if similarity is None else f"as {of}, Jaccard similarity {similarity:.2f}"
            self._note(f"{kind}_duplicate", source, location, detail, text)
        self.duplicates.write_rows(values)

    def _note(self, reason: str, source: str, location: str, detail: str, text: str, *, limit: int = SHOWN) -> None:
        shown = self.shown.setdefault(reason, [])
        if len(shown) < limit:
            shown.append({"source": source, "location": location, "detail": detail, "excerpt": excerpt(text)})

    def finish(self) -> None:
        """Write the table of leaks."""
        self.leak_table.write_rows(self.leaks)
        assert self.documents.rows == (self.decision.status == KEPT).sum()
        assert self.duplicates.rows == (self.decision.status != KEPT).sum() - (self.decision.status == CONFLICT).sum()


def _hexadecimal(hashes: pa.Array) -> pa.Array:
    return pa.array([value.hex() for value in hashes.to_pylist()], _STRING)


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.list_value_length(lists).to_numpy(zero_copy_only=False), np.int64)


def _words(words: pa.Array, sentences: NDArray[np.int64]) -> pa.Array:
    """Word lengths of each sentence; null for all sentences of a text without a given segmentation."""
    kind = pa.list_(pa.uint16())
    if words.null_count == len(words):
        return pa.nulls(int(sentences.sum()), kind)
    values: list[list[int] | None] = []
    for given, count in zip(words.to_pylist(), sentences.tolist(), strict=True):
        values += [None] * count if given is None else given
    return pa.array(values, kind)
