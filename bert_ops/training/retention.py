"""Which checkpoints of a run stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bert_ops.training.checkpoint_files import Entry

#: Newest checkpoints of kind "step" that stay in any case. A rollback goes back to one of them: the very last may hold
#: weights that are about to break, and a run that was restarted must find the same one as a run that was not.
KEPT_STEPS = 2


@dataclass(frozen=True)
class Retention:
    """What stays beside the milestones and the newest two of kind "step", which always do.

    Args:
        keep_last: newest checkpoints, of any kind.
        keep_best: checkpoints with the lowest held-out loss.

    """

    keep_last: int
    keep_best: int


def surplus(entries: Sequence[Entry], retention: Retention) -> list[Entry]:
    """Checkpoints that may go.

    Args:
        entries: the whole checkpoints of a run, in the order in which they were made.
        retention: what stays.

    """
    scored = sorted((entry for entry in entries if _is_number(entry.score)), key=lambda entry: entry.score or 0.0)
    # By step: a run that had to go back writes some of them again.
    steps = {entry.step: entry for entry in entries if entry.kind == "step"}
    kept = {entry.number for entry in entries if entry.kind == "milestone"}
    kept |= {entry.number for entry in entries[-max(1, retention.keep_last) :]}
    kept |= {entry.number for entry in scored[: retention.keep_best]}
    kept |= {entry.number for entry in sorted(steps.values(), key=lambda entry: entry.step)[-KEPT_STEPS:]}
    return [entry for entry in entries if entry.number not in kept]


def _is_number(score: float | None) -> bool:
    return score is not None and math.isfinite(score)
