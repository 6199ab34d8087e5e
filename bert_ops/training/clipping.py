"""Bounds of the gradient: single values first, then the norm of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bert_ops.training.norm_bound import suggest_bound
from bert_ops.training.params import ClippingParams

__all__ = ["clip", "suggest_bound", "total_norm"]


def total_norm(parameters: list[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients together, a scalar on their device."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip(
    parameters: list[nn.Parameter],
    params: ClippingParams,
    *,
    norm: Callable[[list[nn.Parameter]], Tensor] = total_norm,
) -> tuple[float, bool]:
    """Bound the gradient in place.

    Args:
        parameters: whose ``grad`` is bounded; those without one are passed over.
        params: the bounds.
        norm: L2 norm of the whole gradient; several processes that divide it measure it together.

    Returns:
        The norm before anything was bounded, and whether something was. A norm that is not finite leaves the gradient
        as it is: the step is to be left out.

    """
    before = float(norm(parameters))
    if not math.isfinite(before):
        return before, False
    clipped, size = False, before
    gradients = [p.grad for p in parameters if p.grad is not None]
    if params.value is not None and gradients and float(_largest(gradients)) > params.value:
        nn.utils.clip_grad_value_(parameters, params.value)
        clipped, size = True, float(norm(parameters))
    if params.norm is not None and size > params.norm:
        nn.utils.clip_grads_with_norm_(parameters, params.norm, torch.tensor(size))
        clipped = True
    return before, clipped


def _largest(gradients: list[Tensor]) -> Tensor:
    """Largest absolute value, a scalar on their device: asked for once, not for each gradient.

    Not the infinity norm of ``get_total_norm``, which took 16 times as long on a CPU.
    """
    most = [gradient.abs().max() for gradient in gradients]
    return torch.stack([one.full_tensor() if isinstance(one, DTensor) else one for one in most]).max()
