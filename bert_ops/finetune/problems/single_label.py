"""Tasks with one label a text or pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bert_ops.errors import InputError
from bert_ops.finetune import scores
from bert_ops.finetune.encoding import Rows
from bert_ops.finetune.params import TaskParams
from bert_ops.finetune.problems.base import Items, Logits, Problem, Weights, label_table, mean_by_example
from bert_ops.finetune.problems.checks import class_weights, present, refuse_unknown, refuse_unseen
from bert_ops.finetune.scores import Score

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


class SingleLabel(Problem[str, Floats]):
    """One label a text; the answers are probabilities (N, C)."""

    kind = "sequence_classification"
    huggingface = "single_label_classification"

    @classmethod
    def read(cls, frame: pd.DataFrame) -> list[str]:
        """Read the labels; see the base class."""
        return present(frame)

    @classmethod
    def infer(cls, train: Sequence[str], task: TaskParams) -> Self:
        """Take the labels of the training split, sorted.

        Raises:
            InputError: there is one only.

        """
        labels = sorted(set(train))
        if len(labels) < 2:
            raise InputError(
                f"the training split holds one label only: {labels[0]!r}",
                allowed="at least two",
                remedy="check the column of labels and the query; rows that were rejected stand in quarantine.parquet",
            )
        return cls(labels)

    def check(self, truth: Iterable[str], *, split: str) -> None:
        """Refuse labels that training never saw; see the base class."""
        refuse_unseen(Counter(truth), self.labels, split=split)

    def label_counts(self, truth: Sequence[str]) -> dict[str, int]:
        """Examples of each label."""
        return dict(sorted(Counter(truth).items()))

    def targets(self, truth: Sequence[str], rows: Rows, items: Items) -> NDArray[np.int64]:
        """Class ids (M,)."""
        return self.class_ids(truth)[items.example]

    def class_ids(self, truth: Sequence[str]) -> NDArray[np.int64]:
        """Class ids (N,) of labels."""
        index = {label: number for number, label in enumerate(self.labels)}
        return np.array([index[label] for label in truth], np.int64)

    def losses(
        self, logits_MC: Tensor, targets_M: Tensor, *, starts: NDArray[np.int64], smoothing: float = 0.0
    ) -> Tensor:
        """Cross-entropy (Szegedy et al. 2016, arXiv:1512.00567, section 7, with smoothing)."""
        return F.cross_entropy(logits_MC.float(), targets_M, reduction="none", label_smoothing=smoothing)

    def weights(self, wanted: Any, targets: NDArray[Any]) -> Weights | None:
        """Weights of classes; see the base class."""
        return class_weights(wanted, targets, self.labels)

    def answer(self, logits_MC: Logits, items: Items, rows: Rows) -> Floats:
        """Probabilities (N, C) of the mean logits of each text."""
        return softmax(mean_by_example(logits_MC, items, examples=rows.examples))

    def constant(self, train: Sequence[str]) -> tuple[Floats, str]:
        """Shares of the labels."""
        counts = Counter(train)
        shares = np.array([counts[label] / len(train) for label in self.labels])
        return shares, f"the most frequent training label, {self.labels[int(shares.argmax())]}"

    def repeated(self, answer: Floats, count: int) -> Floats:
        """Give the same shares to each text."""
        return np.tile(answer, (count, 1))

    def as_text(self, answers: Floats) -> list[str]:
        """Labels of the highest probability."""
        return [self.labels[index] for index in answers.argmax(1)]

    def from_text(self, texts: Sequence[str]) -> Floats:
        """Probability 1 for each label."""
        refuse_unknown(Counter(texts), self.labels)
        index = {label: number for number, label in enumerate(self.labels)}
        return np.eye(len(self.labels))[[index[text] for text in texts]]

    def truth_as_text(self, truth: Sequence[str]) -> list[str]:
        """Labels."""
        return list(truth)

    def confidence(self, answers: Floats) -> Floats:
        """Highest probabilities."""
        return np.asarray(answers.max(1), np.float64)

    def per_label(self, answers: Floats, truth: Sequence[str]) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support of each label."""
        given, actual = answers.argmax(1), self.class_ids(truth)
        counts = [np.bincount(ids, minlength=len(self.labels)) for ids in (given[given == actual], given, actual)]
        return label_table(self.labels, right=counts[0], given=counts[1], actual=counts[2])

    def mistakes(self, answers: Floats, truth: Sequence[str]) -> Floats:
        """1 for a wrong label."""
        return np.asarray(answers.argmax(1) != self.class_ids(truth), np.float64)

    def scores(self, answers: Floats, truth: Sequence[str]) -> dict[str, Score]:
        """Accuracy, macro F1, Matthews."""
        return scores.single_label(answers.argmax(1), self.class_ids(truth), labels=self.labels)


def softmax(logits_NC: Floats) -> Floats:
    """Probabilities over the last axis."""
    odds = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    out: Floats = odds / odds.sum(1, keepdims=True)
    return out
