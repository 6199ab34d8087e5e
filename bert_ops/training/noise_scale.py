"""Gradient noise scale: how many tokens a batch can have before more of them stop helping.

McCandlish et al. 2018 (arXiv:1812.06162), appendix A.1: from the squared norms of a gradient over a small and over a
large batch follow unbiased estimates of the squared norm of the true gradient and of the trace of its covariance,

    |G|² = (B |G_B|² - b |G_b|²) / (B - b)        S = (|G_b|² - |G_B|²) / (1/b - 1/B)

whose ratio S / |G|² is the "simple" noise scale. Each is noisy by itself; their averages over steps are divided.
"""

from __future__ import annotations

import math
from typing import Any


class NoiseScale:
    """Running estimate.

    Args:
        smoothing: decay of the averages over steps, in (0, 1).

    """

    def __init__(self, *, smoothing: float) -> None:
        self.smoothing = smoothing
        self.count = 0
        self.signal = 0.0
        self.noise = 0.0

    def update(self, *, small_square: float, big_square: float, small_tokens: int, big_tokens: int) -> None:
        """Take in a step.

        Args:
            small_square: squared norm of the gradient of the mean loss over the small batch.
            big_square: the same over the large batch, which contains the small one.
            small_tokens: size of the small batch.
            big_tokens: size of the large one; a step in which they are equal tells nothing.

        """
        if big_tokens <= small_tokens or not (math.isfinite(small_square) and math.isfinite(big_square)):
            return
        signal = (big_tokens * big_square - small_tokens * small_square) / (big_tokens - small_tokens)
        noise = (small_square - big_square) / (1 / small_tokens - 1 / big_tokens)
        self.count += 1
        self.signal = self.smoothing * self.signal + (1 - self.smoothing) * signal
        self.noise = self.smoothing * self.noise + (1 - self.smoothing) * noise

    def value(self) -> float | None:
        """Noise scale in tokens; None for the first 1 / (1 - smoothing) steps, as far as the averages look back.

        The bias of averages that began at zero cancels in the ratio. Where the batch is far below the noise scale, the
        estimate of the true gradient is lost in noise and may be negative: then the scale is infinite, which is to say
        larger than can be told. Negative noise counts as none.
        """
        if self.count < 1 / (1 - self.smoothing) or (self.signal <= 0 and self.noise <= 0):
            return None
        return max(self.noise, 0.0) / self.signal if self.signal > 0 else math.inf

    def state(self) -> dict[str, Any]:
        """JSON value for a checkpoint."""
        return {"count": self.count, "signal": self.signal, "noise": self.noise}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state`."""
        self.count, self.signal, self.noise = state["count"], state["signal"], state["noise"]
