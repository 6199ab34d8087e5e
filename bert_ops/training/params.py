"""Parts of params.yaml that every training stage shares: precision, optimiser, schedule, clipping, batch, safety."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section, Share

#: auto: bfloat16 where the machine multiplies it fast, float16 on a GPU without, else float32.
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]

_Steps = Annotated[int, Field(ge=0, description="steps of linear warmup")]
_FinalShare = Annotated[float, Field(ge=0, le=1, description="share of the peak rate at the end")]
_Rate = Annotated[float, Field(gt=0, le=10, description="peak rate, reached after warmup")]
_Decay = Annotated[float, Field(ge=0, le=1, description="decay of matrices; biases and LayerNorm have none")]


class AdamWParams(Section):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with bias correction and decoupled weight decay."""

    kind: Literal["adamw"]
    learning_rate: _Rate
    weight_decay: _Decay
    beta1: float = Field(ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(ge=0, lt=1, description="decay of the second moment")
    epsilon: float = Field(gt=0, le=1e-2, description="added to the root of the second moment")


class SgdParams(Section):
    """Stochastic gradient descent with momentum, for reference; weight decay is added to the gradient."""

    kind: Literal["sgd"]
    learning_rate: _Rate
    weight_decay: _Decay
    momentum: float = Field(ge=0, lt=1, description="share of the last update that is kept")
    nesterov: bool = Field(description="look ahead along the momentum; needs some")

    @model_validator(mode="after")
    def _has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is true and momentum 0; allowed: nesterov: false, or some momentum")
        return self


OptimizerParams = Annotated[AdamWParams | SgdParams, Field(discriminator="kind")]


class ClippingParams(Section):
    """Bounds of the gradient; the norm is bounded after single values are."""

    norm: float | None = Field(gt=0, description="largest L2 norm of the whole gradient; null for no bound")
    value: float | None = Field(gt=0, description="largest absolute value of an entry; null for no bound")


class ConstantSchedule(Section):
    """The peak rate after warmup (torch: ConstantLR)."""

    kind: Literal["constant"]
    warmup_steps: _Steps


class LinearSchedule(Section):
    """A straight line from the peak to ``final_share`` of it, reached after the last step (torch: LinearLR)."""

    kind: Literal["linear"]
    warmup_steps: _Steps
    final_share: _FinalShare


class CosineSchedule(Section):
    """Half a cosine wave from the peak to ``final_share`` of it (Loshchilov & Hutter 2017; CosineAnnealingLR)."""

    kind: Literal["cosine"]
    warmup_steps: _Steps
    final_share: _FinalShare


class StepSchedule(Section):
    """The rate is multiplied by ``factor`` every ``every_steps`` steps after warmup (torch: StepLR)."""

    kind: Literal["step"]
    warmup_steps: _Steps
    every_steps: int = Field(ge=1, description="steps between two drops")
    factor: float = Field(gt=0, le=1, description="what a drop multiplies the rate by")


class MultiStepSchedule(Section):
    """The rate is multiplied by ``factor`` at each of ``milestones`` (torch: MultiStepLR)."""

    kind: Literal["multistep"]
    warmup_steps: _Steps
    milestones: list[int] = Field(min_length=1, description="steps of the run, ascending, after warmup")
    factor: float = Field(gt=0, le=1, description="what a milestone multiplies the rate by")


class WsdSchedule(Section):
    """Warmup, stable, decay (Hu et al. 2024, arXiv:2404.06395): constant, then a line to ``final_share`` at the end."""

    kind: Literal["wsd"]
    warmup_steps: _Steps
    decay_steps: int = Field(ge=1, description="last steps of the run, in which the rate falls")
    final_share: _FinalShare


ScheduleParams = Annotated[
    ConstantSchedule | LinearSchedule | CosineSchedule | StepSchedule | MultiStepSchedule | WsdSchedule,
    Field(discriminator="kind"),
]

#: Schedules whose shape follows from the length of the run alone.
ScheduleKind = Literal["linear", "cosine", "constant"]


class ConstantBatch(Section):
    """Every step takes ``batch.tokens``."""

    kind: Literal["constant"]


class RampBatch(Section):
    """The batch grows in a line from ``start_tokens`` to ``batch.tokens`` over the first ``steps`` steps."""

    kind: Literal["ramp"]
    start_tokens: int = Field(ge=8, description="tokens of the first batch")
    steps: int = Field(ge=1, description="steps until the whole batch is reached")
    rate_scaling: Literal["none", "sqrt", "linear"] = Field(
        description="how the rate follows the batch's share of batch.tokens"
    )


class NoiseScaleBatch(Section):
    """The batch follows the gradient noise scale (McCandlish et al. 2018, arXiv:1812.06162), up to ``batch.tokens``."""

    kind: Literal["noise_scale"]
    min_tokens: int = Field(ge=8, description="tokens of the first batch, and of the smallest")
    every_steps: int = Field(ge=1, description="steps between two decisions")
    smoothing: float = Field(gt=0, lt=1, description="decay of the averages that the estimate is made of")
    factor: float = Field(gt=0, le=100, description="batch as a multiple of the noise scale")
    rate_scaling: Literal["none", "sqrt", "linear"] = Field(
        description="how the rate follows the batch's share of batch.tokens"
    )


BatchGrowth = Annotated[ConstantBatch | RampBatch | NoiseScaleBatch, Field(discriminator="kind")]


class BatchParams(Section):
    """What a step and what a pass reads."""

    tokens: int = Field(ge=8, description="tokens of an optimiser step over all processes; of the largest if it grows")
    micro_tokens: int | Literal["auto"] = Field(
        description="tokens of one forward and backward pass of one process; auto: the most that fit into memory"
    )
    growth: BatchGrowth

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.micro_tokens != "auto" and self.tokens % self.micro_tokens:
            raise ValueError(
                f"tokens {self.tokens} is not a multiple of micro_tokens {self.micro_tokens}; "
                f"allowed: {self.tokens}, {self.tokens} / 2, {self.tokens} / 3, …"
            )
        smallest = {"ramp": "start_tokens", "noise_scale": "min_tokens"}.get(self.growth.kind)
        if smallest and getattr(self.growth, smallest) > self.tokens:
            raise ValueError(f"growth.{smallest} {getattr(self.growth, smallest)} exceeds tokens {self.tokens}")
        return self


class CheckpointParams(Section):
    """When to save, and what to keep; the newest checkpoint stays in any case."""

    every_s: float = Field(gt=0, description="seconds between two checkpoints")
    every_steps: int = Field(ge=1, description="steps between two checkpoints to which a run that diverges rolls back")
    keep_last: int = Field(ge=2, le=100, description="newest checkpoints that are kept; one before it for damage")
    keep_best: int = Field(ge=0, le=100, description="checkpoints with the lowest held-out loss that are kept")
    milestone_steps: int = Field(ge=0, description="steps between two checkpoints that are never removed; 0 for none")


class StabilityParams(Section):
    """What happens when the loss jumps or is no number: skip the step, then roll back, then stop."""

    spike_deviations: float = Field(
        ge=0,
        description="standard deviations over the recent mean that make a spike; 0: only NaN and infinity",
    )
    window: int = Field(ge=10, le=10_000, description="recent steps that the mean is taken of")
    max_skips_in_a_row: int = Field(ge=1, description="skipped steps in a row that lead to a rollback")
    rate_factor: float = Field(gt=0, lt=1, description="what a rollback multiplies the learning rate by")
    max_rollbacks: int = Field(ge=0, description="rollbacks before the run stops with a diagnosis")

    @model_validator(mode="after")
    def _window_holds_the_skips(self) -> Self:
        if self.max_skips_in_a_row > self.window // 2:
            raise ValueError(
                f"max_skips_in_a_row {self.max_skips_in_a_row} exceeds half of window {self.window}; "
                f"allowed: at most {self.window // 2}, so that the mean is of steps that were not skipped"
            )
        return self


class AveragingParams(Section):
    """Exponential moving average of the weights."""

    decay: Share = Field(lt=1, description="share of the average that a step keeps; 0 for none")
