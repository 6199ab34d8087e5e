"""The one training loop: forward, backward, clip, step; evaluate, checkpoint and resume.

Everything that differs between pretraining and fine-tuning comes in as a function. The batch of step ``s`` is a
function of the seed and ``s`` alone, so a resumed run continues with the batch that an uninterrupted one would have
seen, without reading those before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from bert_ops.errors import InputError
from bert_ops.progress import Progress, note
from bert_ops.training import checkpoint as checkpoints
from bert_ops.training.averaging import WeightAverage
from bert_ops.training.device import arithmetic
from bert_ops.training.params import Precision

B = TypeVar("B")
Row = dict[str, float]


@dataclass(frozen=True)
class Loss:
    """What a step's forward pass yields: the scalar to minimise, and the tokens it read."""

    total: Tensor
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[B]):
    """A training run.

    Args:
        what: name of the work for the progress line.
        total_steps: optimiser steps.
        batches: the batches from a given step on.
        loss: forward pass of a batch.
        learning_rate: rate at a step.
        evaluate: measures the model (in eval mode, no gradients) and returns one row of figures.
        evaluate_at: the steps after which to evaluate; the last step is always one of them.
        best: figure of the row to minimise when weights are to be kept, or None to keep the last ones.
        clip_norm: largest gradient norm.
        precision: of matrix products.
        average_decay: decay of the moving average of the weights that is evaluated and kept; 0 for none.
        checkpoint_folder: where to save, or None.
        checkpoint_every_s: seconds between two checkpoints.

    """

    what: str
    total_steps: int
    batches: Callable[[int], Iterator[B]]
    loss: Callable[[nn.Module, B], Loss]
    learning_rate: Callable[[int], float]
    evaluate: Callable[[nn.Module], Row]
    evaluate_at: frozenset[int]
    best: str | None
    clip_norm: float
    precision: Precision
    average_decay: float = 0.0
    checkpoint_folder: Path | None = None
    checkpoint_every_s: float = 60.0


@dataclass
class Run:
    """Progress of a run; all of it but the clock goes into a checkpoint."""

    step: int = 0
    tokens: int = 0
    history: list[Row] = field(default_factory=list)
    best_step: int = 0
    best_score: float = math.inf
    best_weights: dict[str, Tensor] | None = None
    average: WeightAverage | None = None
    skipped_steps: int = 0
    #: Seconds in optimiser steps of this process alone (evaluation and checkpoints excluded), for throughput.
    train_seconds: float = 0.0
    tokens_here: int = 0

    def state(self) -> dict[str, Any]:
        """JSON part of a checkpoint."""
        return {
            "tokens": self.tokens,
            "history": self.history,
            "best_step": self.best_step,
            "best_score": self.best_score if math.isfinite(self.best_score) else None,
            "skipped_steps": self.skipped_steps,
        }


def train(plan: Plan[B], model: nn.Module, optimizer: torch.optim.Optimizer) -> Run:
    """Train in place and return the history; with ``plan.best`` the model ends with its best weights.

    Raises:
        InputError: the loss is not finite for 20 steps in a row.

    """
    device = next(model.parameters()).device
    run = _resume(plan, model, optimizer)
    progress = Progress(plan.what, total=plan.total_steps, unit="steps")
    last_save, bad_in_a_row, shown = time.monotonic(), 0, {}
    batches = plan.batches(run.step)
    while run.step < plan.total_steps:
        started = time.monotonic()
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate(run.step)
        with arithmetic(model, plan.precision):
            loss = plan.loss(model, next(batches))
            loss.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
        if bool(torch.isfinite(norm)):
            optimizer.step()
            bad_in_a_row = 0
            if run.average is not None:
                run.average.update(model, step=run.step + 1)
        else:
            run.skipped_steps += 1
            bad_in_a_row += 1
            _stop_if_diverged(plan, run, bad_in_a_row)
        optimizer.zero_grad(set_to_none=True)
        run.step += 1
        run.tokens += loss.tokens
        run.tokens_here += loss.tokens
        run.train_seconds += time.monotonic() - started
        if run.step in plan.evaluate_at or run.step == plan.total_steps:
            shown = _evaluate(plan, model, run, gradient_norm=float(norm))
        rate = run.tokens_here / run.train_seconds
        progress.update(run.step, loss=float(loss.total.detach()), **{"tokens/s": float(rate)}, **shown)
        if plan.checkpoint_folder and time.monotonic() - last_save > plan.checkpoint_every_s:
            _save(plan, model, optimizer, run)
            last_save = time.monotonic()
    if run.best_weights is not None:
        model.load_state_dict(run.best_weights)
    return run


def _evaluate(plan: Plan[B], model: nn.Module, run: Run, *, gradient_norm: float) -> Row:
    model.eval()
    weights = nullcontext() if run.average is None else run.average.applied(model)
    with weights:
        with torch.no_grad(), arithmetic(model, plan.precision):
            row = plan.evaluate(model)
        _keep_best(plan, model, run, row)
    rate = plan.learning_rate(run.step - 1)
    run.history.append(
        {"step": run.step, **row, "learning_rate": rate, "gradient_norm": gradient_norm, "tokens": run.tokens}
    )
    return {name: value for name, value in row.items() if name.startswith("validation")}


def _keep_best(plan: Plan[B], model: nn.Module, run: Run, row: Row) -> None:
    if plan.best is None:
        # The last weights are kept; if they are averaged, the average is what was measured.
        better = run.average is not None and run.step == plan.total_steps
    else:
        better = row[plan.best] < run.best_score
        run.best_score = min(run.best_score, row[plan.best])
    if better:
        run.best_step = run.step
        run.best_weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _stop_if_diverged(plan: Plan[B], run: Run, bad_in_a_row: int) -> None:
    if bad_in_a_row < 20:
        return
    raise InputError(
        f"{plan.what}: the gradient was not finite for {bad_in_a_row} steps, up to step {run.step + 1}",
        remedy="lower optimizer.learning_rate, lengthen the warmup, or set precision to float32",
    )


def _save(plan: Plan[B], model: nn.Module, optimizer: torch.optim.Optimizer, run: Run) -> None:
    assert plan.checkpoint_folder is not None
    tensors = checkpoints.pack(model, optimizer, run.best_weights)
    tensors |= {f"average.{name}": tensor for name, tensor in (run.average.tensors if run.average else {}).items()}
    checkpoints.save(plan.checkpoint_folder, checkpoints.Checkpoint(step=run.step, tensors=tensors, state=run.state()))


def _resume(plan: Plan[B], model: nn.Module, optimizer: torch.optim.Optimizer) -> Run:
    found = checkpoints.newest(plan.checkpoint_folder) if plan.checkpoint_folder else None
    average = WeightAverage(model, decay=plan.average_decay) if plan.average_decay else None
    if found is None:
        return Run(average=average)
    best = checkpoints.unpack(found.tensors, model, optimizer)
    if average is not None:
        average.tensors = {name: found.tensors[f"average.{name}"] for name in average.tensors}
    note(f"{plan.what}: resuming at step {found.step} of {plan.total_steps}")
    score = found.state.pop("best_score")
    return Run(
        step=found.step,
        best_score=math.inf if score is None else score,
        best_weights=best,
        average=average,
        **found.state,
    )
