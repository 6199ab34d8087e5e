"""Token stores made by tests: every token of the split has an id of its own, so that a batch tells what was read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_ops.pretrain.batch import PackedBatch
from bert_ops.pretrain.masking import MaskingRates
from bert_ops.pretrain.stream import UnitStream
from bert_ops.tokenizer.store import SplitView, TokenStore, dtype_for
from bert_ops.tokenizer.store_writer import SplitWriter, write_manifest
from bert_ops.tokenizer.wordpiece import SpecialIds

#: Id of the first token; those before it are special.
FIRST = len(SpecialIds())


def made_store(
    folder: Path,
    documents: Sequence[Sequence[int]],
    *,
    repeats: Sequence[int] | None = None,
    word_starts: np.ndarray | None = None,
    shard_tokens: int = 200,
    split: str = "train",
) -> SplitView:
    """A store of documents, each the lengths of its sentences; token t has the id FIRST + t."""
    folder.mkdir(parents=True, exist_ok=True)
    lengths = np.array([length for document in documents for length in document], np.int64)
    begins = np.concatenate([np.arange(len(document)) == 0 for document in documents])
    tokens = int(lengths.sum())
    dtype = dtype_for(FIRST + tokens)
    writer = SplitWriter(folder, split, dtype=dtype, shard_tokens=shard_tokens)
    writer.extend(
        np.arange(FIRST, FIRST + tokens).astype(dtype),
        np.ones(tokens, np.bool_) if word_starts is None else word_starts,
        lengths,
        begins,
        repeats=np.array(repeats or [1] * len(documents), np.uint8),
    )
    write_manifest(
        folder,
        vocab_size=FIRST + tokens,
        vocab_sha256="x",
        special_ids=SpecialIds(),
        splits={split: writer.close()},
    )
    return TokenStore.open(folder)[split]


def made_documents(count: int, *, seed: int, longest: int = 40, sentences: int = 7) -> list[list[int]]:
    """Documents of one sentence to ``sentences``, of one token to ``longest``."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, longest + 1, rng.integers(1, sentences + 1)).tolist() for _ in range(count)]


def made_stream(view: SplitView, **changes: Any) -> UnitStream:
    """A stream of small units."""
    settings: dict[str, Any] = {
        "sequence_tokens": 32,
        "rows": 4,
        "sentence_objective": "nsp",
        "masking": MaskingRates(mask=0.8, random=0.1),
        "whole_words": False,
        "vocab_size": FIRST + view.tokens,
        "seed": 3,
        "rate_at": lambda _: 0.15,
    }
    return UnitStream(view, **(settings | changes))


def clean(batch: PackedBatch) -> np.ndarray:
    """Ids of a batch before corruption, flat."""
    ids = batch.ids.reshape(-1).copy()
    ids[batch.masked] = batch.targets
    return ids


def document_of(view: SplitView, tokens: np.ndarray) -> np.ndarray:
    """Document of each token of the split."""
    sentences = np.searchsorted(view.sentence_ends, tokens, side="right") - 1
    return np.searchsorted(view.document_ends, sentences, side="right") - 1


def same(one: PackedBatch, two: PackedBatch) -> bool:
    """Whether two batches are equal in every field."""
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in PackedBatch.__dataclass_fields__)
