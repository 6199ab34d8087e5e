"""Parts of params.yaml that every training stage shares: precision, optimiser, schedule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bert_ops.schema import Section

Precision = Literal["float32", "bfloat16"]


class OptimizerParams(Section):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with bias correction."""

    learning_rate: float = Field(gt=0, le=1, description="peak rate, reached after warmup")
    weight_decay: float = Field(ge=0, le=1, description="decoupled decay of matrices; biases and LayerNorm have none")
    beta1: float = Field(ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(ge=0, lt=1, description="decay of the second moment")
    epsilon: float = Field(gt=0, le=1e-2, description="added to the root of the second moment")
    clip_norm: float = Field(
        gt=0, description="largest L2 norm of the whole gradient; larger ones are scaled down to it"
    )


ScheduleKind = Literal["linear", "cosine", "constant"]
