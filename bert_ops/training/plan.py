"""What a run is made of: everything that differs between pretraining and fine-tuning, as values and functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from bert_ops.training.batch_size import BatchSize
from bert_ops.training.checkpoint import CheckpointStore
from bert_ops.training.params import CheckpointParams, ClippingParams, Precision, ScheduleParams, StabilityParams
from bert_ops.training.run_log import RunLog

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
        best: figure of the row by which weights are kept, or None to keep the last ones.
        best_is_highest: whether the highest is the best; else the lowest.
        patience: evaluations in a row without a better one that end the run; 0 for never.
        patience_from: step before which no evaluation counts against it, as when layers still join.
        average_decay: decay of the moving average of the weights that is evaluated and kept; 0 for none.
        store: where checkpoints go, or None.
        checkpoints: when they are made.
        log: structured log.
        log_every_steps: steps between two lines of it.
        flops_per_token: training FLOPs a token, for the utilisation; None leaves it out.
        before_step: called with the model and the number of the step (from 0) before each forward pass of a new step;
            must do the same whenever it gets the same number. What it freezes now must need gradients when the run
            begins; one process only.
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
    best_is_highest: bool = False
    patience: int = 0
    patience_from: int = 0
    average_decay: float = 0.0
    store: CheckpointStore | None = None
    checkpoints: CheckpointParams | None = None
    log: RunLog = field(default_factory=lambda: RunLog(None))
    log_every_steps: int = 10
    flops_per_token: float | None = None
    before_step: Callable[[nn.Module, int], None] | None = None
    on_evaluation: Callable[[list[Row]], None] | None = None
    compile: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
