"""Learning rate and batch of every step of a run, as far as they are known before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_ops.pretrain.micro_batch import possible_rows
from bert_ops.pretrain.params import PretrainParams
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.params import RampBatch, StepSchedule, WsdSchedule
from bert_ops.training.schedule import rates
from bert_ops.training.schedule_steps import drops

#: Drops of the rate that are named one by one; of more, the first and the last.
_MOST_DROPS = 8


@dataclass(frozen=True)
class Course:
    """What each step of a run does; a batch that follows a measurement is known by its bounds only.

    Args:
        rate: (steps, 2), learning rate with the smallest and with the largest batch that the step may have.
        batch: (steps, 2), smallest and largest tokens of the step.
        unit_tokens: tokens of a pass.

    """

    rate: NDArray[np.float64]
    batch: NDArray[np.int64]
    unit_tokens: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return len(self.rate)

    @property
    def read(self) -> NDArray[np.int64]:
        """(steps, 2), least and most tokens that are read after each step."""
        return self.batch.cumsum(axis=0)


def course(params: PretrainParams) -> Course:
    """Rate and batch of the run of params.yaml in one process.

    Raises:
        InputError: schedule or batch do not fit the run.

    """
    micro = params.batch.micro_tokens
    # What `auto` finds is known when memory is searched; it is this or less.
    unit_tokens = possible_rows(params, world=1)[-1] * params.sequence_tokens if micro == "auto" else micro
    scheduled = rates(params.schedule, learning_rate=params.optimizer.learning_rate, total_steps=params.steps)
    controller = BatchSize(params.batch, unit_tokens=unit_tokens, world=1)
    least = np.array([controller.units(step) for step in range(params.steps)], np.int64)
    scale = np.array([controller.rate_scale(step) for step in range(params.steps)])
    if params.batch.growth.kind != "noise_scale":
        return Course(np.stack([scheduled * scale] * 2, 1), np.stack([least * unit_tokens] * 2, 1), unit_tokens)
    most = np.full_like(least, controller.most)
    return Course(np.stack([scheduled * scale, scheduled], 1), np.stack([least, most], 1) * unit_tokens, unit_tokens)


def key_steps(params: PretrainParams) -> list[tuple[int, str]]:
    """Steps worth a line, each with what it is: from 0, ascending, one line a step."""
    steps, schedule, growth = params.steps, params.schedule, params.batch.growth
    found: dict[int, list[str]] = {}

    def add(step: int, what: str) -> None:
        if 0 <= step < steps:
            found.setdefault(step, []).append(what)

    add(0, "first")
    if schedule.warmup_steps:
        add(schedule.warmup_steps - 1, "end of warmup")
    for part in (1, 2, 3):
        add(steps * part // 4 - 1, ("a quarter", "half", "three quarters")[part - 1])
    fall = drops(schedule, steps=steps)
    for number, step in enumerate(fall, start=1):
        if len(fall) <= _MOST_DROPS or number in {1, len(fall)}:
            add(step, f"drop {number} of {len(fall)}")
    if isinstance(schedule, WsdSchedule):
        add(steps - schedule.decay_steps, "decay begins")
    if isinstance(growth, RampBatch):
        add(growth.steps, "whole batch")
    add(steps - 1, "last")
    return [(step, ", ".join(what)) for step, what in sorted(found.items())]


def remarks(params: PretrainParams, found: Course) -> list[str]:
    """What a reader may not have meant, in whole sentences."""
    said = ["Tokens are the room of packed rows, a little of which is padding."]
    growth, schedule = params.batch.growth, params.schedule
    whole = params.batch.tokens
    if isinstance(growth, RampBatch) and growth.steps >= params.steps:
        said.append(
            f"The ramp takes {growth.steps:,} steps and the run {params.steps:,}: it ends with batches of "
            f"{found.batch[-1, 1]:,} tokens, not of {whole:,}."
        )
    if isinstance(growth, RampBatch) and growth.start_tokens % found.unit_tokens:
        said.append(
            f"A batch is made of whole passes of {found.unit_tokens:,} tokens: it begins with {found.batch[0, 0]:,}, "
            f"not with {growth.start_tokens:,}."
        )
    if isinstance(schedule, StepSchedule) and not drops(schedule, steps=params.steps):
        said.append(f"The rate never drops: schedule.every_steps {schedule.every_steps:,} is more than the run has.")
    if growth.kind == "noise_scale":
        said.append("The batch follows the gradient noise scale, so that only its bounds are known before the run.")
    if params.batch.micro_tokens == "auto":
        said.append(f"What fits into memory is found when the run begins; shown are passes of {found.unit_tokens:,}.")
    return said
