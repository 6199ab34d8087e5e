"""Figures of a run as it goes: throughput, clipping, utilisation; into the log, the progress line and the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bert_ops.training.params import Precision
from bert_ops.training.run_log import Cut, RunLog
from bert_ops.training.utilisation import gemm_peak, machine, memory_mib, utilisation
from bert_ops.training.workers import Workers

if TYPE_CHECKING:
    from bert_ops.training.run_state import Run


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """What a step showed.

    Args:
        losses: mean of each objective over the step, over all processes.
        rate: learning rate that was applied.
        norm: gradient norm before clipping.
        clipped: whether it was clipped.
        tokens: tokens read, without padding.
        batch_tokens: tokens that the batch had room for.
        noise: gradient noise scale in tokens, where it is measured.
        verdict: what the guard said.

    """

    losses: dict[str, float]
    rate: float
    norm: float
    clipped: bool
    tokens: int
    batch_tokens: int
    noise: float | None
    verdict: str


class Meter:
    """Collects figures between two lines of the log."""

    def __init__(self, log: RunLog, workers: Workers, *, flops_per_token: float | None, precision: Precision) -> None:
        self.log, self.workers, self.flops_per_token = log, workers, flops_per_token
        self.peak = 0.0
        if flops_per_token is not None:
            self.peak = gemm_peak(workers.device, precision) * workers.world
        self.last: StepFigures | None = None
        self.measured: dict[str, float] = {}
        #: Figures of the last step that stand beside an evaluation; a run may be stopped between the two.
        self.beside: dict[str, float] = {}
        #: Figures of the last line.
        self.line: dict[str, Any] = {}
        self._reset()

    def start(self, run_facts: dict[str, Any]) -> None:
        """Log what begins."""
        self.log.write("start", **run_facts, machine=self._machine())

    def resumed(self, run: Run, cut: Cut) -> None:
        """Log that the run goes on."""
        self.log.write("resume", step=run.step, lost_steps=cut.steps, lost_seconds=cut.seconds, machine=self._machine())

    def _machine(self) -> dict[str, Any]:
        return machine(self.workers.device, processes=self.workers.world, peak=self.peak)

    def _reset(self) -> None:
        self.steps = self.clipped = self.tokens = 0
        self.seconds = 0.0

    def step(self, figures: StepFigures, *, seconds: float) -> None:
        """Take in a step."""
        self.last = figures
        self.beside = {"learning_rate": figures.rate, "gradient_norm": figures.norm}
        self.steps += 1
        self.clipped += figures.clipped
        self.tokens += figures.tokens
        self.seconds += seconds

    def write(self, run: Run, *, skipped: int) -> None:
        """Write a line of the log and begin anew."""
        last = self.last
        assert last is not None
        self.line = {
            "step": run.step,
            "tokens": run.tokens,
            "loss": sum(last.losses.values()),
            **{f"{name}_loss": value for name, value in last.losses.items()},
            "learning_rate": last.rate,
            "gradient_norm": last.norm,
            "clip_share": self.clipped / self.steps,
            "batch_tokens": last.batch_tokens,
            "noise_scale": last.noise,
            "skipped": skipped,
            "tokens_per_second": round(self.tokens / self.seconds, 1) if self.seconds else None,
            "utilisation": self._utilisation(),
            "memory_mib": round(memory_mib(self.workers.device), 1),
        }
        self.log.write("step", **self.line)
        self._reset()

    def state(self) -> dict[str, Any]:
        """What a checkpoint between two lines holds, so that the next line says the same after a resume."""
        return {"steps": self.steps, "clipped": self.clipped, "beside": self.beside}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state`; throughput is that of this process alone."""
        self._reset()
        self.steps, self.clipped, self.beside = state["steps"], state["clipped"], state["beside"]

    def batch_changed(self, run: Run, figures: StepFigures, before: int, after: int) -> None:
        """Log that the batch grew or shrank."""
        noise = figures.noise  # may be infinite
        reason = "schedule" if noise is None else f"gradient noise scale {noise:,.0f} tokens"
        self.log.write("batch_size", step=run.step, from_tokens=before, batch_tokens=after, reason=reason)

    def _utilisation(self) -> float | None:
        if self.flops_per_token is None or not self.seconds:
            return None
        return utilisation(
            tokens=self.tokens, seconds=self.seconds, flops_per_token=self.flops_per_token, peak=self.peak
        )

    def evaluation_figures(self, run: Run) -> dict[str, float]:
        """What stands beside an evaluation in the history."""
        return {"tokens": float(run.tokens), **self.beside}

    def evaluated(self, row: dict[str, float]) -> None:
        """Remember held-out figures for the progress line."""
        self.measured = {name: value for name, value in row.items() if name.startswith("validation")}

    def shown(self, run: Run) -> dict[str, float]:
        """Figures of the progress line."""
        if self.last is None:
            return {}
        rate = run.tokens_here / run.train_seconds if run.train_seconds else 0.0
        losses = {"loss" if name == "loss" else f"{name} loss": value for name, value in self.last.losses.items()}
        return {**losses, "tokens/s": rate, **self.measured}
