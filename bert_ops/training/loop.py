"""The one training loop: forward, backward, clip, judge, step; log, evaluate, checkpoint and resume.

Everything that differs between pretraining and fine-tuning comes in as a function. The data is an endless sequence of
*units* (what one pass of one process reads) that depends on the seed and the corpus alone. A step takes as many units
as its batch holds. Every random draw is a function of the seed and the number of a unit, and everything else that has
a memory (optimiser, schedule, batch size, guard, log) restores it from a checkpoint, so a resumed run makes the same
numbers as one that was never interrupted, bit for bit, and reads none of the data before its place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor, nn

from bert_ops.errors import InputError, StorageError
from bert_ops.progress import Progress, note
from bert_ops.seeding import derive
from bert_ops.training.averaging import WeightAverage
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.checkpoint import Checkpoint, CheckpointStore, Kind
from bert_ops.training.clipping import clip
from bert_ops.training.device import arithmetic, resolve
from bert_ops.training.interruption import Interruption, Stopped
from bert_ops.training.memory import is_out_of_memory
from bert_ops.training.meter import Meter, StepFigures
from bert_ops.training.noise_scale import NoiseScale
from bert_ops.training.params import (
    CheckpointParams,
    ClippingParams,
    NoiseScaleBatch,
    Precision,
    ScheduleParams,
    StabilityParams,
)
from bert_ops.training.prefetch import Prefetch
from bert_ops.training.run_log import RunLog
from bert_ops.training.schedule import Schedule
from bert_ops.training.stability import StabilityGuard
from bert_ops.training.workers import Workers

Row = dict[str, float]
Position = dict[str, int]


class Unit(Protocol):
    """What one forward and backward pass reads."""

    @property
    def unit(self) -> int:
        """Number of the unit in the endless sequence; seeds what is drawn for it."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """Items that each objective's loss is a mean of (masked tokens, pairs, examples)."""
        ...


U = TypeVar("U", bound=Unit)


@dataclass(frozen=True)
class Loss:
    """Loss of a pass: for each objective the sum over its items, to be divided by the items of the whole step."""

    sums: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[U]):
    """A training run.

    Args:
        what: name of the work for progress lines.
        seed: of dropout.
        total_steps: optimiser steps.
        units: this process's units from a position on, each with the position after the group it belongs to
            (a unit for every process).
        batch: how many units a step takes.
        loss: forward pass over a unit.
        split: a unit as smaller ones, for passes that do not fit into memory; None if it cannot be divided.
        schedule: of the learning rate.
        clipping: bounds of the gradient.
        precision: of matrix products.
        stability: what happens when the loss jumps.
        evaluate: measures the model (in eval mode, no gradients) and returns one row of figures.
        evaluate_at: the steps after which to evaluate; the last step is always one of them.
        best: figure of the row to minimise when weights are to be kept, or None to keep the last ones.
        average_decay: decay of the moving average of the weights that is evaluated and kept; 0 for none.
        store: where checkpoints go, or None.
        checkpoints: when they are made.
        log: structured log.
        log_every_steps: steps between two lines of it.
        flops_per_token: training FLOPs a token, for the utilisation; None leaves it out.
        on_evaluation: called with the history after each evaluation.
        compile: whether forward and backward pass go through torch.compile.
        facts: what the log begins with (parameters, sizes).

    """

    what: str
    seed: int
    total_steps: int
    units: Callable[[Position | None], Iterator[tuple[U, Position]]]
    batch: BatchSize
    loss: Callable[[nn.Module, U], Loss]
    split: Callable[[U, int], list[U]] | None
    schedule: ScheduleParams
    clipping: ClippingParams
    precision: Precision
    stability: StabilityParams
    evaluate: Callable[[nn.Module], Row]
    evaluate_at: Callable[[int], bool]
    best: str | None
    average_decay: float = 0.0
    store: CheckpointStore | None = None
    checkpoints: CheckpointParams | None = None
    log: RunLog = field(default_factory=lambda: RunLog(None))
    log_every_steps: int = 10
    flops_per_token: float | None = None
    on_evaluation: Callable[[list[Row]], None] | None = None
    compile: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """Progress of a run; all of it but the clock goes into a checkpoint."""

    step: int = 0
    tokens: int = 0
    position: Position | None = None
    history: list[Row] = field(default_factory=list)
    best_step: int = 0
    best_score: float = math.inf
    best_weights: dict[str, Tensor] | None = None
    skipped_steps: int = 0
    rollbacks: int = 0
    #: Smaller passes that a unit is cut into, because a whole one did not fit into memory.
    parts: int = 1
    #: Seconds in optimiser steps of this process alone (evaluation and checkpoints excluded), for throughput.
    train_seconds: float = 0.0
    tokens_here: int = 0
    stall_seconds: float = 0.0

    def state(self) -> dict[str, Any]:
        """JSON part of a checkpoint."""
        return {
            "tokens": self.tokens,
            "position": self.position,
            "history": self.history,
            "best_step": self.best_step,
            "best_score": self.best_score if math.isfinite(self.best_score) else None,
            "parts": self.parts,
        }

    def restore(self, step: int, state: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        self.step, self.tokens, self.position = step, state["tokens"], state["position"]
        self.history, self.parts = list(state["history"]), state["parts"]
        self.best_step = state["best_step"]
        self.best_score = math.inf if state["best_score"] is None else state["best_score"]


def train(plan: Plan[U], model: nn.Module, optimizer: torch.optim.Optimizer, *, workers: Workers | None = None) -> Run:
    """Train in place and return the history; with ``plan.best`` the model ends with its best weights.

    Raises:
        InputError: the loss or gradient stays unusable after rollbacks, or a unit does not fit into memory at all.
        Stopped: a signal asked for the end; the checkpoint is written.

    """
    workers = workers or Workers(next(model.parameters()).device)
    with ExitStack() as stack:
        stack.enter_context(arithmetic(model, plan.precision))
        interruption = stack.enter_context(Interruption())
        trainer = Trainer(plan, model, optimizer, workers, interruption)
        stack.callback(trainer.close)
        try:
            trainer.resume()
            trainer.run_to_the_end()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Outside the passes, which are divided: moments, averages, copies for checkpoints, evaluation.
            raise InputError(
                f"{plan.what}: model, optimiser and checkpoint do not fit into memory",
                remedy="use a smaller model, or a machine with more memory",
            ) from error
        return trainer.run


class Trainer(Generic[U]):
    """State of a run while it runs; a class because a step, a rollback and a checkpoint all touch it."""

    def __init__(
        self,
        plan: Plan[U],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        workers: Workers,
        interruption: Interruption,
    ) -> None:
        self.plan, self.model, self.optimizer = plan, model, optimizer
        self.workers, self.interruption = workers, interruption
        self.run = Run()
        self.forward = workers.wrap(model)
        if plan.compile:
            self.forward = torch.compile(self.forward)  # type: ignore[assignment]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.schedule = Schedule(optimizer, plan.schedule, total_steps=plan.total_steps)
        self.batch = plan.batch
        growth = plan.batch.params.growth
        self.noise = NoiseScale(smoothing=growth.smoothing) if isinstance(growth, NoiseScaleBatch) else None
        self.guard = StabilityGuard(plan.stability)
        precision = resolve(plan.precision, workers.device)
        self.scaler = torch.amp.GradScaler(workers.device.type, enabled=precision == "float16")
        self.average = WeightAverage(model, decay=plan.average_decay) if plan.average_decay else None
        self.units: Prefetch[tuple[U, Position]] | None = None
        self.meter = Meter(plan.log, workers, flops_per_token=plan.flops_per_token, precision=precision)
        self.saved_at = time.monotonic()
        #: Whether the last step of this process was taken, not left out.
        self.accepted = False

    # ---------------------------------------------------------------- the run

    def run_to_the_end(self) -> None:
        """Step until the last step is evaluated."""
        plan, run = self.plan, self.run
        progress = Progress(plan.what, total=plan.total_steps, unit="steps")
        if self._evaluate_if_due():  # the run was stopped in it: what comes after it was not done either
            self._checkpoint_if_due()
        while run.step < plan.total_steps:
            if self.workers.agree(self.interruption.requested is not None):
                self._stop()
            started = time.monotonic()
            figures = self._step()
            seconds = time.monotonic() - started
            run.train_seconds += seconds
            self.accepted = figures.verdict == "ok"
            if figures.verdict != "rollback":  # that one left no trace but in the log
                self.meter.step(figures, seconds=seconds)
                if run.step % plan.log_every_steps == 0 or run.step == plan.total_steps:
                    self.meter.write(run, skipped=self.guard.skipped)
                self._evaluate_if_due()
            if self.workers.is_first:
                progress.update(run.step, also=self.meter.line, **self.meter.shown(run))
            self._checkpoint_if_due()
        if run.best_weights is not None:
            self.workers.load_model(self.model, run.best_weights)
        run.skipped_steps, run.rollbacks = self.guard.skipped, self.guard.rollbacks
        plan.log.write("finish", step=run.step, tokens=run.tokens, seconds=round(run.train_seconds, 3))

    def close(self) -> None:
        """End the loader's thread and wait for the writer of checkpoints."""
        if self.units is not None:
            self.units.close()
        if self.plan.store is not None:
            self.run.stall_seconds = self.plan.store.stall_seconds
            self.plan.store.close()

    # ---------------------------------------------------------------- a step

    def _step(self) -> StepFigures:
        run, plan = self.run, self.plan
        position = run.position
        units = self._next_units()
        counts = self.workers.sum(_counts(units))
        before = self.batch.rate_scale(run.step) * self.guard.rate_scale
        self.schedule.set_scale(before)
        rate = self.schedule.rate() * before
        self.model.train()
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                with self._breaking_off():
                    sums, small_square = self._accumulate(units, counts)
                break
            except (RuntimeError, MemoryError) as error:
                self._halve(error, units)
            except Stopped:
                run.position = position  # nothing has changed yet: the step is done again
                self._stop()
            if self.workers.device.type == "cuda":
                torch.cuda.empty_cache()  # not in the handler, whose traceback holds the tensors of the pass
        losses = {name: value / max(counts[name], 1) for name, value in self.workers.sum(sums).items()}
        loss = sum(losses.values())
        self.scaler.unscale_(self.optimizer)
        norm, clipped = clip(self.parameters, plan.clipping, norm=self.workers.gradient_norm)
        verdict = self.guard.judge(loss=loss, norm=norm, step=run.step + 1, may_overflow=self.scaler.is_enabled())
        figures = StepFigures(
            losses=losses,
            rate=rate,
            norm=norm,
            clipped=clipped,
            tokens=int(counts["tokens"]),
            batch_tokens=self.batch.units(run.step) * self.batch.unit_tokens,
            noise=None if self.noise is None else self.noise.value(),  # up to the step before
            verdict=verdict,
        )
        if verdict in {"rollback", "stop"}:
            self._roll_back(verdict)
            return figures
        if verdict == "ok":
            self.scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update(self.model, step=run.step + 1)
            self._observe_noise(small_square, norm, units, counts)
        else:
            reason = self.guard.last_reason()
            if self.scaler.is_enabled() and math.isfinite(loss) and not math.isfinite(norm):
                reason = f"the gradient overflows at a loss scale of {self.scaler.get_scale():g}"
            plan.log.write("skip", step=run.step + 1, loss=loss, gradient_norm=norm, reason=reason)
        self.scaler.update()
        self.schedule.step()
        run.step += 1
        run.tokens += figures.tokens
        run.tokens_here += figures.tokens
        changed_from = self.batch.observe(figures.noise, run.step)
        if changed_from is not None:
            self.meter.batch_changed(run, figures, changed_from, self.batch.units(run.step) * self.batch.unit_tokens)
        return figures

    def _next_units(self) -> list[U]:
        if self.units is None:
            self.units = Prefetch(self.plan.units(self.run.position))
        mine = self.batch.units(self.run.step) // self.workers.world
        taken = [next(self.units) for _ in range(mine)]
        self.run.position = taken[-1][1]
        return [unit for unit, _ in taken]

    def _accumulate(self, units: list[U], counts: dict[str, float]) -> tuple[dict[str, float], float | None]:
        """Forward and backward over the units; sums of the losses, and the squared gradient norm of the first unit."""
        sums: dict[str, Tensor] = {}
        small_square = None
        for number, unit in enumerate(units):
            # Dropout depends on the unit, not on which process reads it or what was read before.
            torch.manual_seed(derive(self.plan.seed, "dropout", unit.unit))
            parts = [unit] if self.run.parts == 1 or self.plan.split is None else self.plan.split(unit, self.run.parts)
            for place, part in enumerate(parts):
                last = number == len(units) - 1 and place == len(parts) - 1
                with nullcontext() if last else self.workers.accumulate(self.forward):
                    loss = self.plan.loss(self.forward, part)
                    shares = [value * (self.workers.world / max(counts[k], 1)) for k, value in loss.sums.items()]
                    self.scaler.scale(torch.stack(shares).sum()).backward()  # type: ignore[no-untyped-call]
                for name, value in loss.sums.items():
                    sums[name] = value.detach() + sums[name] if name in sums else value.detach()
            if number == 0 and self.noise is not None:
                share = counts["tokens"] / max(unit.tokens, 1) / self.workers.world / self.scaler.get_scale()
                small_square = float(Workers.gradient_norm(self.workers, self.parameters)) ** 2 * share**2
        return {name: float(value) for name, value in sums.items()}, small_square

    def _halve(self, error: Exception, units: list[U]) -> None:
        """Cut passes in two after one did not fit into memory.

        Raises:
            InputError: they cannot be cut further.

        """
        if not is_out_of_memory(error):
            raise error
        largest = max(len(self.plan.split(unit, 2 * self.run.parts)) for unit in units) if self.plan.split else 1
        if largest <= self.run.parts:
            raise InputError(
                f"{self.plan.what}: a pass over the smallest part of a batch does not fit into memory",
                remedy="use a smaller model or shorter sequences, or a machine with more memory",
            ) from error
        self.run.parts = largest
        note(f"{self.plan.what}: out of memory; from here on a unit is read in {self.run.parts} passes")
        self.plan.log.write(
            "micro_batch",
            step=self.run.step + 1,
            passes=self.run.parts,
            reason="out of memory; the effective batch stays as it is",
        )

    def _observe_noise(self, small: float | None, norm: float, units: list[U], counts: dict[str, float]) -> None:
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

    # ---------------------------------------------------------------- evaluation

    def _evaluate_if_due(self) -> bool:
        """Measure the model if this step wants it and it was not done; whether it was done now."""
        run, plan = self.run, self.plan
        due = run.step > 0 and (plan.evaluate_at(run.step) or run.step == plan.total_steps)
        if not due or (run.history and run.history[-1]["step"] == run.step):
            return False
        self.model.eval()
        try:
            # Only what loses nothing may break off anywhere: swapping weights in and out stays outside.
            with self._averaged(), torch.no_grad(), self._breaking_off():
                row = plan.evaluate(self.model)
        except Stopped:
            # The checkpoint that is due after the evaluation: a rollback has to find it later.
            self._stop(self._planned_kind() if self.accepted else None)
        self._keep_best(row)
        run.history.append({"step": run.step, **row, **self.meter.evaluation_figures(run)})
        plan.log.write("evaluation", step=run.step, tokens=run.tokens, **row)
        self.meter.evaluated(row)
        self._hand_on_history()
        return True

    def _hand_on_history(self) -> None:
        """Let the curves be drawn; a full disk costs them, not the run."""
        if self.plan.on_evaluation is None or not self.workers.is_first:
            return
        try:
            self.plan.on_evaluation(self.run.history)
        except StorageError as error:
            note(f"{self.plan.what} goes on, but {error.what}")

    def _keep_best(self, row: Row) -> None:
        run, best = self.run, self.plan.best
        if best is None:
            # The last weights are kept; if they are averaged, the average is what was measured.
            better = self.average is not None and run.step == self.plan.total_steps
        else:
            better = row[best] < run.best_score
            run.best_score = min(run.best_score, row[best])
        if better:
            run.best_step = run.step
            with self._averaged():
                tensors = self.workers.model_tensors(self.model)
                run.best_weights = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def _averaged(self) -> AbstractContextManager[None]:
        """Inside the block the model has its averaged weights, if they are averaged."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def _breaking_off(self) -> AbstractContextManager[None]:
        """Inside the block a signal ends the work at once; several processes would wait for each other."""
        return self.interruption.raise_inside() if self.workers.world == 1 else nullcontext()

    # ---------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, or begin."""
        plan, run = self.plan, self.run
        found = plan.store.newest() if plan.store is not None else None
        self.workers.barrier()  # every process has looked before the first one writes
        if found is None:
            plan.log.truncate(0)
            self.meter.start(plan.facts)
            self._save("step", wait=False)  # what a rollback in the first steps goes back to
            return
        self._restore(found)
        self.guard.restore(found.state["guard"])
        self.accepted = found.state["accepted"]
        cut = plan.log.truncate(found.state["log"])
        self.meter.resumed(run, cut)
        note(f"{plan.what}: resuming at step {run.step} of {plan.total_steps}")
        if run.history:
            self._hand_on_history()  # DVC removes a stage's plots before it runs

    def _restore(self, found: Checkpoint) -> None:
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

    def _save(self, kind: Kind, *, wait: bool) -> None:
        plan, run = self.plan, self.run
        if plan.store is None:
            return
        tensors = {f"model.{name}": t for name, t in self.workers.model_tensors(self.model).items()}
        slots = self.workers.optimizer_tensors(self.model, self.optimizer)
        tensors |= {f"optimizer.{name}": tensor for name, tensor in slots.items()}
        tensors |= {f"best.{name}": tensor for name, tensor in (run.best_weights or {}).items()}
        averages = self.workers.whole(self.average.tensors if self.average else {})
        tensors |= {f"average.{name}": tensor for name, tensor in averages.items()}
        self.saved_at = time.monotonic()  # of every process: one that thought itself late would save at each step
        if not self.workers.is_first:
            return
        state = {
            "run": run.state(),
            "schedule": self.schedule.state(),
            "batch": self.batch.state(),
            "scaler": self.scaler.state_dict(),
            "noise": None if self.noise is None else self.noise.state(),
            "guard": self.guard.state(),
            "meter": self.meter.state(),
            "accepted": self.accepted,
            "log": plan.log.position(),
        }
        score, stalled = self._score(), plan.store.stall_seconds
        content = Checkpoint(step=run.step, tensors=tensors, state=state)
        if plan.store.save(content, kind=kind, score=score, wait=wait):
            size, waited = sum(t.nbytes for t in tensors.values()), plan.store.stall_seconds - stalled
            plan.log.write("checkpoint", step=run.step, kind=kind, bytes=size, stall_seconds=round(waited, 4))

    def _score(self) -> float | None:
        """Held-out loss of the weights as they are, if they were just measured."""
        history = self.run.history
        if not history or history[-1]["step"] != self.run.step:
            return None
        return next(
            (value for name, value in history[-1].items() if name.startswith("validation") and "loss" in name), None
        )

    def _checkpoint_if_due(self) -> None:
        when, step = self.plan.checkpoints, self.run.step
        if when is None or step >= self.plan.total_steps:
            return
        kind = self._planned_kind() if self.accepted else None
        if kind is not None:
            self._save(kind, wait=False)
        elif self.workers.agree(time.monotonic() - self.saved_at > when.every_s):
            self._save("time", wait=False)

    def _planned_kind(self) -> Kind | None:
        """Which checkpoint the parameters want at this step, if any."""
        when, step = self.plan.checkpoints, self.run.step
        if when is not None and when.milestone_steps and step % when.milestone_steps == 0:
            return "milestone"
        return "step" if when is not None and step % when.every_steps == 0 else None

    def _stop(self, kind: Kind | None = None) -> NoReturn:
        """Write a checkpoint and end the run as the signal asked.

        Raises:
            Stopped: always.

        """
        self._save(kind or "final", wait=True)
        self.plan.log.write("stop", step=self.run.step, reason=self.interruption.requested)
        saved = None if self.plan.store is None else self.plan.store.saved_step
        raise self.interruption.stopped(self.plan.what, step=self.run.step, saved_step=saved)

    def _roll_back(self, verdict: str) -> None:
        """Restore weights that are known to be good and go on with later data at a lower rate.

        Raises:
            InputError: there is nothing to go back to, or going back did not help before.

        """
        plan, run = self.plan, self.run
        store = plan.store
        if store is not None:
            store.flush()
        self.workers.barrier()
        target = None if store is None or verdict == "stop" else store.rollback_target(before=self.guard.good_step)
        if store is None or target is None:
            plan.log.write("stop", step=run.step + 1, reason=self.guard.diagnosis())
            raise InputError(f"{plan.what}: {self.guard.diagnosis()}", remedy=self.guard.remedy())
        failed_at, position, parts = run.step + 1, run.position, run.parts
        self.scaler.update()  # ends the step that is given up
        self._restore(target)
        # The data that led here is not read again, and memory is no larger than it was.
        run.position, run.parts = position, max(parts, run.parts)
        self.guard.rolled_back(target.state["guard"])
        if self.workers.is_first:
            store.discard_after(target.step)
        plan.log.write(
            "rollback",
            step=failed_at,
            to_step=run.step,
            rate_scale=self.guard.rate_scale,
            reason=self.guard.last_reason(),
        )
        note(
            f"{plan.what}: rolled back from step {failed_at} to step {run.step}, learning rate now "
            f"{self.guard.rate_scale:g} of its schedule: {self.guard.last_reason()}"
        )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _counts(units: list[U]) -> dict[str, float]:
    counts: dict[str, float] = {"tokens": 0}
    for unit in units:
        counts["tokens"] += unit.tokens
        for name, count in unit.counts.items():
            counts[name] = counts.get(name, 0) + count
    return counts
