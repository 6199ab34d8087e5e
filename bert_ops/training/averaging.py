"""Exponential moving average of the weights (Polyak & Juditsky 1992; the decay's warmup as in TensorFlow's EMA).

On a small data set the weights of a single step are noisy: the validation accuracy of two evaluations of one epoch
differs by points. Their average is measured and kept instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of a model's parameters that are trained; memory: one more copy of them.

    Args:
        model: the model, whose parameters are the first values.
        decay: share of the average that a step keeps, in [0, 1); early steps keep less, so that the start is forgotten.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move towards the model's parameters after optimiser step ``step`` (from 1)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._of(model):
            self.tensors[name].lerp_(parameter, 1.0 - keep)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged parameters inside the block."""
        own = {name: p.detach().clone() for name, p in self._of(model)}
        self._copy(self.tensors, model)
        try:
            yield
        finally:
            self._copy(own, model)

    @torch.no_grad()
    def _copy(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        for name, parameter in self._of(model):
            parameter.copy_(tensors[name])

    def _of(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """Parameters that are averaged, by name; some may be frozen for now."""
        return [(name, parameter) for name, parameter in model.named_parameters() if name in self.tensors]
