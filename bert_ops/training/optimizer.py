"""AdamW with decay groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from bert_ops.errors import InputError
from bert_ops.training.params import AdamWParams, OptimizerParams, ScheduleKind


def adamw(model: nn.Module, params: OptimizerParams) -> torch.optim.AdamW:
    """Build AdamW; matrices and embeddings decay, biases and LayerNorm do not (as BERT's own code does)."""
    assert isinstance(params, AdamWParams)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in named if p.ndim > 1]
    plain = [p for _, p in named if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": params.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=params.learning_rate,
        betas=(params.beta1, params.beta2),
        eps=params.epsilon,
        fused=True,
    )


def learning_rate_share(step: int, *, total: int, warmup: int, kind: ScheduleKind, final: float) -> float:
    """Share of the peak rate at a step (from 0): linear warmup, then constant, linear or cosine decay to ``final``.

    Raises:
        InputError: warmup leaves no step for the decay.

    """
    if warmup >= total:
        raise InputError(
            f"warmup takes {warmup} steps and training ends after {total}",
            allowed="warmup shorter than training",
            remedy="lower the warmup or raise the number of steps",
        )
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    if kind == "constant":
        return 1.0
    shape = 1.0 - done if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return final + (1.0 - final) * shape
