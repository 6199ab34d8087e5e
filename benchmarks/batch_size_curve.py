"""Held-out loss of a run by tokens and seconds, and where it first reaches a value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

#: Evaluations that a loss is the mean of.
SMOOTHING = 3


@dataclass(frozen=True)
class Point:
    """An evaluation: tokens read, seconds of training, held-out MLM loss."""

    tokens: float
    seconds: float
    loss: float


@dataclass
class Curve:
    """Evaluations of a run and the lines of its log."""

    points: list[Point] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    def smooth(self) -> list[Point]:
        """The points from the first that has enough before it, each with the mean of the last losses."""
        ends = range(SMOOTHING, len(self.points) + 1)
        last = [self.points[end - SMOOTHING : end] for end in ends]
        return [replace(some[-1], loss=float(np.mean([p.loss for p in some]))) for some in last]

    def at(self, tokens: float) -> float:
        """Loss after so many tokens, linear between evaluations."""
        smooth = self.smooth()
        return float(np.interp(tokens, [p.tokens for p in smooth], [p.loss for p in smooth]))

    def lowest(self, tokens: float) -> float:
        """The lowest loss within so many tokens: one that rises at the end is no mark to be reached."""
        return min([self.at(tokens), *(p.loss for p in self.smooth() if p.tokens <= tokens)])

    def reach(self, loss: float) -> Point | None:
        """Where a loss is first reached, linear between evaluations, or None."""
        smooth = self.smooth()
        if smooth[0].loss <= loss:
            return smooth[0]
        for before, after in pairwise(smooth):
            if after.loss <= loss:
                share = (before.loss - loss) / (before.loss - after.loss)
                tokens = before.tokens + share * (after.tokens - before.tokens)
                return Point(tokens, before.seconds + share * (after.seconds - before.seconds), loss)
        return None
