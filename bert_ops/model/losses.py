"""Loss of a large vocabulary in one pass over the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def summed_cross_entropy(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """Sum over M of the cross-entropy of softmax(logits) against the targets, float32, in nats.

    The same as ``F.cross_entropy(logits.float(), targets, reduction="sum")``. Probabilities are computed once and are
    all that the gradient needs, which halves the time: logarithms of all V entries, a matrix of zeros for the picked
    ones and a second exponential are saved.

    Args:
        logits_MV: any floating type; sums are float32 (float64 for float64).
        targets_M: class of each row, int64.

    """
    loss: Tensor = _SummedCrossEntropy.apply(logits_MV, targets_M)  # type: ignore[no-untyped-call]
    return loss


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_MV: Tensor, targets_M: Tensor) -> Tensor:
        wide = torch.float64 if logits_MV.dtype == torch.float64 else torch.float32
        probabilities = torch.softmax(logits_MV, -1, dtype=wide)
        rows = targets_M[:, None]
        picked = probabilities.gather(1, rows)
        # A probability below the smallest number counts as that number: 87 nats, and a gradient as it should be.
        loss = -picked.clamp_min(torch.finfo(wide).tiny).log().sum()
        if ctx.needs_input_grad[0]:
            probabilities.scatter_(1, rows, picked - 1.0)
            ctx.save_for_backward(probabilities.to(logits_MV.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference * grad, None  # a scalar: multiplied in float32, whatever the type of the rest
