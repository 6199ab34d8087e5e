"""The optimiser, with decay for matrices and embeddings and none for biases and LayerNorm (as BERT's own code)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bert_ops.training.params import AdamWParams, OptimizerParams


def build_optimizer(
    model: nn.Module, params: OptimizerParams, *, rates: Callable[[str], float] | None = None
) -> torch.optim.Optimizer:
    """Build AdamW (with bias correction, decoupled decay) or SGD over the parameters that are trained.

    The fused kernels are used: one pass over parameter, gradient and moments instead of a dozen. Parameters that have
    no gradient in a step (layers that are not trained yet) are left as they are, and get moments with their first one.

    Args:
        model: whose parameters with ``requires_grad`` are trained.
        params: the method.
        rates: factor on the learning rate by the name of a parameter; None for 1. Groups with larger rates come first.

    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    factors = {name: 1.0 if rates is None else rates(name) for name, _ in trained}
    groups: list[dict[str, Any]] = []
    for factor in sorted(set(factors.values()), reverse=True):
        alike = [p for name, p in trained if factors[name] == factor]
        rate = params.learning_rate * factor
        groups += [
            {"params": [p for p in alike if p.ndim > 1], "lr": rate, "weight_decay": params.weight_decay},
            {"params": [p for p in alike if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    if isinstance(params, AdamWParams):
        betas = (params.beta1, params.beta2)
        return torch.optim.AdamW(groups, lr=params.learning_rate, betas=betas, eps=params.epsilon, fused=True)
    return torch.optim.SGD(
        groups, lr=params.learning_rate, momentum=params.momentum, nesterov=params.nesterov, fused=True
    )
