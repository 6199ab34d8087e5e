"""Sections ``finetune``, ``baselines`` and ``tasks.*`` of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section, Seed, Share, Threads
from bert_ops.training.params import (
    ClippingParams,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    OptimizerParams,
    Precision,
    ScheduleKind,
    ScheduleParams,
    StabilityParams,
)


class TaskParams(Section):
    """A task: what its model reads and what it answers."""

    kind: Literal["sequence_classification"] = Field(description="one label a text")
    max_tokens: int = Field(
        ge=3, description="tokens of a text that the model reads, special tokens included; the rest is cut"
    )


class FinetuneScheduleParams(Section):
    """Learning rate over the run, relative to its length."""

    kind: ScheduleKind = Field(description="shape of the decay after warmup: linear, cosine or constant")
    warmup_share: float = Field(ge=0, lt=1, description="share of the steps that the rate rises in")
    final_share: Share = Field(description="share of the peak rate at the end")

    def over(self, total_steps: int) -> ScheduleParams:
        """The schedule of a run of this length."""
        warmup = int(self.warmup_share * total_steps)
        if self.kind == "constant":
            return ConstantSchedule(kind="constant", warmup_steps=warmup)
        shape = LinearSchedule if self.kind == "linear" else CosineSchedule
        return shape.model_validate({"kind": self.kind, "warmup_steps": warmup, "final_share": self.final_share})


class FinetuneParams(Section):
    """Tuning a pretrained encoder for a task."""

    seed: Seed
    threads: Threads
    precision: Precision = Field(description="of matrix products; weights and optimiser stay float32")
    epochs: int = Field(ge=1, le=1000, description="passes over the training split")
    batch_examples: int = Field(ge=1, description="examples in a batch")
    hidden_dropout: float = Field(ge=0, lt=1, description="share of hidden units dropped while tuning")
    attention_dropout: float = Field(ge=0, lt=1, description="share of attention weights dropped while tuning")
    classifier_dropout: float = Field(ge=0, lt=1, description="share of the features before the classifier dropped")
    token_masking: float = Field(ge=0, lt=1, description="share of a training text's tokens replaced by [MASK]")
    average_decay: float = Field(
        ge=0, lt=1, description="decay of the moving average of the weights that is kept; 0 keeps single steps"
    )
    optimizer: OptimizerParams
    clipping: ClippingParams
    schedule: FinetuneScheduleParams
    stability: StabilityParams
    evaluations_per_epoch: int = Field(
        ge=1, le=100, description="measurements of training and validation loss in an epoch"
    )
    probe_examples: int = Field(
        ge=1, description="fixed training examples on which the training loss is measured without dropout"
    )


class TfidfParams(Section):
    """TF-IDF over characters with logistic regression, by scikit-learn."""

    ngram_min: int = Field(ge=1, le=8, description="characters of the shortest n-gram")
    ngram_max: int = Field(ge=1, le=8, description="characters of the longest n-gram")
    min_document_frequency: int = Field(ge=1, description="texts that an n-gram must occur in")
    sublinear: bool = Field(description="1 + log(count) instead of the count")
    inverse_regularization: list[float] = Field(
        min_length=1, description="values of C to try; the validation split chooses"
    )

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.ngram_min > self.ngram_max:
            raise ValueError(f"ngram_min {self.ngram_min} exceeds ngram_max {self.ngram_max}")
        if min(self.inverse_regularization) <= 0:
            raise ValueError(f"inverse_regularization is {self.inverse_regularization}; each must be positive")
        return self


class BaselinesParams(Section):
    """What a task's model must beat."""

    tfidf: TfidfParams
