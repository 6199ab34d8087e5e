"""Labelled examples of a task: read, checked, encoded and batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bert_ops.errors import InputError
from bert_ops.io import read_parquet
from bert_ops.seeding import generator
from bert_ops.tokenizer.wordpiece import PAD, SpecialIds, special_ids

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")

#: Batches whose examples are sorted by length together: enough to save padding, few enough to stay random.
SORT_WINDOW = 50


@dataclass(frozen=True)
class Split:
    """Examples of one split.

    Args:
        example_ids: (N,) identifiers.
        texts: (N,) texts.
        targets: (N,) class ids, int64.
        ids: (N,) token id arrays, special tokens included.

    """

    example_ids: list[str]
    texts: list[str]
    targets: NDArray[np.int64]
    ids: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TaskData:
    """A task's labels (index = class id), its splits, and the ids of the tokenizer's special tokens."""

    labels: list[str]
    splits: dict[str, Split]
    special: SpecialIds


def read_examples(path: Path) -> pd.DataFrame:
    """Read a task's examples as ingest wrote them.

    Raises:
        ArtifactError: the file is missing, damaged or lacks a column.
        InputError: a split is empty, a label is missing, there is one class only, or a label occurs that training
            never saw.

    """
    frame = read_parquet(path, columns=["example_id", "split", "text", "label"], made_by="ingest")
    counts = frame["split"].value_counts()
    empty = [split for split in SPLITS if not counts.get(split)]
    if empty:
        raise InputError(
            f"{path}: no example in the {' and '.join(empty)} split ({len(frame)} examples in all)",
            remedy="add labelled examples, or change ingest.split",
        )
    if frame["label"].isna().any():
        raise InputError(
            f"{path}: {int(frame['label'].isna().sum())} examples have no label",
            remedy="name the column that holds it in ingest.sources.SOURCE.label",
        )
    seen = sorted(frame.loc[frame["split"] == "train", "label"].unique())
    if len(seen) < 2:
        raise InputError(f"{path}: the training split holds one label only: {seen[0]!r}", allowed="at least two")
    unseen = sorted(set(frame["label"]) - set(seen))
    if unseen:
        raise InputError(
            f"{path}: labels that training never saw: {', '.join(map(repr, unseen))}",
            allowed=", ".join(map(repr, seen)),
            remedy="add training examples of them, or correct the labels",
        )
    return frame


def encode_examples(frame: pd.DataFrame, tokenizer: Tokenizer, *, max_tokens: int) -> TaskData:
    """Encode all splits; labels are the sorted distinct labels of the training split."""
    labels = sorted(frame.loc[frame["split"] == "train", "label"].unique())
    index = {label: number for number, label in enumerate(labels)}
    splits = {}
    for name in SPLITS:
        part = frame[frame["split"] == name]
        splits[name] = Split(
            example_ids=part["example_id"].tolist(),
            texts=part["text"].tolist(),
            targets=np.array([index[label] for label in part["label"]], np.int64),
            ids=encode_texts(tokenizer, part["text"].tolist(), max_tokens=max_tokens),
        )
    return TaskData(labels=labels, splits=splits, special=special_ids(tokenizer))


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int) -> list[NDArray[np.int64]]:
    """Encode texts, keeping the head of those that are too long; each gets ``[CLS]`` and ``[SEP]``."""
    tokenizer.enable_truncation(max_tokens)
    try:
        return [np.asarray(encoding.ids, np.int64) for encoding in tokenizer.encode_batch_fast(list(texts))]
    finally:
        tokenizer.no_truncation()


def pad(rows: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Stack id arrays into (B, T) ids and an attention mask that is False on padding."""
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    ids = np.full((len(rows), int(lengths.max(initial=1))), PAD, np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return ids, np.arange(ids.shape[1]) < lengths[:, None]


def batch_order(lengths: NDArray[np.int64], *, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Batches of one epoch: random, but with examples of similar length together to save padding.

    Every example occurs exactly once; the order depends on the seed and the epoch alone.
    """
    rng = generator(seed, "batches", epoch)
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), batch * SORT_WINDOW):
        window = order[start : start + batch * SORT_WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[i : i + batch] for i in range(0, len(window), batch)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batches_from(split: Split, step: int, *, batch: int, seed: int) -> Iterator[NDArray[Any]]:
    """Yield batches of row numbers for ever, beginning with the one of ``step``."""
    lengths = np.fromiter((len(ids) for ids in split.ids), np.int64, len(split))
    per_epoch = len(batch_order(lengths, batch=batch, seed=seed, epoch=0))
    epoch, skip = divmod(step, per_epoch)
    while True:
        yield from batch_order(lengths, batch=batch, seed=seed, epoch=epoch)[skip:]
        epoch, skip = epoch + 1, 0
