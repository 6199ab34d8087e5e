"""The passes of a step: forward and backward over its units, in parts where whole ones do not fit into memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Generic

import torch
from torch import Tensor, nn

from bert_ops.errors import InputError
from bert_ops.progress import note
from bert_ops.seeding import derive
from bert_ops.training.memory import is_out_of_memory
from bert_ops.training.plan import Plan, U
from bert_ops.training.run_state import Run
from bert_ops.training.workers import Workers


class Passes(Generic[U]):
    """Computes the gradient of a step.

    Args:
        plan: the run's plan.
        run: its progress; ``parts`` changes when memory runs out.
        forward: the model as it is called.
        workers: the processes that compute together.
        scaler: of the loss.
        first_norm: measure the gradient of the first unit by itself, for the noise scale.

    """

    def __init__(
        self,
        plan: Plan[U],
        run: Run,
        forward: nn.Module,
        *,
        workers: Workers,
        scaler: torch.amp.GradScaler,
        first_norm: bool,
    ) -> None:
        self.plan, self.run, self.forward, self.workers, self.scaler = plan, run, forward, workers, scaler
        self.first_norm = first_norm
        self.parameters = [p for p in forward.parameters() if p.requires_grad]

    def gradient(self, units: list[U], counts: dict[str, float]) -> tuple[dict[str, float], float | None]:
        """Leave the gradient of the step in the parameters.

        Args:
            units: this process's share of the step.
            counts: tokens and items of each objective, of the whole step.

        Returns:
            The sums of the losses over the units, and the squared norm of the gradient of the first unit, if measured.

        Raises:
            InputError: the smallest part of a unit does not fit into memory.

        """
        while True:
            for parameter in self.parameters:
                parameter.grad = None
            try:
                return self._accumulate(units, counts)
            except (RuntimeError, MemoryError) as error:
                self._halve(error, units)
            if self.workers.device.type == "cuda":
                torch.cuda.empty_cache()  # not in the handler, whose traceback holds the tensors of the pass

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
            if number == 0 and self.first_norm:
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


def count(units: list[U]) -> dict[str, float]:
    """Tokens of units, and items of each objective."""
    counts: dict[str, float] = {"tokens": 0}
    for unit in units:
        counts["tokens"] += unit.tokens
        for name, count in unit.counts.items():
            counts[name] = counts.get(name, 0) + count
    return counts
