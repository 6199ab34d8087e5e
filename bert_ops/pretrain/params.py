"""Section ``pretrain`` of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.model.params import ModelParams
from bert_ops.schema import Section, Seed, Share, Threads
from bert_ops.training.params import ClippingParams, OptimizerParams, Precision, ScheduleKind


class MaskingParams(Section):
    """Masked-language-model corruption (Devlin et al. 2019, section 3.1, Task #1)."""

    rate: float = Field(gt=0, lt=1, description="share of tokens to predict; BERT: 0.15")
    mask: Share = Field(description="share of those replaced by [MASK]; BERT: 0.8")
    random: Share = Field(description="share of those replaced by a random token; BERT: 0.1; the rest stay as they are")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask + self.random > 1:
            raise ValueError(f"mask {self.mask} + random {self.random} is {self.mask + self.random}; at most 1")
        return self


class PretrainScheduleParams(Section):
    """Learning rate over the run."""

    kind: ScheduleKind = Field(description="shape of the decay after warmup: linear, cosine or constant")
    warmup_steps: int = Field(ge=0, description="steps of linear warmup")
    final_share: Share = Field(description="share of the peak rate at the end")


class EmbeddingInitParams(Section):
    """Initial token embeddings."""

    kind: Literal["normal", "word2vec"] = Field(
        description="random, or word2vec (Mikolov et al. 2013) on the training split"
    )
    window: int = Field(ge=1, le=50, description="tokens on each side that word2vec looks at")
    epochs: int = Field(ge=1, le=100, description="word2vec passes over the training split")


class PretrainParams(Section):
    """Pretraining on masked tokens and sentence pairs."""

    seed: Seed
    threads: Threads
    precision: Precision = Field(description="of matrix products; weights and optimiser stay float32")
    model: ModelParams
    embedding_init: EmbeddingInitParams
    position_init: Literal["normal", "sinusoidal"] = Field(
        description="random, or the waves of Vaswani et al. 2017, section 3.5; learned from there either way"
    )
    sequence_tokens: int = Field(ge=8, description="tokens of the longest training example, special tokens included")
    batch_tokens: int = Field(ge=8, description="tokens a batch may hold, padding included")
    steps: int = Field(ge=1, description="optimiser steps")
    masking: MaskingParams
    next_sentence: bool = Field(description="train the next-sentence objective too (Task #2)")
    optimizer: OptimizerParams
    clipping: ClippingParams
    schedule: PretrainScheduleParams
    evaluate_every_steps: int = Field(ge=1, description="steps between two held-out evaluations")
    evaluation_sequences: int = Field(ge=1, description="held-out examples that an evaluation reads")
    checkpoint_every_s: float = Field(gt=0, description="seconds between two checkpoints")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.sequence_tokens > self.model.max_positions:
            raise ValueError(
                f"sequence_tokens {self.sequence_tokens} exceeds model.max_positions {self.model.max_positions}; "
                f"allowed: at most {self.model.max_positions}"
            )
        if self.batch_tokens < self.sequence_tokens:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is less than sequence_tokens {self.sequence_tokens}; "
                f"allowed: at least {self.sequence_tokens}"
            )
        if self.schedule.warmup_steps >= self.steps:
            raise ValueError(
                f"schedule.warmup_steps {self.schedule.warmup_steps} is not less than steps {self.steps}; "
                f"allowed: at most {self.steps - 1}"
            )
        return self
