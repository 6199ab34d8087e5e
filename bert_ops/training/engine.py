"""The parts of a run that have a memory, and their way into a checkpoint and back."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic

import torch
from torch import Tensor, nn

from bert_ops.errors import StorageError
from bert_ops.progress import note
from bert_ops.training.averaging import WeightAverage
from bert_ops.training.checkpoint import Checkpoint, Kind
from bert_ops.training.device import resolve
from bert_ops.training.meter import Meter
from bert_ops.training.noise_scale import NoiseScale
from bert_ops.training.params import NoiseScaleBatch
from bert_ops.training.plan import Plan, Row, U
from bert_ops.training.run_state import Run
from bert_ops.training.schedule import Schedule
from bert_ops.training.stability import StabilityGuard
from bert_ops.training.workers import Workers


class Engine(Generic[U]):
    """Model, optimiser, and all that moves with the steps.

    Args:
        plan: the run's plan.
        model: what is trained, in place.
        optimizer: over its parameters; its rates are the peaks of the schedule.
        workers: the processes that train it together.

    """

    def __init__(self, plan: Plan[U], model: nn.Module, optimizer: torch.optim.Optimizer, workers: Workers) -> None:
        self.plan, self.model, self.optimizer = plan, model, optimizer
        self.workers = workers
        self.run = Run()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        #: Parameters that no step changes; the best weights are kept without them.
        self.frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        self.schedule = Schedule(optimizer, plan.schedule, total_steps=plan.total_steps)
        self.batch = plan.batch
        growth = plan.batch.params.growth
        self.noise = NoiseScale(smoothing=growth.smoothing) if isinstance(growth, NoiseScaleBatch) else None
        self.guard = StabilityGuard(plan.stability)
        precision = resolve(plan.precision, workers.device)
        self.scaler = torch.amp.GradScaler(workers.device.type, enabled=precision == "float16")
        self.average = WeightAverage(model, decay=plan.average_decay) if plan.average_decay else None
        self.meter = Meter(plan.log, workers, flops_per_token=plan.flops_per_token, precision=precision)
        #: Whether the last step of this process was taken, not left out.
        self.accepted = False

    def tensors(self) -> dict[str, Tensor]:
        """Whole tensors of a checkpoint; every process calls it."""
        slots = self.workers.optimizer_tensors(self.model, self.optimizer)
        averages = self.workers.whole(self.average.tensors if self.average else {})
        return {
            **_named("model.", self.workers.model_tensors(self.model)),
            **_named("optimizer.", slots),
            **_named("best.", self.run.best_weights or {}),
            **_named("average.", averages),
        }

    def state(self) -> dict[str, Any]:
        """JSON part of a checkpoint."""
        return {
            "run": self.run.state(),
            "schedule": self.schedule.state(),
            "batch": self.batch.state(),
            "scaler": self.scaler.state_dict(),
            "noise": None if self.noise is None else self.noise.state(),
            "guard": self.guard.state(),
            "meter": self.meter.state(),
            "accepted": self.accepted,
            "log": self.plan.log.position(),
        }

    def restore(self, found: Checkpoint) -> None:
        """Restore what a rollback restores too: weights, optimiser, and what follows the step."""
        self.run.restore(found.step, found.state["run"])
        self.run.best_weights = _part(found.tensors, "best.") or None
        self.meter.restore(found.state["meter"])
        self.workers.load_model(self.model, _part(found.tensors, "model."))
        self.workers.load_optimizer(self.model, self.optimizer, _part(found.tensors, "optimizer."))
        if self.average is not None:
            self.average.tensors = {
                name: self.workers.like(found.tensors[f"average.{name}"], own)
                for name, own in self.average.tensors.items()
            }
        self.schedule.restore(found.state["schedule"])
        self.batch.restore(found.state["batch"])
        self.scaler.load_state_dict(found.state["scaler"])
        if self.noise is not None:
            self.noise.restore(found.state["noise"])

    def averaged(self) -> AbstractContextManager[None]:
        """Inside the block the model has its averaged weights, if they are averaged."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def score(self) -> float | None:
        """Held-out loss of the weights as they are, if they were just measured."""
        history = self.run.history
        if not history or history[-1]["step"] != self.run.step:
            return None
        return next(
            (value for name, value in history[-1].items() if name.startswith("validation") and "loss" in name), None
        )

    def keep_best(self, row: Row) -> None:
        """Keep the weights if these figures are the best, or the average of the last ones where nothing is chosen."""
        run, best = self.run, self.plan.best
        if best is None:
            # The last weights are kept; if they are averaged, the average is what was measured.
            better = self.average is not None and run.step == self.plan.total_steps
        else:
            score = -row[best] if self.plan.best_is_highest else row[best]
            better = score < run.best_score
            run.best_score = min(run.best_score, score)
        if better:
            run.best_step = run.step
            with self.averaged():
                tensors = self.workers.model_tensors(self.model)
                run.best_weights = {n: t.detach().clone() for n, t in tensors.items() if n not in self.frozen}

    def out_of_patience(self) -> bool:
        """Whether the last evaluations were none the better, as many of them as the plan bears."""
        counted_from = max(self.run.best_step, self.plan.patience_from)
        since = [row for row in self.run.history if row["step"] > counted_from]
        return 0 < self.plan.patience <= len(since)

    def hand_on_history(self) -> None:
        """Let the curves be drawn; a full disk costs them, not the run."""
        if self.plan.on_evaluation is None or not self.workers.is_first:
            return
        try:
            self.plan.on_evaluation(self.run.history)
        except StorageError as error:
            note(f"{self.plan.what} goes on, but {error.what}")

    def observe_noise(self, small: float | None, norm: float, units: list[U], counts: dict[str, float]) -> None:
        """Take in the squared norm of one unit's gradient, if it was measured, and the norm of the whole step's."""
        if self.noise is None or small is None:
            return
        figures = self.workers.sum({"square": small, "tokens": units[0].tokens})
        world = self.workers.world
        self.noise.update(
            small_square=figures["square"] / world,
            big_square=norm**2,
            small_tokens=round(figures["tokens"] / world),
            big_tokens=int(counts["tokens"]),
        )

    def reason(self, loss: float, norm: float) -> str | None:
        """Why the step of this loss and gradient norm was left out."""
        if self.scaler.is_enabled() and math.isfinite(loss) and not math.isfinite(norm):
            return f"the gradient overflows at a loss scale of {self.scaler.get_scale():g}"
        return self.guard.last_reason()

    def planned_kind(self) -> Kind | None:
        """Which checkpoint the parameters want at this step, if any."""
        when, step = self.plan.checkpoints, self.run.step
        if when is not None and when.milestone_steps and step % when.milestone_steps == 0:
            return "milestone"
        return "step" if when is not None and step % when.every_steps == 0 else None


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
