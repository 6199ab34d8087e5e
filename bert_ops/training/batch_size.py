"""How many units a step takes: constant, growing by schedule, or following the gradient noise scale."""

from __future__ import annotations

from typing import Any, Self

from bert_ops.errors import InputError
from bert_ops.training.params import BatchParams, ConstantBatch, NoiseScaleBatch, RampBatch


class BatchSize:
    """Units of each step, over all processes.

    Args:
        params: the batch of params.yaml.
        unit_tokens: tokens that a unit has room for.
        world: processes; a step's units are divided among them evenly.

    Raises:
        InputError: the batch is no multiple of what the processes read in one pass, or a batch that grows begins
            below that; one that follows the noise scale needs two passes, a part to compare the whole with.

    """

    def __init__(self, params: BatchParams, *, unit_tokens: int, world: int) -> None:
        self.params, self.unit_tokens, self.world = params, unit_tokens, world
        quantum = unit_tokens * world
        if params.tokens % quantum:
            raise InputError(
                f"batch.tokens {params.tokens} is no multiple of {quantum} ({world} × {unit_tokens} tokens a pass)",
                allowed=f"{quantum}, {2 * quantum}, …",
                remedy="change batch.tokens, batch.micro_tokens or the number of processes",
            )
        self.most = params.tokens // unit_tokens
        self.least = self.now = self._least()

    def _least(self) -> int:
        """Units of the smallest step.

        Raises:
            InputError: the passes of all processes take more than that.

        """
        growth = self.params.growth
        if isinstance(growth, ConstantBatch):
            return self.most
        # The noise scale is estimated from a part and the whole of a step.
        name, passes = ("min_tokens", 2) if isinstance(growth, NoiseScaleBatch) else ("start_tokens", 1)
        tokens, least = smallest_step(self.params), passes * self.unit_tokens * self.world
        if tokens < least:
            allowed = [f"batch.micro_tokens of at most {tokens // (passes * self.world)}"]
            if least <= self.params.tokens:
                allowed.append(f"batch.growth.{name} of at least {least}")
            raise InputError(
                f"batch.growth.{name} is {tokens}, and {passes} × {self.unit_tokens} tokens a pass on each of "
                f"{self.world} processes are {least}",
                allowed=", or ".join(allowed),
                remedy="lower batch.micro_tokens: a step is made of whole passes",
            )
        return self._rounded(tokens)

    @classmethod
    def of_one_unit(cls, tokens: int) -> Self:
        """A step is one unit, whatever its size."""
        params = BatchParams(tokens=max(tokens, 8), micro_tokens=max(tokens, 8), growth=ConstantBatch(kind="constant"))
        return cls(params, unit_tokens=max(tokens, 8), world=1)

    def units(self, step: int) -> int:
        """Units of a step (from 0): a multiple of the number of processes."""
        growth = self.params.growth
        if isinstance(growth, RampBatch):
            done = min(1.0, step / growth.steps)
            return self._rounded(growth.start_tokens + done * (self.params.tokens - growth.start_tokens))
        return self.now

    def observe(self, noise: float | None, step: int) -> int | None:
        """Take in the noise scale after a step (from 1); the tokens of the batch before, if it changes now."""
        growth = self.params.growth
        if isinstance(growth, RampBatch):
            return self._changed(self.units(step - 1), self.units(step))
        if not isinstance(growth, NoiseScaleBatch) or noise is None or step % growth.every_steps:
            return None
        before = self.now
        wanted = self._rounded(min(noise * growth.factor, float(self.params.tokens)))
        # At most doubled or halved at once: the estimate is noisy, and it was made at the batch of now.
        half = -(-before // (2 * self.world)) * self.world
        self.now = min(max(wanted, self.least, half), self.most, 2 * before)
        return self._changed(before, self.now)

    def rate_scale(self, step: int) -> float:
        """Factor on the learning rate at a step."""
        growth = self.params.growth
        if isinstance(growth, ConstantBatch) or growth.rate_scaling == "none":
            return 1.0
        share = self.units(step) / self.most
        return float(share**0.5) if growth.rate_scaling == "sqrt" else share

    def state(self) -> dict[str, Any]:
        """JSON value for a checkpoint."""
        return {"units": self.now}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state`; the number of processes may have changed, and with it what they can share evenly."""
        self.now = max(self._rounded(state["units"] * self.unit_tokens), self.least)

    def _rounded(self, tokens: float) -> int:
        """Units nearest to so many tokens: a multiple of the processes, at least one for each, at most the batch."""
        groups = round(tokens / (self.unit_tokens * self.world))
        return min(max(groups, 1) * self.world, self.most)

    def _changed(self, before: int, after: int) -> int | None:
        return None if before == after else before * self.unit_tokens


def smallest_step(params: BatchParams) -> int:
    """Tokens of the smallest step that a batch comes to."""
    growth = params.growth
    if isinstance(growth, RampBatch):
        return growth.start_tokens
    return growth.min_tokens if isinstance(growth, NoiseScaleBatch) else params.tokens
