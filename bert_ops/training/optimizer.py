"""The optimiser, with decay for matrices and embeddings and none for biases and LayerNorm (as BERT's own code)."""

from __future__ import annotations

import torch
from torch import nn

from bert_ops.training.params import AdamWParams, OptimizerParams


def build_optimizer(model: nn.Module, params: OptimizerParams) -> torch.optim.Optimizer:
    """Build AdamW (with bias correction, decoupled decay) or SGD over the parameters that are trained.

    The fused kernels are used: one pass over parameter, gradient and moments instead of a dozen.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if isinstance(params, AdamWParams):
        betas = (params.beta1, params.beta2)
        return torch.optim.AdamW(groups, lr=params.learning_rate, betas=betas, eps=params.epsilon, fused=True)
    return torch.optim.SGD(
        groups, lr=params.learning_rate, momentum=params.momentum, nesterov=params.nesterov, fused=True
    )
