"""The corpus as tables of figures: one row for the whole, or a row a source, file, split or task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bert_ops.errors import ArtifactError
from bert_ops.io import rerun
from bert_ops.quality.columns import repeated
from bert_ops.quality.examples import TaskKind, labels_of
from bert_ops.quality.params import ValidateCorpusParams
from bert_ops.quality.read import SPLITS, CorpusFiles, TableFile
from bert_ops.quality.survey import Survey


def corpus_table(files: CorpusFiles, found: Survey, params: ValidateCorpusParams) -> pd.DataFrame:
    """Table ``corpus``: one row with the figures of the whole."""
    documents, metrics = found.documents, files.metrics
    lengths = documents.counts["length"]
    visible = sum(source["visible"] for source in documents.sources.values())
    cjk = sum(source["cjk"] for source in documents.sources.values())
    rejected, duplicates = sum(found.rejected.values()), sum(found.duplicates.values())
    read = int(metrics["read"])
    longest = params.longest_characters.mostly
    return pd.DataFrame(
        {
            "corpus": ["all sources"],
            "read": [read],
            "accounted_for": [len(documents) + rejected + duplicates],
            "documents": [len(documents)],
            "rejected_share": [_share(rejected, read)],
            "cjk_share": [_share(cjk, visible)],
            "median_characters": [_quantile(lengths, 0.5)],
            "longest_characters": [_quantile(lengths, longest)],
            "near_duplicates_left": [_share(int(repeated(documents.clusters).sum()), len(documents))],
            "label_conflict_share": [_share(int(metrics["rejected_by_reason"].get("label_conflict", 0)), read)],
            "tasks": [len(files.examples)],
        }
    )


def source_table(files: CorpusFiles, found: Survey) -> pd.DataFrame:
    """Table ``sources``: what became of the rows of each source, and its share of ideographs."""
    facts: Mapping[str, Any] = files.metrics["sources"]
    counted = found.documents.sources
    rows = []
    for name in sorted({*facts, *counted, *found.rejected, *found.duplicates}):
        read = facts.get(name, {}).get("read")
        kept = counted.get(name, Counter())
        documents, rejected, duplicates = kept["documents"], found.rejected[name], found.duplicates[name]
        total = documents + rejected + duplicates
        rows.append(
            {
                "source": name,
                "read": -1 if read is None else int(read),
                "accounted_for": total,
                "documents": documents,
                "rejected": rejected,
                "duplicates": duplicates,
                "rejected_share": _share(rejected, total),
                "duplicate_share": _share(duplicates, total),
                "cjk_share": _share(kept["cjk"], kept["visible"]),
            }
        )
    columns = [
        "source", "read", "accounted_for", "documents", "rejected", "duplicates", "rejected_share", "duplicate_share",
        "cjk_share",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def file_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Table ``files``: the encoding of each text file that was read, and how sure it is."""
    rows = []
    for name, facts in sorted(metrics["sources"].items()):
        for file in facts.get("files") or []:
            if file.get("encoding") is None:
                continue
            confidence = file.get("confidence")
            rows.append(
                {
                    "source": name,
                    "file": str(file.get("path") or file.get("file") or file.get("name")),
                    "encoding": str(file["encoding"]),
                    "confidence": 1.0 if confidence is None else float(confidence),
                }
            )
        more = int(facts.get("file_count") or 0) - len(facts.get("files") or [])
        if more > 0 and facts.get("lowest_confidence") is not None:
            # Of very many files the first are listed; the least certain of all stands for the others.
            lowest = float(facts["lowest_confidence"])
            rows.append({"source": name, "file": f"{more:,} more", "encoding": "any", "confidence": lowest})
    table = pd.DataFrame(rows, columns=["source", "file", "encoding", "confidence"])
    return table.astype({"confidence": "float64"})


def split_table(files: CorpusFiles, found: Survey) -> pd.DataFrame:
    """Table ``splits``: documents and sentences of each split, and the distance of its share from the one wanted."""
    wanted = files.metrics["split_shares"]
    absent = [split for split in SPLITS if split not in wanted]
    if absent:
        raise ArtifactError(f"split_shares of the counts of ingest has no {', '.join(absent)}", remedy=rerun("ingest"))
    documents = np.bincount(found.documents.split, minlength=len(SPLITS) + 1).tolist()
    rows = [
        {
            "split": split,
            "documents": documents[number],
            "sentences": found.sentences[split],
            "share": documents[number] / max(len(found.documents), 1),
            "share_wanted": float(wanted[split]),
        }
        for number, split in enumerate(SPLITS)
    ]
    table = pd.DataFrame(rows)
    return table.assign(deviation=(table["share"] - table["share_wanted"]).abs())


def leakage_table(files: CorpusFiles, found: Survey) -> pd.DataFrame:
    """Table ``leakage``: test examples of each task, and those that stand in pretraining text."""
    leaked: dict[str, set[str]] = {}
    dropped: dict[str, set[str]] = {}
    for table in files.leaks.batches():
        values = (table.column(name).to_pylist() for name in ("task", "example_id", "dropped"))
        for task, example, out in zip(*values, strict=True):
            (dropped if out else leaked).setdefault(str(task), set()).add(str(example))
    rows = []
    for task in sorted({*found.examples, *leaked, *dropped}):
        part = found.examples.get(task)
        tests = 0 if part is None else int((part.split == SPLITS.index("test")).sum())
        inside = len(leaked.get(task, ()))
        rows.append(
            {
                "task": task,
                "test_examples": tests,
                "leaked": inside,
                "dropped": len(dropped.get(task, set()) - leaked.get(task, set())),
                "leaked_share": _share(inside, tests) if tests else float(inside > 0),
            }
        )
    return pd.DataFrame(rows, columns=["task", "test_examples", "leaked", "dropped", "leaked_share"])


def task_split_table(file: TableFile, kind: TaskKind) -> pd.DataFrame:
    """Table ``task_TASK_splits``: examples of each split, its labels or values, and the share of the most frequent."""
    examples: Counter[str] = Counter()
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for table in file.batches(["split", kind.column]):
        answers = table.column(kind.column).to_pylist()
        for split, answer in zip(table.column("split").to_pylist(), answers, strict=True):
            examples[split] += 1
            if split in counts and answer is not None:
                counts[split].update([answer] if kind.target == "value" else labels_of(answer, kind.target))
    known = set(counts["train"])
    # Of numbers the table has no names: nearly each may be another.
    named = kind.target != "value"
    rows = [
        {
            "split": split,
            "examples": examples[split],
            "labels": ", ".join(sorted(counts[split])) if named else "",
            "unseen_labels": ", ".join(sorted(set(counts[split]) - known)) if named else "",
            "label_count": len(counts[split]),
            "majority_share": _share(max(counts[split].values(), default=0), counts[split].total()),
        }
        for split in SPLITS
    ]
    table = pd.DataFrame(rows)
    return table.assign(labels_of_train=table["labels"].iloc[0])


def _share(part: int, whole: int) -> float:
    """A share; nothing of nothing has none."""
    return part / whole if whole else float("nan")


def _quantile(values: NDArray[Any], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else float("nan")
