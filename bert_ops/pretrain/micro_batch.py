"""Rows of a unit: as params.yaml says, or the most that fit into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import read_json, write_json
from bert_ops.model.heads import PretrainingModel
from bert_ops.pretrain import objective
from bert_ops.pretrain.batch import NO_PAIR, PackedBatch
from bert_ops.pretrain.params import PretrainParams
from bert_ops.progress import note
from bert_ops.training.batch_size import BatchSize, smallest_step
from bert_ops.training.device import arithmetic
from bert_ops.training.memory import SHARE, largest_micro_batch
from bert_ops.training.schedule import check
from bert_ops.training.workers import Workers

#: What ``auto`` found, in the run's folder.
FILE = "micro_batch.json"

#: Tokens of a pass for each thread of a CPU beyond which nothing was gained (one thread, a busy machine): with
#: tiny and mini a token took no less time from 1024 on; with tiny 1.2 times as much at 8192 and 1.4 times at 16,384.
CPU_TOKENS = 2048


def rows_of_a_unit(model: PretrainingModel, params: PretrainParams, *, workers: Workers, folder: Path | None) -> int:
    """Rows that a process reads in one pass.

    What ``auto`` finds is written into the run's folder, because a unit is part of what a result depends on: a resumed
    run, on however busy a machine, goes on with it.

    Args:
        model: what is trained; its gradients are lost.
        params: the section of params.yaml.
        workers: the processes; all go on with what the one with the least memory found.
        folder: of the run, or None to remember nothing.

    Raises:
        InputError: the batch cannot be divided among the processes, or not even one row fits into memory.
        ArtifactError: what was remembered is damaged.

    """
    if params.batch.micro_tokens != "auto":
        return params.batch.micro_tokens // params.sequence_tokens
    path = None if folder is None else folder / FILE
    if path is not None and path.is_file():
        return _remembered(path)
    sizes = useful_rows(params, world=workers.world, device=workers.device)
    try:
        fits = largest_micro_batch(
            lambda rows: _probe(model, params, rows=rows),
            low=1,
            high=sizes[-1],
            device=workers.device,
            reserved=_taken_later(model, params, device=workers.device),
            # Each process has a GPU of its own, but all of them share the machine's memory.
            share=SHARE if workers.device.type == "cuda" else SHARE / workers.world,
        )
    finally:
        model.zero_grad(set_to_none=True)
    # A sum over processes, each under a name of its own, tells every process what all of them found.
    found = workers.sum({str(rank): float(fits if rank == workers.rank else 0) for rank in range(workers.world)})
    rows = max(n for n in sizes if n <= min(found.values()))
    whole = rows == sizes[-1] < possible_rows(params, world=workers.world)[-1]
    why = "more are no faster on a CPU" if whole else "the most that fit into memory"
    note(f"pretrain: a pass reads {rows} rows ({rows * params.sequence_tokens:,} tokens): {why}")
    if path is not None and workers.is_first:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"rows": rows})
    return rows


def check_steps(params: PretrainParams, *, world: int) -> None:
    """Refuse a schedule, or a batch for so many processes, that no run can have, before anything is built.

    Raises:
        InputError: the schedule does not fit the run, or the batch cannot be divided into passes.

    """
    check(params.schedule, total_steps=params.steps)
    if params.batch.micro_tokens == "auto":
        possible_rows(params, world=world)
    else:
        BatchSize(params.batch, unit_tokens=params.batch.micro_tokens, world=world)


def possible_rows(params: PretrainParams, *, world: int) -> list[int]:
    """Rows, ascending, that a unit may have so that the steps of a run are whole units of every process.

    A batch that grows begins with a step of one unit a process; one that follows the noise scale with two, because the
    scale is estimated from a part and the whole of a step.

    Raises:
        InputError: the batch cannot be divided among the processes.

    """
    tokens, T = params.batch.tokens, params.sequence_tokens
    rows, left = divmod(tokens, T * world)
    if left or not rows:
        raise InputError(
            f"pretrain.batch.tokens {tokens} are {tokens // T} rows, which {world} processes cannot share evenly",
            allowed=f"{world * T}, {2 * world * T}, …",
            remedy="correct it, or change the number of processes",
        )
    growth = params.batch.growth
    units = 2 if growth.kind == "noise_scale" else 1
    most = smallest_step(params.batch) // (T * world * units)
    sizes = [n for n in range(1, most + 1) if rows % n == 0]
    if not sizes:
        name = "min_tokens" if growth.kind == "noise_scale" else "start_tokens"
        raise InputError(
            f"pretrain.batch.growth.{name} {smallest_step(params.batch)} has no room for {units} × {T} tokens "
            f"for each of {world} processes",
            allowed=f"at least {units * T * world}",
            remedy="raise it",
        )
    return sizes


def useful_rows(params: PretrainParams, *, world: int, device: torch.device) -> list[int]:
    """Those of :func:`possible_rows` that are worth a try; on a CPU as many as keep its threads busy, one at least.

    Raises:
        InputError: as :func:`possible_rows`.

    """
    sizes = possible_rows(params, world=world)
    if device.type != "cpu":
        return sizes
    most = CPU_TOKENS * params.threads // params.sequence_tokens
    return [n for n in sizes if n <= most] or sizes[:1]


def _remembered(path: Path) -> int:
    value = read_json(path, made_by="pretrain")
    rows = value.get("rows") if isinstance(value, dict) else None
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ArtifactError(
            f'{path} is damaged: it should hold the rows of a pass as {{"rows": 8}}',
            remedy="remove the folder, and training begins anew",
        )
    return rows


def _taken_later(model: PretrainingModel, params: PretrainParams, *, device: torch.device) -> int:
    """Bytes that training allocates after the search: moments, moving average, and the copy of a checkpoint."""
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    copies = {"adamw": 2, "sgd": 1}[params.optimizer.kind] + (1 if params.averaging.decay else 0)
    # A checkpoint is written from a copy of weights, moments and average, which lies in the machine's memory.
    return trained * (copies if device.type == "cuda" else 2 * copies + 1)


def _probe(model: PretrainingModel, params: PretrainParams, *, rows: int) -> None:
    """Forward and backward over a unit of the size and the worst shape that training meets; gradients stay."""
    batch = _full_unit(params, rows=rows, vocab_size=model.config.vocab_size)
    model.train()
    with arithmetic(model, params.precision):
        loss = objective.loss(model, batch)
        total = torch.stack([value / max(batch.counts[name], 1) for name, value in loss.sums.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]


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
