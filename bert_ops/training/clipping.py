"""Bounds of the gradient: single values first, then the norm of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bert_ops.training.params import ClippingParams

#: Quantile of the norms that :func:`suggest_bound` takes.
QUANTILE = 0.9


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
    if params.value is not None and gradients and max(_largest(gradient) for gradient in gradients) > params.value:
        nn.utils.clip_grad_value_(parameters, params.value)
        clipped, size = True, float(norm(parameters))
    if params.norm is not None and size > params.norm:
        nn.utils.clip_grads_with_norm_(parameters, params.norm, torch.tensor(size))
        clipped = True
    return before, clipped


def _largest(gradient: Tensor) -> Tensor:
    """Largest absolute value, a scalar; of the whole where the gradient is divided among processes."""
    largest = gradient.abs().max()
    return largest.full_tensor() if isinstance(largest, DTensor) else largest


def suggest_bound(norms: Sequence[float]) -> float | None:
    """Bound to try, from the norms of a run: the 90% quantile of the finite ones, to two digits.

    It leaves nine steps of ten as they are and cuts the tail, whatever the scale of the model's gradients (the idea of
    AutoClip, Seetharaman et al. 2020, arXiv:2007.14469, with a fixed bound instead of a moving one). None without
    a finite positive norm.
    """
    finite = [value for value in norms if math.isfinite(value) and value > 0]
    if not finite:
        return None
    bound = float(np.quantile(finite, QUANTILE))
    return float(f"{bound:.2g}")
