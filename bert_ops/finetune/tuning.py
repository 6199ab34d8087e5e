"""Tuning a classifier: the one procedure behind the fine-tuned model and the network without pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from bert_ops.errors import InputError
from bert_ops.finetune.examples import Split, TaskData, batch_order, batches_from, pad
from bert_ops.finetune.inference import predict_logits
from bert_ops.finetune.params import FinetuneParams, TaskParams
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig, TaskModel
from bert_ops.seeding import generator
from bert_ops.tokenizer.wordpiece import SpecialIds
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.device import pick_device, prepare
from bert_ops.training.loop import Loss, Plan, Row, Run, train
from bert_ops.training.optimizer import build_optimizer


@dataclass(frozen=True)
class Batch:
    """Examples of a step.

    Args:
        unit: number of the batch.
        rows: (B,) int64, places in the split.
        ids: (B, T) int64, padded.
        attend: (B, T) bool, False on padding.

    """

    unit: int
    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    attend: NDArray[np.bool_]

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.attend.sum())

    @property
    def counts(self) -> dict[str, int]:
        """Examples that the loss is a mean of."""
        return {"loss": len(self.rows)}


def halves(batch: Batch, parts: int) -> list[Batch]:
    """The batch in up to ``parts`` smaller ones, for passes that do not fit into memory."""
    cuts = [cut for cut in np.array_split(np.arange(len(batch.rows)), parts) if len(cut)]
    return [Batch(batch.unit, batch.rows[cut], batch.ids[cut], batch.attend[cut]) for cut in cuts]


#: Parts of a pretrained model that a task model takes over; its classifier starts new.
PRETRAINED_PARTS = ("encoder.", "pooler.")


@dataclass(frozen=True)
class Tuned:
    """A tuned model, its history, and the validation losses behind it, float32 (evaluations, examples)."""

    model: TaskModel
    run: Run
    validation_losses: NDArray[np.float32]


def tune(
    data: TaskData,
    *,
    config: EncoderConfig,
    pretrained: Path | None,
    task: TaskParams,
    params: FinetuneParams,
    what: str,
) -> Tuned:
    """Tune a classifier on the training split; the weights of the lowest validation loss are kept.

    Args:
        data: encoded examples.
        config: architecture of the encoder.
        pretrained: model folder to start from, or None to start from random weights.
        task: the task.
        params: how to tune; the same for both starting points, so that they compare.
        what: name for the progress line.

    Raises:
        InputError: ``task.max_tokens`` exceeds the positions of the encoder, or training diverged.

    """
    if task.max_tokens > config.max_positions:
        raise InputError(
            f"`max_tokens` of the task is {task.max_tokens}, more than the encoder's {config.max_positions} positions",
            allowed=f"at most {config.max_positions}",
            remedy="lower tasks.TASK.max_tokens, or raise pretrain.model.max_positions",
        )
    prepare(threads=params.threads, seed=params.seed)
    config = replace(config, hidden_dropout=params.hidden_dropout, attention_dropout=params.attention_dropout)
    model = TaskModel(config, labels=len(data.labels), kind=task.kind, classifier_dropout=params.classifier_dropout)
    if pretrained is not None:
        huggingface.fill(model, pretrained, made_by="pretrain", prefixes=PRETRAINED_PARTS)
    model.to(pick_device())
    losses: list[NDArray[np.float32]] = []
    run = train(make_plan(data, params, what=what, losses=losses), model, build_optimizer(model, params.optimizer))
    return Tuned(model=model, run=run, validation_losses=np.stack(losses))


def make_plan(data: TaskData, params: FinetuneParams, *, what: str, losses: list[NDArray[np.float32]]) -> Plan[Batch]:
    """Build the plan of the run; each evaluation appends its per-example validation losses to ``losses``."""
    split = data.splits["train"]
    lengths = np.fromiter((len(ids) for ids in split.ids), np.int64, len(split))
    per_epoch = len(batch_order(lengths, batch=params.batch_examples, seed=params.seed, epoch=0))
    total = per_epoch * params.epochs
    evaluations = params.epochs * params.evaluations_per_epoch
    probe = _probe(split, params)

    def evaluate(model: nn.Module) -> Row:
        task_model = cast(TaskModel, model)
        train_losses, _ = _measure(task_model, probe, params)
        validation_losses, right = _measure(task_model, data.splits["validation"], params)
        losses.append(validation_losses)
        return {
            "epoch": float(len(losses)) / params.evaluations_per_epoch,
            "train_loss": float(train_losses.mean(dtype=np.float64)),
            "validation_loss": float(validation_losses.mean(dtype=np.float64)),
            "validation_accuracy": float(right.mean()),
        }

    def units(position: dict[str, int] | None) -> Iterator[tuple[Batch, dict[str, int]]]:
        step = 0 if position is None else position["step"]
        for number, rows in enumerate(batches_from(split, step, batch=params.batch_examples, seed=params.seed), step):
            rng = generator(params.seed, "masking", number)
            ids, attend = pad([split.ids[i] for i in rows])
            masked = mask_tokens(ids, rate=params.token_masking, rng=rng, special=data.special)
            yield Batch(number, rows, masked, attend), {"step": number + 1}

    due = {round(total * (i + 1) / evaluations) for i in range(evaluations)}
    return Plan(
        what=what,
        seed=params.seed,
        total_steps=total,
        units=units,
        batch=BatchSize.of_one_unit(params.batch_examples),
        loss=lambda model, batch: _loss(model, split, batch),
        split=halves,
        average_decay=params.average_decay,
        schedule=params.schedule.over(total),
        evaluate=evaluate,
        evaluate_at=due.__contains__,
        best="validation_loss",
        clipping=params.clipping,
        precision=params.precision,
        stability=params.stability,
    )


def _probe(split: Split, params: FinetuneParams) -> Split:
    """A fixed random part of the training split, on which the training loss is measured without dropout."""
    count = min(params.probe_examples, len(split))
    rows = np.sort(generator(params.seed, "probe").choice(len(split), count, replace=False))
    return Split(
        example_ids=[split.example_ids[i] for i in rows],
        texts=[split.texts[i] for i in rows],
        targets=split.targets[rows],
        ids=[split.ids[i] for i in rows],
    )


def mask_tokens(
    ids: NDArray[np.int64], *, rate: float, rng: np.random.Generator, special: SpecialIds
) -> NDArray[np.int64]:
    """Replace a share of the ordinary tokens by ``[MASK]``, so that no single word decides a training text.

    The pretrained encoder has seen masked texts all along, which makes this a kind of dropout that it knows.
    """
    if rate == 0.0:
        return ids
    return np.where(~np.isin(ids, special) & (rng.random(ids.shape) < rate), special.mask, ids)


def _loss(model: nn.Module, split: Split, batch: Batch) -> Loss:
    device = next(model.parameters()).device
    ids_BT = torch.from_numpy(batch.ids).to(device)
    attend_BT = None if batch.attend.all() else torch.from_numpy(batch.attend).to(device)
    logits = model(ids_BT, torch.zeros_like(ids_BT), attend_BT)
    targets = torch.from_numpy(split.targets[batch.rows]).to(device)
    return Loss(sums={"loss": F.cross_entropy(logits.float(), targets, reduction="sum")})


def _measure(model: TaskModel, split: Split, params: FinetuneParams) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Loss of each example without dropout, and whether it was classified rightly."""
    logits = torch.from_numpy(predict_logits(model, split.ids, precision=params.precision))
    losses: NDArray[np.float32] = F.cross_entropy(logits, torch.from_numpy(split.targets), reduction="none").numpy()
    return losses, logits.argmax(1).numpy() == split.targets
