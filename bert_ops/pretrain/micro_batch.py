"""Rows of a unit: as params.yaml says, or the most that fit into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bert_ops.errors import InputError
from bert_ops.io import read_json, write_json
from bert_ops.model.encoder import PretrainingModel
from bert_ops.pretrain import objective
from bert_ops.pretrain.batch import NO_PAIR, PackedBatch
from bert_ops.pretrain.params import PretrainParams
from bert_ops.progress import note
from bert_ops.training.device import arithmetic
from bert_ops.training.memory import largest_micro_batch
from bert_ops.training.workers import Workers


def rows_of_a_unit(model: PretrainingModel, params: PretrainParams, *, workers: Workers, folder: Path | None) -> int:
    """Rows that a process reads in one pass.

    What ``auto`` finds is written into the run's folder, because a unit is part of what a result depends on: a resumed
    run, on however busy a machine, goes on with it.

    Raises:
        InputError: the batch cannot be divided among the processes.

    """
    if params.batch.micro_tokens != "auto":
        return params.batch.micro_tokens // params.sequence_tokens
    rows, left = divmod(params.batch.tokens // params.sequence_tokens, workers.world)
    if left or not rows:
        raise InputError(
            f"pretrain.batch.tokens {params.batch.tokens} are {params.batch.tokens // params.sequence_tokens} rows, "
            f"which {workers.world} processes cannot share evenly",
            remedy=f"make it a multiple of {workers.world * params.sequence_tokens}",
        )
    path = None if folder is None else folder / "micro_batch.json"
    if path is not None and path.is_file():
        return int(read_json(path, made_by="pretrain")["rows"])
    fits = largest_micro_batch(lambda n: _probe(model, params, rows=n), low=1, high=rows, device=workers.device)
    found = max(n for n in range(1, min(fits, rows) + 1) if rows % n == 0)
    found = round(workers.sum({"rows": found})["rows"] / workers.world)
    note(f"pretrain: a pass reads {found} rows ({found * params.sequence_tokens:,} tokens): what fits into memory")
    if path is not None and workers.is_first:
        write_json(path, {"rows": found})
    return found


def _probe(model: PretrainingModel, params: PretrainParams, *, rows: int) -> None:
    """Forward and backward over a unit of the size and the worst shape that training meets."""
    batch = _full_unit(params, rows=rows, vocab_size=model.config.vocab_size)
    model.train()
    with arithmetic(model, params.precision):
        loss = objective.loss(model, batch)
        total = torch.stack([value / max(batch.counts[name], 1) for name, value in loss.sums.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)


def _full_unit(params: PretrainParams, *, rows: int, vocab_size: int) -> PackedBatch:
    """A unit without padding, one example a row, with as many masked tokens as the recipe ever has."""
    tokens = params.sequence_tokens
    rate = max(params.masking.rate, params.masking.final_rate)
    masked = np.arange(0, rows * tokens, max(1, int(1 / rate)))
    shape = (rows, tokens)
    return PackedBatch(
        ids=np.full(shape, vocab_size - 1),
        segments=np.zeros(shape, np.int64),
        positions=np.broadcast_to(np.arange(tokens), shape).copy(),
        examples=np.ones(shape, np.int16),
        masked=masked,
        targets=np.full(len(masked), vocab_size - 1),
        cls=np.arange(0, rows * tokens, tokens),
        pair=np.full(rows, NO_PAIR if params.sentence_objective == "none" else 0),
        bounds=np.arange(0, rows * tokens + 1, tokens, dtype=np.int32),
        longest=tokens,
        unit=0,
    )
