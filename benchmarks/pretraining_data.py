"""Data of the pretraining benchmark: the token store, or one made up, and examples in the form that each peer takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.io import write_json
from bert_ops.model.sizes import load_preset
from bert_ops.pretrain import fitting
from bert_ops.pretrain.batch import PackedBatch
from bert_ops.pretrain.params import PretrainParams
from bert_ops.seeding import generator
from bert_ops.tokenizer.store import FORMAT, SplitView, TokenStore, dtype_for, manifest_checksum
from bert_ops.tokenizer.store_writer import SplitWriter
from bert_ops.tokenizer.wordpiece import SpecialIds

#: Share of the tokens that everybody predicts.
MASKED_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contenders share.

    Args:
        section: ``pretrain`` of params.yaml.
        tokens: folder of the token store.
        model: preset.
        vocab_size: rows of the embedding, at least the store's vocabulary.
        sequence_tokens: T, tokens of a row.
        rows: R, rows of a batch whose rows are full.
        threads: of every process.
        device: "cpu" or "cuda".
        seed: of all draws.

    """

    section: dict[str, Any]
    tokens: Path
    model: str
    vocab_size: int
    sequence_tokens: int
    rows: int
    threads: int
    device: str
    seed: int = 1

    @cached_property
    def store(self) -> TokenStore:
        """The token store, with the vocabulary of the setting."""
        store = TokenStore.open(self.tokens)
        return replace(store, manifest={**store.manifest, "vocab_size": self.vocab_size})

    @property
    def batch_tokens(self) -> int:
        """Tokens of a full batch."""
        return self.rows * self.sequence_tokens

    def params(self, **changes: Any) -> PretrainParams:
        """Parameters of our side: those of the project's params.yaml, with the sizes of the setting."""
        section, model = self.section, load_preset(self.model)
        if self.sequence_tokens > model.max_positions:
            raise SystemExit(f"--sequence-tokens {self.sequence_tokens}: at most {model.max_positions}")
        section = section | {
            "seed": self.seed,
            "precision": "auto",
            "schedule": {"kind": "constant", "warmup_steps": 0},
            "threads": self.threads,
            "model": model.model_dump(),
            "embedding_init": {**section["embedding_init"], "kind": "normal"},
            "position_init": "normal",
            "sequence_tokens": self.sequence_tokens,
            "batch": {
                "tokens": self.batch_tokens,
                "micro_tokens": self.batch_tokens,
                "growth": {"kind": "constant"},
            },
            "masking": {
                **section["masking"],
                "rate": MASKED_SHARE,
                "final_rate": MASKED_SHARE,
                "mask": 0.8,
                "random": 0.1,
                "whole_words": False,
            },
        }
        return PretrainParams(**(section | changes))


@dataclass(frozen=True)
class Example:
    """An example as BERT's recipe makes it: ids with ``[CLS]`` and ``[SEP]``, segments, and the pair's label."""

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    pair: int


def examples(setting: Setting, count: int | None) -> list[Example]:
    """The first examples that our side trains on, before masking, each by itself; None for a whole epoch."""
    stream = fitting.make_stream(
        setting.store["train"], setting.params(), vocab_size=setting.vocab_size, rows=setting.rows
    )
    found: list[Example] = []
    for batch, position in stream.units(None):
        found.extend(unpacked(batch))
        if (count is not None and len(found) >= count) or position["epoch"]:
            break
    return found[:count]


def mean_reach(setting: Setting) -> float:
    """Tokens of the example that a real token stands in, on average: how far attention has to reach."""
    lengths = np.array([len(example.ids) for example in examples(setting, 4096)], np.float64)
    return float((lengths**2).sum() / lengths.sum())


def unpacked(batch: PackedBatch) -> Iterator[Example]:
    """The examples of a packed batch, their masked tokens put back."""
    ids, segments = batch.ids.reshape(-1).copy(), batch.segments.reshape(-1)
    ids[batch.masked] = batch.targets
    ends = batch.bounds[np.searchsorted(batch.bounds, batch.cls) + 1]
    for start, end, pair in zip(batch.cls, ends, batch.pair, strict=True):
        yield Example(ids[start:end], segments[start:end], int(pair))


def chunks(view: SplitView, *, tokens: int, limit: int | None = None) -> NDArray[np.int64]:
    """All documents, each with ``[CLS]`` and ``[SEP]``, one after the other, cut into rows of ``tokens``.

    As `run_mlm.py` of transformers does; what is left at the end is dropped, as there.
    """
    parts: list[NDArray[Any]] = []
    size = 0
    for document in range(view.documents):
        first, last = view.document(document)
        ids = view.span(int(view.sentence_ends[first]), int(view.sentence_ends[last]))
        parts.append(np.concatenate([[view.special.cls], ids, [view.special.sep]]))
        size += len(parts[-1])
        if limit is not None and size >= limit * tokens:
            break
    flat = np.concatenate(parts).astype(np.int64)
    rows = len(flat) // tokens
    return flat[: rows * tokens].reshape(rows, tokens)


def made_up_store(folder: Path, *, vocab_size: int, seed: int = 1, documents: int = 30_000) -> Path:
    """Write a store of random ids: frequencies after Zipf, lengths as in the project's sample of Chinese text.

    There a document has 84.6 tokens in 2.4 sentences on average; the logarithms of both lengths are near normal.
    """
    rng = generator(seed, "made up")
    special = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
    shares = 1.0 / np.arange(10, vocab_size - len(special) + 10)
    dtype = dtype_for(vocab_size)
    entries: dict[str, Any] = {}
    for split, count in {"train": documents, "validation": documents // 10}.items():
        writer = SplitWriter(folder, split, dtype=dtype, shard_tokens=2**23)
        sentences = rng.geometric(1 / 2.446, count)
        lengths = np.clip(np.exp(rng.normal(3.275, 0.773, int(sentences.sum()))).round(), 1, 1000).astype(np.int64)
        ids = rng.choice(len(shares), size=int(lengths.sum()), p=shares / shares.sum()) + len(special)
        writer.extend(
            ids.astype(dtype),
            np.ones(len(ids), np.bool_),
            lengths,
            np.isin(np.arange(len(lengths)), np.cumsum(sentences) - sentences),
            repeats=np.ones(count, np.uint8),
        )
        entries[split] = writer.close()
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "dtype": dtype.str,
        "vocab_size": vocab_size,
        "vocab_sha256": "made up",
        "special_ids": special._asdict(),
        "splits": entries,
    }
    write_json(folder / "manifest.json", {**manifest, "checksum": manifest_checksum(manifest)})
    return folder
