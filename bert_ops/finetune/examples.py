"""Labelled examples of a task: read, checked and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.errors import InputError
from bert_ops.finetune.encoding import Rows, encode
from bert_ops.finetune.params import TaskParams
from bert_ops.finetune.problems import AnyProblem, problem_class
from bert_ops.finetune.problems.base import Items
from bert_ops.io import read_parquet
from bert_ops.tokenizer.wordpiece import SpecialIds, special_ids

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
COLUMNS = ["example_id", "split", "text", "pair", "label", "spans", "cluster"]


@dataclass(frozen=True)
class Split:
    """Examples of one split.

    Args:
        example_ids: (N,) identifiers.
        texts: (N,) texts.
        pairs: (N,) second texts, or None.
        clusters: (N,) names of clusters; near-duplicates have one in common.
        truth: (N,) true answers, as the task's problem reads them.
        rows: what the model reads.
        items: what it answers for, M of them.
        targets: (M, …) what its answers are compared with.

    """

    example_ids: list[str]
    texts: list[str]
    pairs: list[str] | None
    clusters: list[str]
    truth: list[Any]
    rows: Rows
    items: Items
    targets: NDArray[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, chosen: NDArray[np.int64]) -> Split:
        """Some of the examples, in the order given."""
        rows, places = self.rows.of_examples(chosen)
        starts = self.items.starts
        picked = np.concatenate([np.zeros(0, np.int64), *(np.arange(starts[i], starts[i + 1]) for i in places)])
        counts = (starts[1:] - starts[:-1])[places]
        return Split(
            example_ids=[self.example_ids[i] for i in chosen],
            texts=[self.texts[i] for i in chosen],
            pairs=None if self.pairs is None else [self.pairs[i] for i in chosen],
            clusters=[self.clusters[i] for i in chosen],
            truth=[self.truth[i] for i in chosen],
            rows=rows,
            items=Items(
                self.items.places[picked], np.concatenate([[0], np.cumsum(counts)]), np.repeat(rows.owner, counts)
            ),
            targets=self.targets[picked],
        )


@dataclass(frozen=True)
class TaskData:
    """A task's problem with its labels, its splits, and the ids of the tokenizer's special tokens."""

    problem: AnyProblem
    splits: dict[str, Split]
    special: SpecialIds

    @property
    def labels(self) -> list[str]:
        """Names of the outputs."""
        return self.problem.labels


def read_examples(path: Path) -> pd.DataFrame:
    """Read a task's examples as ingest wrote them.

    Raises:
        ArtifactError: the file is missing, damaged or lacks a column.
        InputError: a split is empty, or only some examples are pairs.

    """
    frame = read_parquet(path, columns=COLUMNS, made_by="ingest")
    counts = frame["split"].value_counts()
    empty = [split for split in SPLITS if not counts.get(split)]
    if empty:
        raise InputError(
            f"{path}: no example in the {' and '.join(empty)} split ({len(frame)} examples in all)",
            remedy="add labelled examples, or change ingest.split",
        )
    alone = int(frame["pair"].isna().sum())
    if alone not in (0, len(frame)):
        raise InputError(
            f"{path}: {alone} of {len(frame)} examples are single texts, the others pairs",
            remedy="give every source of the task a `pair`, or none (ingest.sources)",
        )
    return frame


def encode_examples(frame: pd.DataFrame, tokenizer: Tokenizer, task: TaskParams) -> TaskData:
    """Check and encode all splits; the labels are those of the training split, sorted.

    Raises:
        InputError: examples have no answer or one of another form, training has nothing to tell apart, or another
            split has labels that training never saw.

    """
    kind = problem_class(task)
    parts = {name: frame[frame["split"] == name] for name in SPLITS}
    truths: dict[str, list[Any]] = {name: kind.read(part) for name, part in parts.items()}
    problem = kind.infer(truths["train"], task)
    for name in SPLITS[1:]:
        problem.check(truths[name], split=name)
    splits = {
        name: encode_split(
            part["example_id"].tolist(),
            part["text"].tolist(),
            None if part["pair"].isna().any() else part["pair"].tolist(),
            part["cluster"].tolist(),
            truths[name],
            tokenizer=tokenizer,
            task=task,
            problem=problem,
        )
        for name, part in parts.items()
    }
    return TaskData(problem=problem, splits=splits, special=special_ids(tokenizer))


def encode_split(
    example_ids: list[str],
    texts: list[str],
    pairs: list[str] | None,
    clusters: list[str],
    truth: list[Any],
    *,
    tokenizer: Tokenizer,
    task: TaskParams,
    problem: AnyProblem,
) -> Split:
    """Encode examples whose answers the problem knows."""
    rows = encode(
        tokenizer,
        texts,
        pairs,
        max_tokens=task.max_tokens,
        truncation=task.truncation,
        with_offsets=problem.with_offsets,
    )
    items = problem.items(rows)
    return Split(example_ids, texts, pairs, clusters, truth, rows, items, problem.targets(truth, rows, items))


def joined(first: Split, second: Split) -> Split:
    """Examples of two splits as one."""
    a, b = first.rows, second.rows
    rows = Rows(
        ids=a.ids + b.ids,
        segments=None if a.segments is None or b.segments is None else a.segments + b.segments,
        owner=np.concatenate([a.owner, b.owner + a.examples]),
        examples=a.examples + b.examples,
        offsets=None if a.offsets is None or b.offsets is None else a.offsets + b.offsets,
        cut=a.cut + b.cut,
    )
    items = Items(
        np.concatenate([first.items.places, second.items.places]),
        np.concatenate([first.items.starts, second.items.starts[1:] + len(first.items)]),
        np.concatenate([first.items.example, second.items.example + a.examples]),
    )
    return Split(
        example_ids=first.example_ids + second.example_ids,
        texts=first.texts + second.texts,
        pairs=None if first.pairs is None or second.pairs is None else first.pairs + second.pairs,
        clusters=first.clusters + second.clusters,
        truth=first.truth + second.truth,
        rows=rows,
        items=items,
        targets=np.concatenate([first.targets, second.targets]),
    )


def describe(data: TaskData) -> Sequence[str]:
    """Lines on what was read: examples, windows, texts that the model sees in part."""
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    lines = [f"{counts} examples; labels: {', '.join(data.labels[:20])}{', …' if len(data.labels) > 20 else ''}"]
    train = data.splits["train"].rows
    if train.cut:
        lines.append(f"{train.cut:,} of {train.examples:,} training texts are longer than the model reads and are cut")
    elif len(train) > train.examples:
        lines.append(f"training texts are read in {len(train):,} windows")
    return lines
