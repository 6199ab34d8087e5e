"""The one training loop: forward, backward, clip, judge, step; log, evaluate, checkpoint and resume.

Everything that differs between pretraining and fine-tuning comes in as a function. The data is an endless sequence of
*units* (what one pass of one process reads) that depends on the seed and the corpus alone. A step takes as many units
as its batch holds. Every random draw is a function of the seed and the number of a unit, and everything else that has
a memory (optimiser, schedule, batch size, guard, log) restores it from a checkpoint, so a resumed run makes the same
numbers as one that was never interrupted, bit for bit, and reads none of the data before its place.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import NoReturn

import torch
from torch import nn

from bert_ops.errors import InputError
from bert_ops.progress import Progress, note
from bert_ops.training.checkpoint import Checkpoint, Kind
from bert_ops.training.clipping import clip
from bert_ops.training.device import arithmetic
from bert_ops.training.engine import Engine
from bert_ops.training.interruption import Interruption, Stopped
from bert_ops.training.memory import is_out_of_memory
from bert_ops.training.meter import StepFigures
from bert_ops.training.passes import Passes, count
from bert_ops.training.plan import Loss, Plan, Position, Row, U, Unit
from bert_ops.training.prefetch import Prefetch
from bert_ops.training.run_state import Run
from bert_ops.training.workers import Workers

__all__ = ["Loss", "Plan", "Position", "Row", "Run", "Trainer", "U", "Unit", "train"]


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


class Trainer(Engine[U]):
    """A run while it runs; a class because a step, a rollback and a checkpoint all touch it."""

    def __init__(
        self,
        plan: Plan[U],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        workers: Workers,
        interruption: Interruption,
    ) -> None:
        super().__init__(plan, model, optimizer, workers)
        self.interruption = interruption
        forward: nn.Module = workers.wrap(model)
        if plan.compile:
            forward = torch.compile(forward)  # type: ignore[assignment]
        self.passes = Passes(
            plan, self.run, forward, workers=workers, scaler=self.scaler, first_norm=self.noise is not None
        )
        self.units: Prefetch[tuple[U, Position]] | None = None
        self.saved_at = time.monotonic()

    # ---------------------------------------------------------------- the run

    def run_to_the_end(self) -> None:
        """Step until the last step is evaluated."""
        plan, run = self.plan, self.run
        progress = Progress(plan.what, total=plan.total_steps, unit="steps")
        if self._evaluate_if_due():  # the run was stopped in it: what comes after it was not done either
            self._checkpoint_if_due()
        while run.step < plan.total_steps and not self.out_of_patience():
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
        if run.step < plan.total_steps:
            note(f"{plan.what}: {plan.patience} evaluations without a better one, stopped at step {run.step}")
            plan.log.write("early_stop", step=run.step, best_step=run.best_step)
        if run.best_weights is not None:
            self.workers.load_model(self.model, {**self.model.state_dict(), **run.best_weights})
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
        counts = self.workers.sum(count(units))
        before = self.batch.rate_scale(run.step) * self.guard.rate_scale
        self.schedule.set_scale(before)
        rate = self.schedule.rate() * before
        self.model.train()
        if plan.before_step is not None:
            plan.before_step(self.model, run.step)
        try:
            with self._breaking_off():
                sums, small_square = self.passes.gradient(units, counts)
        except Stopped:
            run.position = position  # nothing has changed yet: the step is done again
            self._stop()
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
            self.observe_noise(small_square, norm, units, counts)
        else:
            plan.log.write("skip", step=run.step + 1, loss=loss, gradient_norm=norm, reason=self.reason(loss, norm))
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
            with self.averaged(), torch.no_grad(), self._breaking_off():
                row = plan.evaluate(self.model)
        except Stopped:
            # The checkpoint that is due after the evaluation: a rollback has to find it later.
            self._stop(self.planned_kind() if self.accepted else None)
        self.keep_best(row)
        run.history.append({"step": run.step, **row, **self.meter.evaluation_figures(run)})
        plan.log.write("evaluation", step=run.step, tokens=run.tokens, **row)
        self.meter.evaluated(row)
        self.hand_on_history()
        return True

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
        self.restore(found)
        self.guard.restore(found.state["guard"])
        self.accepted = found.state["accepted"]
        cut = plan.log.truncate(found.state["log"])
        self.meter.resumed(run, cut)
        note(f"{plan.what}: resuming at step {run.step} of {plan.total_steps}")
        if run.history:
            self.hand_on_history()  # DVC removes a stage's plots before it runs

    def _save(self, kind: Kind, *, wait: bool) -> None:
        plan, run = self.plan, self.run
        if plan.store is None:
            return
        tensors = self.tensors()
        self.saved_at = time.monotonic()  # of every process: one that thought itself late would save at each step
        if not self.workers.is_first:
            return
        score, stalled = self.score(), plan.store.stall_seconds
        content = Checkpoint(step=run.step, tensors=tensors, state=self.state())
        if plan.store.save(content, kind=kind, score=score, wait=wait):
            size, waited = sum(t.nbytes for t in tensors.values()), plan.store.stall_seconds - stalled
            plan.log.write("checkpoint", step=run.step, kind=kind, bytes=size, stall_seconds=round(waited, 4))

    def _checkpoint_if_due(self) -> None:
        when, step = self.plan.checkpoints, self.run.step
        if when is None or step >= self.plan.total_steps:
            return
        kind = self.planned_kind() if self.accepted else None
        if kind is not None:
            self._save(kind, wait=False)
        elif self.workers.agree(time.monotonic() - self.saved_at > when.every_s):
            self._save("time", wait=False)

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
        self.restore(target)
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
