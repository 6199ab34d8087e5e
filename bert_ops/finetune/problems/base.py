"""What differs between kinds of tasks: targets, loss, answers and scores. All else is one code for all.

A kind reads *items* of the rows: the first token of a row, or every token that has a tag. The model gives C logits an
item, and everything here is a function of these logits (M, C) and of the rows they belong to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bert_ops.finetune.encoding import Rows
from bert_ops.finetune.params import TaskParams
from bert_ops.finetune.scores import Score
from bert_ops.model.heads import HeadKind, TaskModel

if TYPE_CHECKING:
    import pandas as pd

#: True answer of an example, and the model's answers to all of them.
Truth = TypeVar("Truth")
Answers = TypeVar("Answers")

Ints = NDArray[np.int64]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Items:
    """What the model answers for.

    Args:
        places: (M,) column of each item in its row; those of a row stand together, ascending.
        starts: (R + 1,) first item of each row, and M.
        example: (M,) example of each item.

    """

    places: Ints
    starts: Ints
    example: Ints

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Weights:
    """Weights of the loss by output, (C,) float32; their mean over the items of the training split is 1."""

    by_output: NDArray[np.float32]


class Problem(ABC, Generic[Truth, Answers]):
    """A kind of task with the labels that its training split has; what an artifact must keep to answer.

    Args:
        labels: names of the outputs, in the order of the logits.

    """

    kind: ClassVar[str]
    head: ClassVar[HeadKind] = "sequence_classification"
    #: Name of ``transformers`` for what the head's logits mean.
    huggingface: ClassVar[str | None] = None
    #: Whether offsets of tokens are needed.
    with_offsets: ClassVar[bool] = False

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    @property
    def outputs(self) -> int:
        """Logits an item."""
        return len(self.labels)

    @property
    def shown_labels(self) -> list[str]:
        """Names of the outputs for ``transformers``, whose pipelines read them."""
        return self.labels

    @property
    def facts(self) -> dict[str, Any]:
        """What an artifact must say besides the labels, JSON."""
        return {}

    @classmethod
    def restore(cls, labels: list[str], facts: dict[str, Any]) -> Self:
        """Undo :attr:`facts`."""
        return cls(labels, **facts)

    # ------------------------------------------------------------ truth

    @classmethod
    @abstractmethod
    def read(cls, frame: pd.DataFrame) -> list[Truth]:
        """Read the true answers of examples.

        Raises:
            InputError: some have none, or one of another form.

        """

    @classmethod
    @abstractmethod
    def infer(cls, train: Sequence[Truth], task: TaskParams) -> Self:
        """Take labels and scales from the training split.

        Raises:
            InputError: it has nothing to tell apart.

        """

    @abstractmethod
    def check(self, truth: Iterable[Truth], *, split: str) -> None:
        """Refuse labels that training never saw.

        Raises:
            InputError: there are some; the message names them and how often they occur.

        """

    @abstractmethod
    def label_counts(self, truth: Sequence[Truth]) -> dict[str, int]:
        """How often each label stands in true answers, by name; empty where there are none."""

    def tells_apart(self, truth: Sequence[Truth]) -> bool:
        """Whether a score over these answers means anything: there are several."""
        return len(set(self.truth_as_text(truth))) > 1

    @abstractmethod
    def targets(self, truth: Sequence[Truth], rows: Rows, items: Items) -> NDArray[Any]:
        """What the loss compares the logits with, (M, …)."""

    # ------------------------------------------------------------ learning

    def items(self, rows: Rows) -> Items:
        """Return what the model answers for: one item a row, its first token."""
        return Items(np.zeros(len(rows), np.int64), np.arange(len(rows) + 1), rows.owner)

    @abstractmethod
    def losses(self, logits_MC: Tensor, targets_M: Tensor, *, starts: Ints, smoothing: float = 0.0) -> Tensor:
        """Loss of each item in nats (squares for regression), (M,) float32.

        ``starts`` (R + 1,) is the first item of each row, and M.
        """

    def weights(self, wanted: Any, targets: NDArray[Any]) -> Weights | None:
        """Weights of the loss as ``class_weights`` of the task says; None for none.

        Raises:
            InputError: a label is unknown, or one has no weight.

        """
        assert wanted == "none"
        return None

    def weighted(self, losses_M: Tensor, targets_M: Tensor, weights_C: Tensor) -> Tensor:
        """Multiply each item's loss by the weight of its target."""
        return losses_M * weights_C[targets_M]

    def folded(self, model: TaskModel) -> Self:
        """Work what only this class knows into the model's weights; return the problem of what comes of it."""
        return self

    # ------------------------------------------------------------ answering

    @abstractmethod
    def answer(self, logits_MC: Logits, items: Items, rows: Rows) -> Answers:
        """Turn logits into answers, one an example."""

    @abstractmethod
    def constant(self, train: Sequence[Truth]) -> tuple[Any, str]:
        """The one answer that suits most of the training split, and what it is in words."""

    @abstractmethod
    def repeated(self, answer: Any, count: int) -> Answers:
        """An answer of :meth:`constant` to each of ``count`` texts."""

    @abstractmethod
    def as_text(self, answers: Answers) -> list[str]:
        """Answers as tables hold them, in the form of the column they are compared with."""

    @abstractmethod
    def from_text(self, texts: Sequence[str]) -> Answers:
        """Undo :meth:`as_text`; of probabilities only what they decide comes back.

        Raises:
            InputError: an answer is of another form, or names an unknown label.

        """

    @abstractmethod
    def truth_as_text(self, truth: Sequence[Truth]) -> list[str]:
        """True answers in the form of :meth:`as_text`."""

    @abstractmethod
    def confidence(self, answers: Answers) -> NDArray[np.float64]:
        """Probability of each answer, (N,); NaN where the kind gives none."""

    @abstractmethod
    def mistakes(self, answers: Answers, truth: Sequence[Truth]) -> NDArray[np.float64]:
        """How far off each answer is, (N,): 0 is right, more is worse."""

    def per_label(self, answers: Answers, truth: Sequence[Truth]) -> dict[str, dict[str, float]] | None:
        """Precision, recall, F1 and support of each label; None where there are no labels."""
        return None

    @abstractmethod
    def scores(self, answers: Answers, truth: Sequence[Truth]) -> dict[str, Score]:
        """Every score of the kind, by name."""


def mean_by_example(logits_MC: Logits, items: Items, *, examples: int) -> NDArray[np.float64]:
    """Mean logits of each example over its windows, (N, C)."""
    sums = np.zeros((examples, logits_MC.shape[1]))
    np.add.at(sums, items.example, logits_MC)
    counts = np.bincount(items.example, minlength=examples)
    out: NDArray[np.float64] = sums / np.maximum(counts, 1)[:, None]
    return out


def label_table(
    labels: Sequence[str], *, right: NDArray[Any], given: NDArray[Any], actual: NDArray[Any]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support from counts (C,) of right, given and true labels; 0 where none is below."""
    precision, recall = right / np.maximum(given, 1), right / np.maximum(actual, 1)
    f1 = 2 * right / np.maximum(given + actual, 1)
    rows = zip(labels, precision, recall, f1, actual, strict=True)
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for label, p, r, f, n in rows
    }
