"""The steps at which a schedule changes, and whether they fit a run.

Without torch, so that params.yaml is checked at once.
"""

from __future__ import annotations

from bert_ops.training.params import MultiStepSchedule, ScheduleParams, StepSchedule, WsdSchedule

#: Share of the peak below which a rate that drops in steps trains nothing.
LEAST_SHARE = 1e-6


def drops(schedule: ScheduleParams, *, steps: int) -> list[int]:
    """Steps (from 0) of a run from which on the rate is multiplied by ``factor`` once more."""
    if isinstance(schedule, StepSchedule):
        return list(range(schedule.warmup_steps + schedule.every_steps, steps, schedule.every_steps))
    return list(schedule.milestones) if isinstance(schedule, MultiStepSchedule) else []


def misfit(schedule: ScheduleParams, *, steps: int) -> tuple[str, str] | None:
    """Why a schedule does not fit a run of so many optimiser steps, and what is allowed; None if it does.

    Schedules that fall in a curve end with the run by construction; one that drops in steps may fall to nothing
    before.
    """
    warmup = schedule.warmup_steps
    left = steps - warmup
    if left <= 0:
        return f"schedule.warmup_steps {warmup} is not less than steps {steps}", f"at most {steps - 1}"
    if isinstance(schedule, WsdSchedule) and schedule.decay_steps > left:
        return (
            f"schedule.decay_steps {schedule.decay_steps} exceeds the {left} steps that warmup leaves of {steps}",
            f"at most {left}",
        )
    if isinstance(schedule, MultiStepSchedule):
        places = schedule.milestones
        if places != sorted(set(places)) or places[0] <= warmup or places[-1] >= steps:
            return (
                f"schedule.milestones are {places}",
                f"ascending steps after warmup_steps {warmup} and before steps {steps}",
            )
    if isinstance(schedule, StepSchedule | MultiStepSchedule):
        share = 1.0
        for number, step in enumerate(drops(schedule, steps=steps), start=1):
            share *= schedule.factor
            if share < LEAST_SHARE:
                return (
                    f"schedule.factor {schedule.factor:g} leaves less than a millionth of the rate after {number} "
                    f"drops, at step {step}: the schedule ends before training, which has {steps} steps",
                    "fewer drops before the end, or a factor nearer to 1",
                )
    return None
