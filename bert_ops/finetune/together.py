"""Tuning one encoder for several tasks at once (Liu et al. 2019, MT-DNN, arXiv:1901.11504).

A step reads a batch of one task, which is drawn at random: with a probability that is proportional to the task's
training examples to a power (Stickland & Murray 2019, arXiv:1902.02671). Which task it is depends on the seed and the
number of the step, and which examples on the seed and how many batches the task had before, so that a run that is
resumed draws what one that was never stopped draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bert_ops.finetune import layers, lora
from bert_ops.finetune.augmentation import training_pieces
from bert_ops.finetune.batching import TaskBatch, divide, lay_out, order_from, steps_per_epoch
from bert_ops.finetune.examples import TaskData
from bert_ops.finetune.layers import Tuning
from bert_ops.finetune.measuring import Trace, measure, probe, shown_scores
from bert_ops.finetune.multi_task_params import Together
from bert_ops.finetune.params import FinetuneParams, TaskParams
from bert_ops.finetune.problems import AnyProblem
from bert_ops.finetune.shared_encoder import SharedEncoder
from bert_ops.finetune.tuning import PRETRAINED_PARTS, check_length, loss_of, plan_settings, total_steps, with_epochs
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import TaskModel
from bert_ops.progress import note
from bert_ops.seeding import derive, generator
from bert_ops.training.checkpoint import CheckpointStore
from bert_ops.training.device import pick_device, prepare
from bert_ops.training.loop import Loss, Plan, Position, Row, Run, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.run_log import RunLog


@dataclass(frozen=True)
class Unit:
    """A batch of one task."""

    task: str
    batch: TaskBatch

    @property
    def unit(self) -> int:
        """Number of the batch in the run."""
        return self.batch.unit

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return self.batch.tokens

    @property
    def counts(self) -> dict[str, int]:
        """Items that the loss is a mean of."""
        return self.batch.counts


@dataclass(frozen=True)
class TunedTogether:
    """A tuned encoder with its heads, and how it came about.

    Args:
        model: with the weights that were kept.
        tasks: parameters of the tasks, by name.
        problems: what each head's answers mean.
        run: the run, with its history.
        validation_losses: of each validation example of a task, float32 (evaluations, examples).
        steps_per_epoch: batches that all tasks' training splits hold.
        tuning: what was trained.

    """

    model: SharedEncoder
    tasks: dict[str, TaskParams]
    problems: dict[str, AnyProblem]
    run: Run
    validation_losses: dict[str, NDArray[np.float32]]
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

    def view(self, name: str) -> TaskModel:
        """The plain model of a task; its parts are those of the others."""
        return self.model.views[name]

    def batches(self, name: str) -> int:
        """Batches that a task had."""
        return 0 if self.run.position is None else self.run.position[_counter(name)]

    def of_task(self, name: str, row: Row) -> Row:
        """An evaluation as a run of this task alone would have it."""
        columns = {f"train_{name}_loss": "train_loss", f"validation_{name}_loss": "validation_loss"}
        scores = ("accuracy", self.tasks[name].metric)
        columns |= {f"validation_{name}_{score}": f"validation_{score}" for score in scores}
        shown = {short: row[column] for column, short in columns.items() if column in row}
        return {"step": row["step"], "epoch": row["epoch"], **shown}


def tune_together(
    data: dict[str, TaskData],
    together: Together,
    *,
    config: EncoderConfig,
    pretrained: Path,
    what: str,
    store: CheckpointStore | None = None,
    log: RunLog | None = None,
    on_evaluation: Any = None,
) -> TunedTogether:
    """Tune one encoder and a head for each task; the weights of the best evaluation are kept.

    Args:
        data: encoded examples by task.
        together: the tasks, and how they are trained.
        config: architecture of the encoder.
        pretrained: model folder to start from.
        what: name for the progress line.
        store: where checkpoints go; a run that finds one goes on from there. None: no checkpoints.
        log: structured log.
        on_evaluation: called with the history after each evaluation.

    Raises:
        InputError: ``max_tokens`` of a task exceeds the positions of the encoder, or training diverged.

    """
    params = together.finetune
    for task in together.tasks.values():
        check_length(task, config)
    prepare(threads=params.threads, seed=params.seed)
    config = replace(config, hidden_dropout=params.hidden_dropout, attention_dropout=params.attention_dropout)
    problems = {name: each.problem for name, each in data.items()}
    model = SharedEncoder(config, problems, classifier_dropout=params.classifier_dropout)
    huggingface.fill(model, pretrained, made_by="pretrain", prefixes=PRETRAINED_PARTS)
    # It reads the parts that both kinds of model have: encoder, pooler, and the names of parameters.
    tuning = layers.apply(cast(TaskModel, model), params.layers, seed=params.seed)
    model.to(pick_device())
    note(f"{what}: {tuning.line()}")
    folder = None if store is None else store.folder / "validation_losses"
    traces = {name: Trace(None if folder is None else folder / name) for name in data}
    per_epoch = epoch_of(data, params)

    def evaluated(history: list[Row]) -> None:
        for trace in traces.values():
            trace.evaluated(history)
        if on_evaluation is not None:
            on_evaluation(with_epochs(history, per_epoch))

    plan = replace(
        make_plan(data, together, what=what, traces=traces, config=config),
        store=store,
        checkpoints=None if store is None else params.checkpoints,
        log=log or RunLog(None),
        on_evaluation=evaluated,
    )
    optimizer = build_optimizer(model, params.optimizer, rates=tuning.rate)
    run = train(replace(plan, before_step=tuning.before_step(total_steps=plan.total_steps)), model, optimizer)
    lora.merge(model)
    problems = {name: problem.folded(model.views[name]) for name, problem in problems.items()}
    losses = {name: trace.of(run.history) for name, trace in traces.items()}
    return TunedTogether(model, together.tasks, problems, run, losses, per_epoch, tuning)


def epoch_of(data: dict[str, TaskData], params: FinetuneParams) -> int:
    """Batches that the training splits of all tasks hold."""
    return sum(steps_per_epoch(len(each.splits["train"].rows), batch=params.batch.examples) for each in data.values())


def shares(rows: Sequence[int], sampling: float) -> NDArray[np.float64]:
    """Probability of each task, given the rows of its training split: proportional to rows to the power of sampling."""
    weights = np.asarray(rows, np.float64) ** sampling
    out: NDArray[np.float64] = weights / weights.sum()
    return out


def make_plan(
    data: dict[str, TaskData], together: Together, *, what: str, traces: dict[str, Trace], config: EncoderConfig
) -> Plan[Unit]:
    """Build the plan of the run."""
    params, tasks = together.finetune, together.tasks
    shape: dict[str, Any] = {"layout": params.batch.layout, "pad_id": config.pad_id, "limit": config.max_positions}
    per_epoch = epoch_of(data, params)
    total = total_steps(params, per_epoch)
    losses = {name: loss_of(each, tasks[name], params) for name, each in data.items()}
    probes = {name: probe(each.splits["train"], params) for name, each in data.items()}

    def evaluate(model: nn.Module) -> Row:
        """Losses and scores of each task, after their means."""
        means: dict[str, list[float]] = {"train_loss": [], "validation_loss": [], "validation_score": []}
        row: Row = {}
        for name, view in cast(SharedEncoder, model).views.items():
            probed = measure(view, probes[name], data[name].problem)
            held_out = measure(view, data[name].splits["validation"], data[name].problem)
            traces[name].latest = held_out.losses
            shown = {score: held_out.scores[score] for score in shown_scores(tasks[name], held_out.scores)}
            row[f"train_{name}_loss"] = float(probed.losses.mean(dtype=np.float64))
            row[f"validation_{name}_loss"] = float(held_out.losses.mean(dtype=np.float64))
            row |= {f"validation_{name}_{score}": value for score, value in shown.items()}
            means["train_loss"].append(row[f"train_{name}_loss"])
            means["validation_loss"].append(row[f"validation_{name}_loss"])
            means["validation_score"].append(shown[tasks[name].metric])
        return {**{name: sum(values) / len(values) for name, values in means.items()}, **row}

    def loss(model: nn.Module, unit: Unit) -> Loss:
        return losses[unit.task](cast(SharedEncoder, model).views[unit.task], unit.batch)

    return Plan(
        what=what,
        units=lambda position: units(data, together, position, shape=shape),
        loss=loss,
        split=lambda unit, parts: [Unit(unit.task, part) for part in divide(unit.batch, parts, **shape)],
        evaluate=evaluate,
        best="validation_loss" if params.keep == "validation_loss" else "validation_score",
        **plan_settings(params, total=total, per_epoch=per_epoch),
    )


def units(
    data: dict[str, TaskData], together: Together, position: Position | None, *, shape: dict[str, Any]
) -> Iterator[tuple[Unit, Position]]:
    """Yield batches for ever, each of one task, from a position on; with each the position after it.

    Args:
        data: encoded examples by task.
        together: the tasks, and how they are trained.
        position: steps made, and batches that each task had; None for the beginning.
        shape: how rows are laid out.

    """
    params, names = together.finetune, list(data)
    done = position or {"step": 0, **{_counter(name): 0 for name in names}}
    train = {name: each.splits["train"] for name, each in data.items()}
    chance = shares([len(train[name].rows) for name in names], together.params.sampling)
    batches = {
        name: order_from(
            train[name].rows.lengths,
            done[_counter(name)],
            batch=params.batch.examples,
            layout=params.batch.layout,
            seed=derive(params.seed, "task", name),
        )
        for name in names
    }
    pieces = {name: training_pieces(data[name], together.tasks[name], params) for name in names}
    while True:
        number = done["step"]
        name = names[int(generator(params.seed, "which task", number).choice(len(names), p=chance))]
        rows = next(batches[name])
        done = {**done, "step": number + 1, _counter(name): done[_counter(name)] + 1}
        yield Unit(name, lay_out(pieces[name](rows, number), **shape, unit=number)), done


def _counter(name: str) -> str:
    """Key of a task's batches in a position."""
    return f"batches of {name}"
