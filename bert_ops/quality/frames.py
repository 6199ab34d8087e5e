"""The corpus as tables to check: rules that span rows or tables become boolean columns, texts become excerpts.

Great Expectations then needs built-in expectations only, and no long text reaches a report.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bert_ops.errors import ArtifactError
from bert_ops.io import missing, read_parquet, rerun
from bert_ops.quality.checks import EXCERPT_CHARACTERS

SPLITS = ("train", "validation", "test")

#: Columns of each artifact and what they hold.
DOCUMENT_COLUMNS = {
    "doc_id": "text", "source": "text", "split": "text", "text": "text", "characters": "integer",
    "content_hash": "text",
}  # fmt: skip
SENTENCE_COLUMNS = {"doc_id": "text", "source": "text", "split": "text", "position": "integer", "text": "text"}
EXAMPLE_COLUMNS = {
    "example_id": "text", "source": "text", "split": "text", "text": "text", "label": "text", "spans": "text",
    "content_hash": "text",
}  # fmt: skip
QUARANTINE_COLUMNS = {"source": "text", "location": "text", "reason": "text", "detail": "text"}

#: Unified ideographs with extensions, and compatibility ideographs (Unicode 15, blocks "CJK …Ideographs…").
_CJK_RANGES = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F), (0x30000, 0x323AF))
_REPLACEMENT = 0xFFFD
_CHUNK = 20_000


@dataclass(frozen=True)
class Corpus:
    """What ``ingest`` wrote; ``examples`` has a table for each task."""

    documents: pd.DataFrame
    sentences: pd.DataFrame
    quarantine: pd.DataFrame
    examples: dict[str, pd.DataFrame]


def read_corpus(folder: Path) -> Corpus:
    """Read the artifacts of ``ingest``.

    Raises:
        ArtifactError: a file is missing or damaged, lacks a column, or a column has another type.

    """
    if not folder.is_dir():
        raise missing(folder, made_by="ingest")
    tasks = sorted((folder / "examples").glob("*.parquet"))
    return Corpus(
        documents=read_table(folder / "documents.parquet", DOCUMENT_COLUMNS),
        sentences=read_table(folder / "sentences.parquet", SENTENCE_COLUMNS),
        quarantine=read_table(folder / "quarantine.parquet", QUARANTINE_COLUMNS),
        examples={path.stem: read_table(path, EXAMPLE_COLUMNS) for path in tasks},
    )


def read_table(path: Path, schema: dict[str, str], *, made_by: str = "ingest") -> pd.DataFrame:
    """Read the columns of ``schema``, as Python strings and 64-bit integers.

    Raises:
        ArtifactError: as :func:`bert_ops.io.read_parquet`, or a column has another type.

    """
    frame = read_parquet(path, columns=list(schema), made_by=made_by)
    for column, kind in schema.items():
        values = frame[column]
        fits = pd.api.types.is_integer_dtype(values) if kind == "integer" else _is_text(values)
        if not fits:
            raise ArtifactError(
                f"{path}: column {column} holds {pd.api.types.infer_dtype(values)} values",
                allowed=kind,
                remedy=rerun(made_by),
            )
        # Arrow-backed strings compare with NA and make checks three-valued; plain objects do not.
        frame[column] = (
            values.astype("int64") if kind == "integer" else values.astype(object).where(values.notna(), None)
        )
    return frame


def _is_text(values: pd.Series[Any]) -> bool:
    return pd.api.types.infer_dtype(values, skipna=True) in {"string", "empty"}


def document_table(documents: pd.DataFrame, sentences: pd.DataFrame) -> pd.DataFrame:
    """Table ``documents``: a row a document, its text replaced by counts and an excerpt."""
    counts = count_characters(documents["text"])
    return documents.drop(columns="text").assign(
        excerpt=excerpts(documents["text"]),
        text_length=documents["text"].fillna("").str.len().astype("int64"),
        visible_characters=counts["visible"],
        replacement_characters=counts["replacement"],
        id_of_hash=documents["content_hash"].str[:16].astype(object),
        on_one_side=~on_several_sides(documents["content_hash"], documents["split"]),
        has_sentences=documents["doc_id"].isin(sentences["doc_id"].unique()),
    )


def sentence_table(sentences: pd.DataFrame, documents: pd.DataFrame) -> pd.DataFrame:
    """Table ``sentences``: a row a sentence; whether it fits its document and stands in order."""
    known = documents.drop_duplicates("doc_id").set_index("doc_id")["split"]
    begins = sentences["doc_id"] != sentences["doc_id"].shift()
    ordinal = sentences.groupby(begins.cumsum()).cumcount()
    # A document that begins twice is scattered over the table.
    scattered = sentences["doc_id"].isin(sentences.loc[begins, "doc_id"].pipe(lambda ids: ids[ids.duplicated()]))
    return sentences.drop(columns="text").assign(
        excerpt=excerpts(sentences["text"]),
        text_length=sentences["text"].fillna("").str.len().astype("int64"),
        visible_characters=count_characters(sentences["text"])["visible"],
        split_of_document=sentences["doc_id"].map(known).astype(object),
        in_order=(ordinal == sentences["position"]) & ~scattered,
    )


def split_table(documents: pd.DataFrame, shares: dict[str, float]) -> pd.DataFrame:
    """Table ``splits``: documents of each split, their share, and its distance from the share that was asked for."""
    counts = documents["split"].value_counts()
    found = [int(counts.get(split, 0)) for split in SPLITS]
    share = [count / max(len(documents), 1) for count in found]
    return pd.DataFrame(
        {
            "split": list(SPLITS),
            "documents": found,
            "share": share,
            "deviation": [abs(share[i] - shares[split]) for i, split in enumerate(SPLITS)],
        }
    )


def source_table(documents: pd.DataFrame, quarantine: pd.DataFrame) -> pd.DataFrame:
    """Table ``sources``: kept and rejected texts of each source."""
    kept, rejected = documents["source"].value_counts(), quarantine["source"].value_counts()
    names = sorted({*kept.index, *rejected.index})
    table = pd.DataFrame(
        {
            "source": names,
            "documents": [int(kept.get(name, 0)) for name in names],
            "rejected": [int(rejected.get(name, 0)) for name in names],
        }
    )
    return table.assign(rejected_share=table["rejected"] / (table["documents"] + table["rejected"]))


def corpus_table(documents: pd.DataFrame, quarantine: pd.DataFrame, *, tasks: int) -> pd.DataFrame:
    """Table ``corpus``: one row with the figures of the whole."""
    counts = count_characters(documents["text"])
    visible = int(counts["visible"].sum())
    read = len(documents) + len(quarantine)
    return pd.DataFrame(
        {
            "corpus": ["all sources"],
            "documents": [len(documents)],
            "rejected": [len(quarantine)],
            "rejected_share": [len(quarantine) / read if read else np.nan],
            "cjk_share": [int(counts["cjk"].sum()) / visible if visible else np.nan],
            "tasks": [tasks],
        }
    )


def example_table(examples: pd.DataFrame, documents: pd.DataFrame) -> pd.DataFrame:
    """Table ``task_TASK``: a row an example; whether it is a document, leaks, contradicts another, fits its text."""
    known = set(zip(documents["doc_id"], documents["split"], documents["content_hash"], strict=True))
    rows = zip(examples["example_id"], examples["split"], examples["content_hash"], strict=True)
    answers = examples["label"].where(examples["label"].notna(), examples["spans"])
    problems = [
        span_problem(spans, len(text or "")) for spans, text in zip(examples["spans"], examples["text"], strict=True)
    ]
    return examples.drop(columns="text").assign(
        excerpt=excerpts(examples["text"]),
        visible_characters=count_characters(examples["text"])["visible"],
        is_document=[row in known for row in rows],
        on_one_side=~on_several_sides(examples["content_hash"], examples["split"]),
        agrees_with_equals=~on_several_sides(examples["content_hash"], answers.astype(str)),
        spans_are_json=[problem != "form" for problem in problems],
        spans_within_text=[problem != "outside" for problem in problems],
        spans_apart=[problem != "overlap" for problem in problems],
    )


def task_split_table(examples: pd.DataFrame) -> pd.DataFrame:
    """Table ``task_TASK_splits``: examples, set of labels and share of the most frequent label in each split."""
    rows = []
    for split in SPLITS:
        part = examples[examples["split"] == split]
        labels = part["label"].dropna() if is_classification(examples) else span_labels(part["spans"])
        counts = labels.value_counts()
        rows.append(
            {
                "split": split,
                "examples": len(part),
                "labels": ", ".join(sorted(counts.index)),
                "label_count": len(counts),
                "majority_share": counts.max() / counts.sum() if len(counts) else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(labels_of_train=table["labels"].iloc[0])


def is_classification(examples: pd.DataFrame) -> bool:
    """Whether a task labels whole texts; the others label spans."""
    return bool(examples["label"].notna().sum() >= examples["spans"].notna().sum())


def span_labels(spans: pd.Series[Any]) -> pd.Series[Any]:
    """Labels of all well-formed spans."""
    parsed = (parse_spans(item) for item in spans.dropna())
    return pd.Series([label for item in parsed if item for _, _, label in item], dtype=object)


def parse_spans(spans: str) -> list[tuple[int, int, str]] | None:
    """Parse ``[[start, end, label], ...]``; None if the text has another form."""
    try:
        value = json.loads(spans)
    except ValueError:
        return None
    if not isinstance(value, list):
        return None
    for item in value:
        if not (isinstance(item, list) and [type(part) for part in item] == [int, int, str]):
            return None
    return [tuple(item) for item in value]


def span_problem(spans: str | None, length: int) -> str | None:
    """Say what is wrong with the spans of a text of ``length`` characters: form, outside, overlap or nothing."""
    if spans is None:
        return None
    parsed = parse_spans(spans)
    if parsed is None:
        return "form"
    if any(not 0 <= start < end <= length for start, end, _ in parsed):
        return "outside"
    ordered = sorted(parsed)
    return "overlap" if any(a[1] > b[0] for a, b in pairwise(ordered)) else None


def on_several_sides(keys: pd.Series[Any], sides: pd.Series[Any]) -> pd.Series[bool]:
    """Whether the key of a row also occurs with another side (split, label)."""
    pairs = pd.DataFrame({"key": keys, "side": sides}).drop_duplicates()
    return keys.isin(pairs.loc[pairs["key"].duplicated(), "key"])


def excerpts(texts: pd.Series[Any]) -> pd.Series[Any]:
    """First characters of each text."""
    short = texts.fillna("").str.slice(0, EXCERPT_CHARACTERS - 1)
    return short.where(texts.fillna("").str.len() < EXCERPT_CHARACTERS, short + "…").astype(object)


def count_characters(texts: pd.Series[Any]) -> dict[str, NDArray[np.int64]]:
    """Count the visible, CJK and replacement (U+FFFD) characters of each text.

    All texts of a chunk are laid end to end as UTF-32, so that counting is a few array operations; a chunk bounds
    the memory.
    """
    parts: dict[str, list[NDArray[np.int64]]] = {"visible": [], "cjk": [], "replacement": []}
    for start in range(0, len(texts), _CHUNK):
        chunk = texts.iloc[start : start + _CHUNK].fillna("").tolist()
        codes = np.frombuffer("".join(chunk).encode("utf-32-le"), dtype="<u4")
        ends = np.cumsum([0, *map(len, chunk)])
        spaces = np.isin(codes, [0x20, 0x3000, 0xA0, *range(0x9, 0xE)])
        cjk = np.logical_or.reduce([(codes >= low) & (codes <= high) for low, high in _CJK_RANGES])
        for name, mask in (("visible", ~spaces), ("cjk", cjk), ("replacement", codes == _REPLACEMENT)):
            parts[name].append(np.diff(np.concatenate([[0], np.cumsum(mask)])[ends]))
    return {name: np.concatenate(found) if found else np.zeros(0, np.int64) for name, found in parts.items()}
