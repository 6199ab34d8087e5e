"""Learning-rate schedules: PyTorch's own scheduler classes behind a linear warmup.

The rate of a step is ``learning_rate × schedule(step) × scale``. ``schedule`` comes from the classes of
``torch.optim.lr_scheduler``; ``scale`` is what the batch size and rollbacks put on top. The classes work on an
optimiser of their own with a rate of 1, so that neither factor gets lost in the other.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import lr_scheduler

from bert_ops.errors import InputError
from bert_ops.training.params import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    MultiStepSchedule,
    ScheduleParams,
    StepSchedule,
)
from bert_ops.training.schedule_steps import misfit


class Schedule:
    """Sets the rate of an optimiser's groups step by step.

    Args:
        optimizer: its groups' ``lr`` at construction are the peak rates.
        params: shape of the curve.
        total_steps: optimiser steps of the run.

    Raises:
        InputError: warmup, decay or milestones do not fit into the run.

    """

    def __init__(self, optimizer: torch.optim.Optimizer, params: ScheduleParams, *, total_steps: int) -> None:
        check(params, total_steps=total_steps)
        self.optimizer = optimizer
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self.scale = 1.0
        self._unit = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._scheduler = _build(self._unit, params, total_steps=total_steps)
        self._unit.step()  # moves nothing; a scheduler warns if its optimiser never took a step
        self._apply()

    def share(self) -> float:
        """Share of the peak for the step to come, without the scale."""
        return float(self._unit.param_groups[0]["lr"])

    def rate(self) -> float:
        """Rate of the first group for the step to come, without the scale."""
        return self.peaks[0] * self.share()

    def set_scale(self, scale: float) -> None:
        """Put a factor on top."""
        self.scale = scale
        self._apply()

    def step(self) -> None:
        """Go on to the next step."""
        self._scheduler.step()
        self._apply()

    def state(self) -> dict[str, Any]:
        """JSON value from which :meth:`restore` goes on, exactly."""
        return {"scheduler": _plain(self._scheduler.state_dict()), "share": self.share(), "scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state`; costs the same at any step."""
        self._scheduler.load_state_dict(_revived(state["scheduler"]))
        self._unit.param_groups[0]["lr"] = state["share"]
        self.set_scale(state["scale"])

    def _apply(self) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.share() * self.scale


def rates(params: ScheduleParams, *, learning_rate: float, total_steps: int) -> NDArray[np.float64]:
    """Rate of every step of a run, (total_steps,).

    Raises:
        InputError: as :class:`Schedule`.

    """
    schedule = Schedule(torch.optim.SGD([torch.zeros(1)], lr=learning_rate), params, total_steps=total_steps)
    out = np.empty(total_steps)
    for step in range(total_steps):
        out[step] = schedule.rate()
        schedule.step()
    return out


def check(params: ScheduleParams, *, total_steps: int) -> None:
    """Refuse a schedule that does not fit the run.

    Raises:
        InputError: it ends before training does, or goes on after it.

    """
    found = misfit(params, steps=total_steps)
    if found is not None:
        raise InputError(found[0], allowed=found[1], remedy="correct it, or the number of steps (`bert-ops schedule`)")


def _build(unit: torch.optim.Optimizer, params: ScheduleParams, *, total_steps: int) -> lr_scheduler.LRScheduler:
    parts = _after_warmup(unit, params, steps=total_steps - params.warmup_steps)
    if params.warmup_steps:
        # Step 0 gets 1 / warmup and the last step of the warmup the peak.
        rise = lr_scheduler.LinearLR(
            unit,
            start_factor=1 / params.warmup_steps,
            end_factor=1.0,
            total_iters=max(params.warmup_steps - 1, 1),
        )
        parts = [(0, rise), *((start + params.warmup_steps, part) for start, part in parts)]
    if len(parts) == 1:
        return parts[0][1]
    return lr_scheduler.SequentialLR(unit, [part for _, part in parts], milestones=[start for start, _ in parts[1:]])


def _after_warmup(
    unit: torch.optim.Optimizer, params: ScheduleParams, *, steps: int
) -> list[tuple[int, lr_scheduler.LRScheduler]]:
    """Schedulers after the warmup, each with the step that it begins at.

    Falling rates reach their final share after the last step, so that no step is taken at a rate of zero.
    """
    if isinstance(params, LinearSchedule):
        return [(0, lr_scheduler.LinearLR(unit, 1.0, params.final_share, total_iters=steps))]
    if isinstance(params, CosineSchedule):
        return [(0, lr_scheduler.CosineAnnealingLR(unit, T_max=steps, eta_min=params.final_share))]
    if isinstance(params, StepSchedule):
        return [(0, lr_scheduler.StepLR(unit, step_size=params.every_steps, gamma=params.factor))]
    if isinstance(params, MultiStepSchedule):
        milestones = [milestone - params.warmup_steps for milestone in params.milestones]
        return [(0, lr_scheduler.MultiStepLR(unit, milestones=milestones, gamma=params.factor))]
    constant = lr_scheduler.ConstantLR(unit, factor=1.0, total_iters=0)
    if isinstance(params, ConstantSchedule):
        return [(0, constant)]
    stable = steps - params.decay_steps
    fall = lr_scheduler.LinearLR(unit, 1.0, params.final_share, total_iters=params.decay_steps)
    return [(0, constant), (stable, fall)] if stable else [(0, fall)]


def _plain(value: Any) -> Any:
    """JSON value of a scheduler's state; a Counter becomes a list of pairs, because JSON has no numbers as keys."""
    if isinstance(value, Counter):
        return {"counter": sorted(value.items())}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if not callable(item)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _revived(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"counter"}:
            return Counter(dict(value["counter"]))
        return {name: _revived(item) for name, item in value.items()}
    return [_revived(item) for item in value] if isinstance(value, list) else value
