"""Tuning a model for a task: the one procedure behind the fine-tuned model and the network without pretraining."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bert_ops.errors import InputError
from bert_ops.finetune import layers, lora
from bert_ops.finetune.augmentation import training_pieces
from bert_ops.finetune.batching import (
    TaskBatch,
    divide,
    forward,
    lay_out,
    order_from,
    steps_per_epoch,
)
from bert_ops.finetune.examples import TaskData
from bert_ops.finetune.layers import Tuning
from bert_ops.finetune.measuring import Trace, measure, probe, shown_scores
from bert_ops.finetune.params import FinetuneParams, TaskParams
from bert_ops.finetune.problems import AnyProblem
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import TaskModel
from bert_ops.progress import note
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.checkpoint import CheckpointStore
from bert_ops.training.device import pick_device, prepare
from bert_ops.training.loop import Loss, Plan, Row, Run, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.run_log import RunLog

#: Parts of a pretrained model that a task model takes over; its classifier starts new.
PRETRAINED_PARTS = ("encoder.", "pooler.")


@dataclass(frozen=True)
class Tuned:
    """A tuned model and how it came about.

    Args:
        model: with the weights that were kept.
        problem: what its answers mean.
        run: the run, with its history.
        validation_losses: of each validation example, float32 (evaluations, examples).
        steps_per_epoch: of the run.
        tuning: what was trained.

    """

    model: TaskModel
    problem: AnyProblem
    run: Run
    validation_losses: NDArray[np.float32]
    steps_per_epoch: int
    tuning: Tuning

    @property
    def history(self) -> list[Row]:
        """Evaluations with the epoch they were made in."""
        return with_epochs(self.run.history, self.steps_per_epoch)

    @property
    def best(self) -> Row:
        """The evaluation whose weights were kept."""
        return next(row for row in self.history if row["step"] == self.run.best_step)


def with_epochs(history: list[Row], steps: int) -> list[Row]:
    """Evaluations with the epoch they were made in, ``steps`` being the steps of one."""
    return [{"step": row["step"], "epoch": row["step"] / steps, **row} for row in history]


def build_model(
    problem: AnyProblem, *, config: EncoderConfig, pretrained: Path | None, params: FinetuneParams
) -> TaskModel:
    """Build a task model whose encoder is that of a folder, or random."""
    config = replace(config, hidden_dropout=params.hidden_dropout, attention_dropout=params.attention_dropout)
    model = TaskModel(config, labels=problem.outputs, kind=problem.head, classifier_dropout=params.classifier_dropout)
    if pretrained is not None:
        huggingface.fill(model, pretrained, made_by="pretrain", prefixes=PRETRAINED_PARTS)
    return model


def tune(
    data: TaskData,
    *,
    config: EncoderConfig,
    pretrained: Path | None,
    task: TaskParams,
    params: FinetuneParams,
    what: str,
    store: CheckpointStore | None = None,
    log: RunLog | None = None,
    on_evaluation: Any = None,
) -> Tuned:
    """Tune a model on the training split; the weights of the best evaluation are kept.

    Args:
        data: encoded examples.
        config: architecture of the encoder.
        pretrained: model folder to start from, or None to start from random weights.
        task: the task.
        params: how to tune; the same for both starting points, so that they compare.
        what: name for the progress line.
        store: where checkpoints go; a run that finds one goes on from there. None: no checkpoints.
        log: structured log.
        on_evaluation: called with the history after each evaluation.

    Raises:
        InputError: ``task.max_tokens`` exceeds the positions of the encoder, or training diverged.

    """
    check_length(task, config)
    prepare(threads=params.threads, seed=params.seed)
    model = build_model(data.problem, config=config, pretrained=pretrained, params=params)
    tuning = layers.apply(model, params.layers, seed=params.seed)
    model.to(pick_device())
    note(f"{what}: {tuning.line()}")
    trace = Trace(None if store is None else store.folder / "validation_losses")
    per_epoch = steps_per_epoch(len(data.splits["train"].rows), batch=params.batch.examples)

    def evaluated(history: list[Row]) -> None:
        trace.evaluated(history)
        if on_evaluation is not None:
            on_evaluation(with_epochs(history, per_epoch))

    plan = make_plan(data, task, params, what=what, trace=trace, config=config)
    plan = replace(
        plan,
        store=store,
        checkpoints=None if store is None else params.checkpoints,
        log=log or RunLog(None),
        on_evaluation=evaluated,
    )
    optimizer = build_optimizer(model, params.optimizer, rates=tuning.rate)
    run = train(replace(plan, before_step=tuning.before_step(total_steps=plan.total_steps)), model, optimizer)
    lora.merge(model)
    problem = data.problem.folded(model)
    return Tuned(model, problem, run, trace.of(run.history), per_epoch, tuning)


def check_length(task: TaskParams, config: EncoderConfig) -> None:
    """Refuse texts that are longer than the model.

    Raises:
        InputError: they may be.

    """
    if task.max_tokens > config.max_positions:
        raise InputError(
            f"`max_tokens` of the task is {task.max_tokens}, more than the encoder's {config.max_positions} positions",
            allowed=f"at most {config.max_positions}",
            remedy="lower tasks.TASK.max_tokens, or raise pretrain.model.max_positions",
        )


def total_steps(params: FinetuneParams, per_epoch: int) -> int:
    """Steps of a run that is not stopped early."""
    return max(params.epochs * per_epoch, params.min_steps)


def make_plan(
    data: TaskData, task: TaskParams, params: FinetuneParams, *, what: str, trace: Trace, config: EncoderConfig
) -> Plan[TaskBatch]:
    """Build the plan of the run."""
    split, problem, layout = data.splits["train"], data.problem, params.batch.layout
    shape: dict[str, Any] = {"layout": layout, "pad_id": config.pad_id, "limit": config.max_positions}
    per_epoch = steps_per_epoch(len(split.rows), batch=params.batch.examples)
    total = total_steps(params, per_epoch)
    probed_split = probe(split, params)
    pieces = training_pieces(data, task, params)

    def evaluate(model: nn.Module) -> Row:
        probed = measure(cast(TaskModel, model), probed_split, problem)
        held_out = measure(cast(TaskModel, model), data.splits["validation"], problem)
        trace.latest = held_out.losses
        return {
            "train_loss": float(probed.losses.mean(dtype=np.float64)),
            "validation_loss": float(held_out.losses.mean(dtype=np.float64)),
            **{f"validation_{name}": held_out.scores[name] for name in shown_scores(task, held_out.scores)},
        }

    def units(position: dict[str, int] | None) -> Iterator[tuple[TaskBatch, dict[str, int]]]:
        step = 0 if position is None else position["step"]
        lengths = split.rows.lengths
        batches = order_from(lengths, step, batch=params.batch.examples, layout=layout, seed=params.seed)
        for number, rows in enumerate(batches, step):
            yield lay_out(pieces(rows, number), **shape, unit=number), {"step": number + 1}

    return Plan(
        what=what,
        units=units,
        loss=loss_of(data, task, params),
        split=lambda batch, parts: divide(batch, parts, **shape),
        evaluate=evaluate,
        best="validation_loss" if params.keep == "validation_loss" else f"validation_{task.metric}",
        **plan_settings(params, total=total, per_epoch=per_epoch),
    )


def loss_of(data: TaskData, task: TaskParams, params: FinetuneParams) -> Callable[[nn.Module, TaskBatch], Loss]:
    """Return the loss of a task's batches: of its problem, weighted and smoothed as the parameters say."""
    problem = data.problem
    weights = problem.weights(getattr(task, "class_weights", "none"), data.splits["train"].targets)

    def loss(model: nn.Module, batch: TaskBatch) -> Loss:
        logits, targets = forward(model, batch)
        losses = problem.losses(logits, targets, starts=batch.starts, smoothing=params.label_smoothing)
        if weights is not None:
            losses = problem.weighted(losses, targets, torch.from_numpy(weights.by_output).to(losses.device))
        return Loss(sums={"loss": losses.sum()})

    return loss


def plan_settings(params: FinetuneParams, *, total: int, per_epoch: int) -> dict[str, Any]:
    """What a plan takes from section ``finetune``, given the steps of the run and of an epoch."""
    evaluations = max(1, round(total / per_epoch * params.evaluations_per_epoch))
    due = {round(total * (i + 1) / evaluations) for i in range(evaluations)}
    return {
        "seed": params.seed,
        "total_steps": total,
        "batch": BatchSize.of_one_unit(params.batch.examples),
        "average_decay": params.average_decay,
        "schedule": params.schedule.over(total),
        "evaluate_at": due.__contains__,
        "best_is_highest": params.keep == "metric",
        "patience": params.early_stopping.patience,
        "patience_from": round(params.layers.unfreeze_over * total),
        "clipping": params.clipping,
        "precision": params.precision,
        "stability": params.stability,
        "log_every_steps": params.log_every_steps,
    }
