"""A small corpus that breaks no rule, and its thresholds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd

from bert_ops.io import write_parquet
from bert_ops.quality.frames import Corpus

SPLIT_OF = ["train"] * 8 + ["validation", "test"]

VALUES = {
    "min_documents": 50,
    "min_examples_per_split": 5,
    "max_rejected_share": 0.2,
    "max_rejected_share_of_source": 0.5,
    "min_cjk_share": 0.3,
    "max_majority_share": 0.8,
    "min_document_characters": 2,
    "max_document_characters": 200,
    "max_sentence_characters": 100,
    "split_shares": {"train": 0.8, "validation": 0.1, "test": 0.1},
    "max_split_deviation": 0.03,
    "mostly": 0.99,
}


def make_corpus(count: int = 200) -> Corpus:
    """A small corpus that breaks no rule: a third newspaper, a third entities, a third reviews."""
    rows = []
    for index in range(count):
        text = f"第{index}篇文章说天气很好。我们去公园走一走。"
        digest = hashlib.sha256(text.encode()).hexdigest()
        source = ("newspaper", "entities", "reviews")[index % 3]
        rows.append(
            {
                "doc_id": digest[:16],
                "source": source,
                "split": SPLIT_OF[index // 3 % 10],
                "text": text,
                "characters": len(text),
                "content_hash": digest,
            }
        )
    documents = pd.DataFrame(rows)
    sentences = pd.DataFrame(
        [
            {
                "doc_id": row["doc_id"],
                "source": row["source"],
                "split": row["split"],
                "position": position,
                "text": part + "。",
            }
            for row in rows
            for position, part in enumerate(row["text"].rstrip("。").split("。"))
        ]
    )
    return Corpus(
        documents=documents,
        sentences=sentences,
        quarantine=pd.DataFrame(
            [{"source": "reviews", "location": "reviews row 7", "reason": "too_short", "detail": "1 character"}]
        ),
        examples={"entities": _examples(documents, "entities"), "sentiment": _examples(documents, "reviews")},
    )


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
            "label": pd.Series(label, dtype=object),
            "spans": pd.Series(spans, dtype=object),
            "content_hash": part["content_hash"],
        }
    )


def write_corpus(corpus: Corpus, folder: Path) -> Path:
    write_parquet(folder / "documents.parquet", corpus.documents)
    write_parquet(folder / "sentences.parquet", corpus.sentences)
    write_parquet(folder / "quarantine.parquet", corpus.quarantine.assign(excerpt=""))
    for task, examples in corpus.examples.items():
        write_parquet(folder / "examples" / f"{task}.parquet", examples)
    return folder
