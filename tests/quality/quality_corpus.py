"""A small corpus that breaks no rule, and its thresholds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bert_ops.io import write_json
from bert_ops.quality import read
from bert_ops.quality.examples import TaskKind

SPLIT_OF = ["train"] * 8 + ["validation", "test"]
SOURCES = ("newspaper", "entities", "reviews")

#: Tasks of a small corpus, and those that :func:`add_tasks` adds.
KINDS = {
    "entities": TaskKind("spans"),
    "sentiment": TaskKind("label"),
    "topics": TaskKind("labels"),
    "stars": TaskKind("value"),
    "inference": TaskKind("label", pairs=True),
}

VALUES: dict[str, Any] = {
    "documents": {"min": 50, "severity": "critical"},
    "rejected_share": {"max": 0.2, "severity": "critical"},
    "rejected_share_of_source": {"max": 0.5, "severity": "warning"},
    "duplicate_share_of_source": {"max": 0.5, "severity": "warning"},
    "near_duplicates_left": {"max": 0.1, "severity": "warning"},
    "encoding_confidence": {"min": 0.9, "severity": "warning"},
    "replacement_characters": {"mostly": 0.99, "severity": "warning"},
    "mojibake": {"signs": 0.05, "mostly": 0.99, "severity": "warning"},
    "cjk_share": {"min": 0.3, "severity": "critical"},
    "cjk_share_of_source": {"min": 0.2, "severity": "warning"},
    "document_characters": {"min": 2, "max": 200, "mostly": 0.99, "severity": "critical"},
    "median_characters": {"min": 10, "max": 100, "severity": "warning"},
    "longest_characters": {"max": 150, "mostly": 0.99, "severity": "warning"},
    "sentence_characters": {"max": 100, "mostly": 0.99, "severity": "warning"},
    "split_deviation": {"max": 0.03, "severity": "warning"},
    "examples_per_split": {"min": 5, "severity": "critical"},
    "majority_share": {"max": 0.8, "severity": "warning"},
    "label_conflict_share": {"max": 0.02, "severity": "warning"},
    "leaked_share": {"max": 0.2, "severity": "warning"},
}

_TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "list of integers": pa.list_(pa.uint16()),
}
_FILES = {
    "documents": read.DOCUMENT_COLUMNS,
    "sentences": read.SENTENCE_COLUMNS,
    "quarantine": read.QUARANTINE_COLUMNS,
    "duplicates": read.DUPLICATE_COLUMNS,
    "leaks": read.LEAK_COLUMNS,
}


@dataclass
class Corpus:
    """What ingest writes, in memory, so that tests can change it."""

    documents: pd.DataFrame
    sentences: pd.DataFrame
    quarantine: pd.DataFrame
    duplicates: pd.DataFrame
    leaks: pd.DataFrame
    examples: dict[str, pd.DataFrame]
    metrics: dict[str, Any]


def make_corpus(count: int = 200) -> Corpus:
    """A small corpus that breaks no rule: a third newspaper, a third entities, a third reviews."""
    rows = []
    for index in range(count):
        text = f"第{index}篇文章说天气很好。我们去公园走一走。"
        digest = hashlib.sha256(text.encode()).hexdigest()
        rows.append(
            {
                "doc_id": digest[:16],
                "source": SOURCES[index % 3],
                "split": SPLIT_OF[index // 3 % 10],
                "text": text,
                "characters": len(text),
                "content_hash": digest,
                "language": "zh",
                "cluster": digest[:16],
                "repeats": 2 if index % 3 == 0 else 1,
                "pretrain": index != 0,
            }
        )
    documents = pd.DataFrame(rows)
    examples = {"entities": _examples(documents, "entities"), "sentiment": _examples(documents, "reviews")}
    tests = {task: table.loc[table["split"] == "test", "example_id"].iloc[0] for task, table in examples.items()}
    return Corpus(
        documents=documents,
        sentences=_sentences(rows),
        quarantine=pd.DataFrame(
            [
                {
                    "source": "reviews",
                    "location": "reviews row 7",
                    "step": "length",
                    "reason": "too_short",
                    "detail": "1 character",
                    "excerpt": "天",
                }
            ]
        ),
        duplicates=pd.DataFrame(
            [
                _duplicate("newspaper", "exact", rows[3]["doc_id"], None),
                _duplicate("reviews", "near", rows[5]["doc_id"], 0.9),
            ]
        ),
        leaks=pd.DataFrame(
            [
                {
                    "doc_id": rows[0]["doc_id"],
                    "task": task,
                    "example_id": example,
                    "share": 0.75,
                    "dropped": True,
                }
                for task, example in tests.items()
            ]
        ),
        examples=examples,
        metrics=_metrics(documents),
    )


def _sentences(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "doc_id": row["doc_id"],
                "source": row["source"],
                "split": row["split"],
                "position": position,
                "text": part + "。",
                "words": None if row["source"] == "newspaper" else [2, len(part) - 2, 1],
                "repeats": row["repeats"],
            }
            for row in rows
            if row["pretrain"]
            for position, part in enumerate(row["text"].rstrip("。").split("。"))
        ]
    )


def _duplicate(source: str, kind: str, doc_id: str, similarity: float | None) -> dict[str, Any]:
    location = f"{source} row 9"
    return {
        "source": source,
        "location": location,
        "kind": kind,
        "doc_id": doc_id,
        "similarity": similarity,
        "excerpt": "天气很好",
    }


def _metrics(documents: pd.DataFrame) -> dict[str, Any]:
    kept = documents["source"].value_counts()
    gone = {"newspaper": 1, "entities": 0, "reviews": 2}
    file = {"bytes": 900, "encoding": "utf-8", "confidence": 1.0}
    return {
        "read": len(documents) + 3,
        "rejected_by_reason": {"too_short": 1},
        "tasks": {name: {"target": kind.target, "pairs": kind.pairs} for name, kind in KINDS.items()},
        "split_shares": {"train": 0.8, "validation": 0.1, "test": 0.1},
        "sources": {
            name: {
                "kind": "text",
                "read": int(kept[name]) + gone[name],
                "files": [{"path": f"{name}/{number}.txt", **file} for number in range(2)],
            }
            for name in SOURCES
        },
    }


def _examples(documents: pd.DataFrame, source: str) -> pd.DataFrame:
    part = documents[documents["source"] == source].reset_index(drop=True)
    label: list[str | None] = [("positive", "negative")[index // 10 % 2] for index in range(len(part))]
    spans: list[str | None] = [json.dumps([[0, 2, "LOC"], [3, 5, "PER"]])] * len(part)
    nothing: list[str | None] = [None] * len(part)
    if source == "reviews":
        spans = nothing
    else:
        label = nothing
    return pd.DataFrame(
        {
            "example_id": part["doc_id"],
            "source": part["source"],
            "split": part["split"],
            "text": part["text"],
            "pair": pd.Series(nothing, dtype=object),
            "label": pd.Series(label, dtype=object),
            "spans": pd.Series(spans, dtype=object),
            "content_hash": part["content_hash"],
            "cluster": part["cluster"],
        }
    )


def add_tasks(corpus: Corpus) -> Corpus:
    """Add tasks of the other kinds: lists of labels, numbers, and pairs."""
    reviews, news = _examples(corpus.documents, "reviews"), _examples(corpus.documents, "newspaper")
    lists = ['["art", "sport"]', '["art"]', "[]", '["sport"]']
    corpus.examples |= {
        "topics": reviews.assign(label=[lists[index // 10 % 4] for index in range(len(reviews))]),
        "stars": reviews.assign(label=[f"{index // 10 % 5}.5" for index in range(len(reviews))]),
        "inference": news.assign(
            text=[text.split("。")[0] for text in news["text"]],
            pair="我们去公园走一走。",
            spans=None,
            label=[("follows", "contradicts")[index // 10 % 2] for index in range(len(news))],
        ),
    }
    return corpus


def write_corpus(corpus: Corpus, folder: Path, *, row_group_size: int = 64) -> Path:
    """Write a corpus as ingest does, with the counts beside it in ingest.json."""
    for name, columns in _FILES.items():
        write_table(folder / f"{name}.parquet", getattr(corpus, name), columns, row_group_size=row_group_size)
    (folder / "examples").mkdir(exist_ok=True)
    for task, examples in corpus.examples.items():
        path = folder / "examples" / f"{task}.parquet"
        write_table(path, examples, read.EXAMPLE_COLUMNS, row_group_size=row_group_size)
    write_json(folder.parent / "ingest.json", corpus.metrics)
    return folder


def write_table(path: Path, frame: pd.DataFrame, columns: dict[str, str], *, row_group_size: int = 64) -> None:
    """Write a table with the types that ingest gives its columns; missing values become nulls."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: pa.array([None if _absent(value) else value for value in frame[name].tolist()], _TYPES[kind])
        for name, kind in columns.items()
    }
    pq.write_table(pa.table(arrays), path, row_group_size=row_group_size)


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)
