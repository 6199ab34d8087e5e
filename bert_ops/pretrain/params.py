"""Section ``pretrain`` of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.model.params import ModelParams
from bert_ops.schema import Section, Seed, Share, Threads
from bert_ops.training.params import (
    AveragingParams,
    BatchParams,
    CheckpointParams,
    ClippingParams,
    OptimizerParams,
    Precision,
    ScheduleParams,
    StabilityParams,
)
from bert_ops.training.schedule_steps import misfit


class MaskingParams(Section):
    """Masked-language-model corruption (Devlin et al. 2019, section 3.1, Task #1)."""

    rate: float = Field(gt=0, lt=1, description="share of tokens to predict at the start; BERT: 0.15")
    final_rate: float = Field(gt=0, lt=1, description="share at the end; in between it moves in a line")
    mask: Share = Field(description="share of those replaced by [MASK]; BERT: 0.8")
    random: Share = Field(description="share of those replaced by a random token; BERT: 0.1; the rest stay as they are")
    whole_words: bool = Field(description="choose whole words (Cui et al. 2021), not single tokens")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask + self.random > 1:
            raise ValueError(f"mask {self.mask} + random {self.random} is {self.mask + self.random}; at most 1")
        return self


class EmbeddingInitParams(Section):
    """Initial token embeddings."""

    kind: Literal["normal", "word2vec"] = Field(
        description="random, or word2vec (Mikolov et al. 2013) on the training split"
    )
    window: int = Field(ge=1, le=50, description="tokens on each side that word2vec looks at")
    epochs: int = Field(ge=1, le=100, description="word2vec passes over the training split")
    max_tokens: int = Field(
        ge=1, description="tokens of a word2vec pass; of a larger split, blocks evenly spread over it"
    )


class PretrainParams(Section):
    """Pretraining on masked tokens and sentence pairs."""

    seed: Seed
    threads: Threads
    precision: Precision = Field(description="of matrix products; weights and optimiser stay float32")
    sharded: bool = Field(
        description="with several processes: divide weights and optimiser among them (FSDP2), for large models"
    )
    recompute_layers: bool = Field(
        description="compute each layer again in the backward pass instead of keeping its activations: less memory"
    )
    compile: bool = Field(description="torch.compile; pays on a GPU, gains nothing on a CPU and costs a minute there")
    model: ModelParams
    embedding_init: EmbeddingInitParams
    position_init: Literal["normal", "sinusoidal"] = Field(
        description="random, or the waves of Vaswani et al. 2017, section 3.5; learned from there either way"
    )
    sequence_tokens: int = Field(ge=8, description="tokens of a row, and of the longest example in it")
    steps: int = Field(ge=1, description="optimiser steps")
    batch: BatchParams
    masking: MaskingParams
    sentence_objective: Literal["nsp", "sop", "none"] = Field(
        description="next sentence (BERT's Task #2), sentence order (Lan et al. 2020), or none"
    )
    optimizer: OptimizerParams
    clipping: ClippingParams
    schedule: ScheduleParams
    averaging: AveragingParams
    stability: StabilityParams
    evaluate_every_steps: int = Field(ge=1, description="steps between two held-out evaluations")
    evaluation_sequences: int = Field(ge=1, description="held-out examples that an evaluation reads")
    log_every_steps: int = Field(ge=1, description="steps between two lines of the log")
    checkpoints: CheckpointParams

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.sequence_tokens > self.model.max_positions:
            raise ValueError(
                f"sequence_tokens {self.sequence_tokens} exceeds model.max_positions {self.model.max_positions}; "
                f"allowed: at most {self.model.max_positions}"
            )
        for name, tokens in (("tokens", self.batch.tokens), ("micro_tokens", self.batch.micro_tokens)):
            if tokens != "auto" and (tokens < self.sequence_tokens or tokens % self.sequence_tokens):
                raise ValueError(
                    f"batch.{name} {tokens} is no multiple of sequence_tokens {self.sequence_tokens}; "
                    f"allowed: {self.sequence_tokens}, {2 * self.sequence_tokens}, …"
                )
        found = misfit(self.schedule, steps=self.steps)
        if found is not None:
            raise ValueError(f"{found[0]}; allowed: {found[1]}")
        if self.model.positions == "rotary" and self.position_init != "normal":
            raise ValueError(
                f"position_init is {self.position_init}, and rotary positions are not learned; allowed: normal"
            )
        if self.batch.growth.kind == "noise_scale" and self.masking.rate != self.masking.final_rate:
            raise ValueError(
                "masking.final_rate differs from masking.rate; with batch.growth noise_scale nobody knows beforehand "
                "how far a unit is in the run; allowed: equal rates, or another growth"
            )
        return self
