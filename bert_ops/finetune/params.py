"""Sections ``finetune``, ``baselines`` and ``tasks.*`` of params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from bert_ops.finetune.layer_params import LayerParams
from bert_ops.schema import Section, Seed, Share, Threads, load_section, read_yaml, validate
from bert_ops.training.params import (
    CheckpointParams,
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

Truncation = Literal["head", "tail", "windows"]
ClassWeights = Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0.0, le=1000.0)]]


class _Task(Section):
    """What every task says: how its texts are read, and which score it is judged by."""

    max_tokens: int = Field(ge=3, description="tokens that the model reads at a time, special tokens included")
    truncation: Truncation = Field(
        description="of longer texts: head and tail read that end only, windows reads all in overlapping windows"
    )
    finetune: dict[str, Any] | None = Field(
        None, description="values of the section finetune that this task has otherwise, of the same form"
    )


class SequenceClassificationTask(_Task):
    """One label a text, or a pair of texts."""

    kind: Literal["sequence_classification"] = Field(description="one label a text or pair of texts")
    metric: Literal["accuracy", "f1_macro", "matthews"] = Field(description="score by which the task is judged")
    class_weights: ClassWeights = Field(
        description="of the loss: none, balanced (inverse frequency in training), or a weight for each label"
    )


class MultiLabelTask(_Task):
    """Any number of labels a text."""

    kind: Literal["multi_label_classification"] = Field(description="any number of labels a text or pair of texts")
    metric: Literal["f1_micro", "f1_macro", "subset_accuracy"] = Field(description="score by which the task is judged")
    class_weights: ClassWeights = Field(
        description="of the loss where a label holds: none, balanced (as if each label held half the time), or a "
        "weight for each label"
    )


class RegressionTask(_Task):
    """A number a text."""

    kind: Literal["regression"] = Field(description="a number a text or pair of texts")
    metric: Literal["pearson", "spearman", "r2"] = Field(description="score by which the task is judged")


class TokenClassificationTask(_Task):
    """Labelled spans of a text: entities, words, parts of speech."""

    kind: Literal["token_classification"] = Field(description="labelled spans of a text")
    metric: Literal["entity_f1", "entity_precision", "entity_recall"] = Field(
        description="score by which the task is judged"
    )
    class_weights: ClassWeights = Field(description="of the loss of tokens: none, balanced, or a weight for each tag")
    scheme: Literal["BIO", "BIOES"] = Field(description="tags that stand for spans while training")
    misaligned: Literal["widen", "drop", "fail"] = Field(
        description="spans that begin or end within a token: take the whole tokens, leave the span out, or stop"
    )
    loss: Literal["sequences", "tokens"] = Field(
        description="what training makes likely: all tags of a text, among the sequences that the scheme allows, or "
        "the tag of each token by itself"
    )
    mention_replacement: Share = Field(
        description="share of a training text's spans that give way to others of their label, drawn anew in each epoch"
    )

    @model_validator(mode="after")
    def _weights_are_of_tokens(self) -> Self:
        if self.loss == "sequences" and self.class_weights != "none":
            raise ValueError("class_weights weigh tokens, of which `loss: sequences` knows none; allowed: none")
        return self


TaskParams = Annotated[
    SequenceClassificationTask | MultiLabelTask | RegressionTask | TokenClassificationTask,
    Field(discriminator="kind"),
]
#: For reading a task, which may be of several kinds.
TASK: TypeAdapter[TaskParams] = TypeAdapter(TaskParams)


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


class BatchParams(Section):
    """What a step reads."""

    examples: int = Field(ge=1, description="examples of a step; of a text in windows each window is one")
    layout: Literal["bucketed", "packed"] = Field(
        description="bucketed: a row an example, those of similar length together; packed: several examples a row, "
        "in random order"
    )


class RunsParams(Section):
    """How often the task is learned, to say how far its score depends on chance."""

    kind: Literal["seeds", "folds"] = Field(
        description="seeds: the same split with further seeds; folds: each part of train and validation is held out "
        "once. The model that is kept is that of the first seed and of the split as it is, in both cases"
    )
    count: int = Field(ge=1, le=100, description="runs over which mean and interval are taken; 1: the kept one alone")

    @model_validator(mode="after")
    def _folds_are_several(self) -> Self:
        if self.kind == "folds" and self.count == 1:
            raise ValueError("count is 1; allowed with kind folds: 2 or more (for a single run: kind seeds)")
        return self


class EarlyStoppingParams(Section):
    """When a run ends before its last epoch."""

    patience: int = Field(ge=0, description="evaluations in a row without a better one that end the run; 0: never")


class FinetuneParams(Section):
    """Tuning a pretrained encoder for a task."""

    seed: Seed
    threads: Threads
    precision: Precision = Field(description="of matrix products; weights and optimiser stay float32")
    epochs: int = Field(ge=1, le=1000, description="passes over the training split")
    min_steps: int = Field(
        ge=0, description="steps at least, however small the training split (Mosbach et al. 2021, arXiv:2006.04884)"
    )
    batch: BatchParams
    layers: LayerParams
    hidden_dropout: float = Field(ge=0, lt=1, description="share of hidden units dropped while tuning")
    attention_dropout: float = Field(ge=0, lt=1, description="share of attention weights dropped while tuning")
    classifier_dropout: float = Field(ge=0, lt=1, description="share of the features before the classifier dropped")
    token_masking: float = Field(ge=0, lt=1, description="share of a training text's tokens replaced by [MASK]")
    label_smoothing: float = Field(
        ge=0, lt=1, description="share of the target spread evenly over the labels; regression has none"
    )
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
    keep: Literal["validation_loss", "metric"] = Field(
        description="the weights that are kept have the lowest validation loss, or the best score by the task's metric"
    )
    early_stopping: EarlyStoppingParams
    probe_examples: int = Field(
        ge=1, description="fixed training examples on which the training loss is measured without dropout"
    )
    runs: RunsParams
    log_every_steps: int = Field(ge=1, description="steps between two lines of the log")
    checkpoints: CheckpointParams


class _Regularized(Section):
    inverse_regularization: list[Annotated[float, Field(gt=0)]] = Field(
        min_length=1, description="values of C to try, each positive; the validation split chooses"
    )


class TfidfParams(_Regularized):
    """TF-IDF over characters with logistic regression, by scikit-learn."""

    ngram_min: int = Field(ge=1, le=8, description="characters of the shortest n-gram")
    ngram_max: int = Field(ge=1, le=8, description="characters of the longest n-gram")
    min_document_frequency: int = Field(ge=1, description="texts that an n-gram must occur in")
    sublinear: bool = Field(description="1 + log(count) instead of the count")

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.ngram_min > self.ngram_max:
            raise ValueError(f"ngram_min {self.ngram_min} exceeds ngram_max {self.ngram_max}")
        return self


class TaggerParams(_Regularized):
    """Logistic regression over each character and its neighbours, for tasks with spans."""


class BaselinesParams(Section):
    """What a task's model must beat."""

    tfidf: TfidfParams
    tagger: TaggerParams


def load_task(path: Path, name: str) -> TaskParams:
    """Read and validate ``tasks.NAME``.

    Raises:
        InputError: there is no such task, or a value of it is not allowed.

    """
    return load_section(path, f"tasks.{name}", TASK)


def load_finetune(path: Path, task: TaskParams, *, name: str) -> FinetuneParams:
    """Read and validate section ``finetune`` with the values that a task has otherwise.

    Raises:
        InputError: a value is not allowed; the message says where it stands.

    """
    return finetune_with(path, task.finetune, where=f"tasks.{name}.finetune")


def finetune_with(path: Path, changes: dict[str, Any] | None, *, where: str) -> FinetuneParams:
    """Read and validate section ``finetune`` with values that stand elsewhere.

    Raises:
        InputError: a value is not allowed; the message says where it stands.

    """
    params = load_section(path, "finetune", FinetuneParams)
    if changes is None:
        return params
    return validate(_merged(read_yaml(path)["finetune"], changes), FinetuneParams, where=where, source=path)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, key by key and level by level."""
    out = dict(base)
    for key, value in changes.items():
        inner = out.get(key)
        # Another kind of optimiser or schedule has other keys: it stands for itself.
        whole = isinstance(value, dict) and "kind" in value
        out[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) and not whole else value
    return out
