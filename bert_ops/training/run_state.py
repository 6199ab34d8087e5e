"""Progress of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bert_ops.training.plan import Position, Row


@dataclass
class Run:
    """Progress of a run; all of it but the clock goes into a checkpoint."""

    step: int = 0
    tokens: int = 0
    position: Position | None = None
    history: list[Row] = field(default_factory=list)
    best_step: int = 0
    #: Figure of the best evaluation, lower is better: negative where the highest is wanted.
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
