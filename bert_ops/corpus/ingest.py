"""Stage ``ingest``: sources to documents, sentences and labelled examples.

Each row is cleaned and checked (:mod:`~bert_ops.corpus.examine`), equal texts are removed
(:mod:`~bert_ops.corpus.dedup`), each text gets its side (:mod:`~bert_ops.corpus.split`) and is cut into sentences
(:mod:`~bert_ops.corpus.sentences`). What is not used goes to a quarantine table with its reason, and the counts must
add up.
"""

from __future__ import annotations

import argparse
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from bert_ops.corpus import dedup
from bert_ops.corpus.dedup import Deduplicated, Record
from bert_ops.corpus.examine import REASONS, Rejection, examine, reject
from bert_ops.corpus.params import IngestParams, Source
from bert_ops.corpus.sentences import split_sentences
from bert_ops.corpus.sources import read_source
from bert_ops.corpus.split import SPLITS, side
from bert_ops.errors import InputError
from bert_ops.io import atomic_folder, require_folder, write_json, write_parquet
from bert_ops.progress import note
from bert_ops.schema import load_section


@dataclass(frozen=True)
class Placed:
    """A record with its hash and its side."""

    record: Record
    content_hash: str
    split: str

    @property
    def doc_id(self) -> str:
        """First 16 digits of the content hash (64 bits: two of a million texts share one with odds of 3e-8)."""
        return self.content_hash[:16]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bert-ops ingest``."""
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        action="append",
        metavar="FOLDER",
        help="folder that sources may lie in; give it once for each folder that the stage depends on in dvc.yaml",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files; replaced as a whole")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the counts")


def run(arguments: argparse.Namespace) -> None:
    """Read all sources and write documents, sentences, examples, quarantine and counts.

    Raises:
        InputError: params.yaml or a source is wrong, or labels conflict and ``label_conflicts`` is ``fail``.
        StorageError: the disk is full; earlier outputs are left as they were.

    """
    params = load_section(arguments.params, "ingest", IngestParams)
    for folder in arguments.input:
        require_folder(folder, what="the input")
    records: list[Record] = []
    rejections: list[Rejection] = []
    for name, source in params.sources.items():
        read_records(name, source, params=params, inputs=arguments.input, records=records, rejections=rejections)
    kept = dedup.deduplicate(records)
    rejections += settle_conflicts(kept, policy=params.label_conflicts)
    documents = [place(record, params) for record in kept.documents]
    examples = {task: [place(record, params) for record in of_task] for task, of_task in sorted(kept.examples.items())}
    metrics = count(documents, examples, kept, rejections)
    assert metrics["read"] == len(records) + len(rejections) - len(kept.conflicting)
    assert metrics["read"] == metrics["documents"] + metrics["rejected"] + metrics["duplicates_removed"]
    if not documents:
        raise InputError(
            f"no document is left of the {metrics['read']:,} texts read: {listing(metrics['rejected_by_reason'])}",
            remedy="check the sources and ingest.min_characters, max_characters and label_conflicts in params.yaml",
        )
    with atomic_folder(arguments.out) as out:
        write_corpus(out, documents, examples, rejections)
    write_json(arguments.metrics, metrics)
    summarise(metrics)


def read_records(
    name: str,
    source: Source,
    *,
    params: IngestParams,
    inputs: Sequence[Path],
    records: list[Record],
    rejections: list[Rejection],
) -> None:
    """Read one source into ``records`` and ``rejections``.

    Raises:
        InputError: it cannot be read, or not one of its rows can be used.

    """
    fit, unfit = len(records), len(rejections)
    for row in read_source(name, source, inputs=inputs):
        result = examine(row, name=name, source=source, params=params)
        if isinstance(result, Record):
            records.append(result)
        else:
            rejections.append(result)
    reasons = Counter(rejection.reason for rejection in rejections[unfit:])
    if len(records) == fit:
        first = rejections[unfit]
        raise InputError(
            f"not one of the {len(rejections) - unfit:,} rows of the source {name} can be used: {listing(reasons)}; "
            f"the first is {first.location}: {first.detail}",
            remedy=f"check ingest.sources.{name} in params.yaml",
        )
    note(
        f"{name}: {len(records) - fit:,} texts from {source.path}"
        + (f"; rejected {listing(reasons)}" if reasons else "")
    )


def settle_conflicts(kept: Deduplicated, *, policy: str) -> list[Rejection]:
    """Turn contradicting labels into rejections.

    Raises:
        InputError: there are some and ``policy`` is ``fail``.

    """
    if kept.conflicting and policy == "fail":
        record, other = kept.conflicting[0]
        texts = len({record.key for record, _ in kept.conflicting})
        raise InputError(
            f"{texts:,} texts have more than one label for the same task; {record.location} says {target(record)}, "
            f"{other.location} says {target(other)}",
            remedy="correct the labels, or set ingest.label_conflicts to drop",
        )
    return [
        reject(
            record.source,
            record.location,
            "label_conflict",
            f"{target(record)}; {other.location}: {target(other)}",
            record.text,
        )
        for record, other in kept.conflicting
    ]


def target(record: Record) -> str:
    """A record's label or spans, for messages."""
    return record.label if record.label is not None else json.dumps(record.spans, ensure_ascii=False)[:120]


def place(record: Record, params: IngestParams) -> Placed:
    """Hash a record and put it on its side."""
    return Placed(record, dedup.content_hash(record.key), side(record.key, params.split))


def count(
    documents: list[Placed], examples: dict[str, list[Placed]], kept: Deduplicated, rejections: list[Rejection]
) -> dict[str, Any]:
    """Build metrics/ingest.json; ``read`` is the sum of what became of the rows."""
    duplicates = sum(kept.duplicates.values())
    by_split = Counter(document.split for document in documents)
    return {
        "read": len(documents) + len(rejections) + duplicates,
        "documents": len(documents),
        "rejected": len(rejections),
        "duplicates_removed": duplicates,
        "label_conflicts": len({record.key for record, _ in kept.conflicting}),
        "rejected_by_reason": dict(Counter(rejection.reason for rejection in rejections)),
        "duplicates_by_source": dict(kept.duplicates),
        "by_source": dict(Counter(document.record.source for document in documents)),
        "by_split": {split: by_split[split] for split in SPLITS},
        "characters": sum(len(document.record.text) for document in documents),
        "examples": {task: count_labels(placed) for task, placed in examples.items()},
        "unicode": unicodedata.unidata_version,
    }


def count_labels(examples: list[Placed]) -> dict[str, dict[str, int]]:
    """Count labels by split; where a task has spans, the spans are counted, and texts without any as ``O``."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for example in examples:
        record = example.record
        labels = [record.label] if record.label is not None else [label for _, _, label in record.spans or ()] or ["O"]
        counts[example.split].update(labels)
    return {split: dict(labels) for split, labels in counts.items()}


def write_corpus(
    out: Path, documents: list[Placed], examples: dict[str, list[Placed]], rejections: Iterable[Rejection]
) -> None:
    """Write the Parquet files of the corpus to a folder."""
    write_parquet(out / "documents.parquet", frame(document_row(document) for document in documents))
    write_parquet(out / "sentences.parquet", sentence_frame(documents))
    for task, placed in examples.items():
        rows = [
            {
                "example_id": example.doc_id,
                "source": example.record.source,
                "split": example.split,
                "text": example.record.text,
                "label": example.record.label,
                "spans": None if example.record.spans is None else json.dumps(example.record.spans, ensure_ascii=False),
                "content_hash": example.content_hash,
            }
            for example in placed
        ]
        write_parquet(out / "examples" / f"{task}.parquet", frame(rows))
    names = [field.name for field in fields(Rejection)]
    quarantine = pd.DataFrame([astuple(rejection) for rejection in rejections], columns=names, dtype="string")
    write_parquet(out / "quarantine.parquet", quarantine)


def document_row(document: Placed) -> dict[str, str | int]:
    """A row of documents.parquet."""
    return {
        "doc_id": document.doc_id,
        "source": document.record.source,
        "split": document.split,
        "text": document.record.text,
        "characters": len(document.record.text),
        "content_hash": document.content_hash,
    }


def sentence_frame(documents: list[Placed]) -> pd.DataFrame:
    """Sentences of all documents, in their order."""
    return frame(
        {
            "doc_id": document.doc_id,
            "source": document.record.source,
            "split": document.split,
            "position": position,
            "text": sentence,
        }
        for document in documents
        for position, sentence in enumerate(split_sentences(document.record.text, breaks=document.record.breaks))
    )


def frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A table whose columns are strings, but for counts; a column of nothing but nulls stays a string column."""
    table = pd.DataFrame(list(rows))
    return table.astype({column: "string" for column in table.columns if column not in ("position", "characters")})


def summarise(metrics: dict[str, Any]) -> None:
    """Tell a person what became of the texts."""
    note(
        f"read {metrics['read']:,} texts: {metrics['documents']:,} documents, "
        f"{metrics['duplicates_removed']:,} duplicates removed, {metrics['rejected']:,} rejected"
    )
    for reason, number in sorted(metrics["rejected_by_reason"].items()):
        note(f"  rejected {number:,} as {reason}: {REASONS[reason]}")
    for task, splits in metrics["examples"].items():
        note(f"task {task}: " + "; ".join(f"{split} {listing(labels)}" for split, labels in splits.items()))


def listing(counts: dict[str, int]) -> str:
    """Counts as a person lists them, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {name}" for name, number in ordered) or "none"
