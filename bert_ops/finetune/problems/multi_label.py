"""Tasks with any number of labels a text or pair of texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bert_ops.errors import InputError
from bert_ops.finetune import scores
from bert_ops.finetune.encoding import Rows
from bert_ops.finetune.params import TaskParams
from bert_ops.finetune.problems.base import Items, Logits, Problem, Weights, label_table, mean_by_example
from bert_ops.finetune.problems.checks import named_weights, present, refuse_unknown, refuse_unseen
from bert_ops.finetune.scores import Score

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


class MultiLabel(Problem[list[str], Floats]):
    """Any number of labels a text; the answers are probabilities (N, C), each by itself."""

    kind = "multi_label_classification"
    huggingface = "multi_label_classification"
    #: Probability from which a label counts as given.
    threshold = 0.5

    @classmethod
    def read(cls, frame: pd.DataFrame) -> list[list[str]]:
        """Read lists of labels, JSON; see the base class."""
        rows = zip(frame["example_id"], present(frame), strict=True)
        return [_label_list(text, where=f"example {example}") for example, text in rows]

    @classmethod
    def infer(cls, train: Sequence[list[str]], task: TaskParams) -> Self:
        """Take the labels of the training split, sorted.

        Raises:
            InputError: there is none.

        """
        labels = sorted({label for item in train for label in item})
        if not labels:
            raise InputError(
                "no example of the training split has a label",
                allowed="at least one label",
                remedy="check the column and the query; rows that were rejected stand in quarantine.parquet",
            )
        return cls(labels)

    def check(self, truth: Iterable[list[str]], *, split: str) -> None:
        """Refuse labels that training never saw; see the base class."""
        refuse_unseen(Counter(label for item in truth for label in item), self.labels, split=split)

    def label_counts(self, truth: Sequence[list[str]]) -> dict[str, int]:
        """Examples that have each label."""
        return dict(sorted(Counter(label for item in truth for label in item).items()))

    def targets(self, truth: Sequence[list[str]], rows: Rows, items: Items) -> NDArray[np.float32]:
        """One for every label that holds, (M, C)."""
        return self._indicators(truth).astype(np.float32)[items.example]

    def losses(
        self, logits_MC: Tensor, targets_M: Tensor, *, starts: NDArray[np.int64], smoothing: float = 0.0
    ) -> Tensor:
        """Binary cross-entropy, the mean over labels."""
        smoothed = targets_M * (1.0 - smoothing) + 0.5 * smoothing
        return F.binary_cross_entropy_with_logits(logits_MC.float(), smoothed, reduction="none").mean(1)

    def weights(self, wanted: Any, targets: NDArray[Any]) -> Weights | None:
        """Weights of labels that hold; see the base class."""
        if wanted == "none":
            return None
        if wanted == "balanced":
            positive = targets.mean(0)
            return Weights(((1.0 - positive) / np.maximum(positive, 1.0 / len(targets))).astype(np.float32))
        return Weights(named_weights(wanted, self.labels))

    def weighted(self, losses_M: Tensor, targets_M: Tensor, weights_C: Tensor) -> Tensor:
        """Multiply each text's loss by the mean weight of its labels, with 1 for those that do not hold."""
        return losses_M * (1.0 + targets_M * (weights_C - 1.0)).mean(1)

    def answer(self, logits_MC: Logits, items: Items, rows: Rows) -> Floats:
        """Probabilities (N, C) of the mean logits of each text."""
        mean_NC = mean_by_example(logits_MC, items, examples=rows.examples)
        out: Floats = torch.sigmoid(torch.from_numpy(mean_NC)).numpy()
        return out

    def constant(self, train: Sequence[list[str]]) -> tuple[Floats, str]:
        """Shares of the labels; those that most texts have are given."""
        shares = self._indicators(train).mean(0)
        given = [label for label, share in zip(self.labels, shares, strict=True) if share >= self.threshold]
        return shares, f"the labels that most training texts have: {', '.join(given) or 'none'}"

    def repeated(self, answer: Floats, count: int) -> Floats:
        """Give the same shares to each text."""
        return np.tile(answer, (count, 1))

    def as_text(self, answers: Floats) -> list[str]:
        """JSON lists of labels."""
        return [
            json.dumps([self.labels[index] for index in np.flatnonzero(row >= self.threshold)], ensure_ascii=False)
            for row in answers
        ]

    def from_text(self, texts: Sequence[str]) -> Floats:
        """Probability 1 for each label that is given."""
        lists = [_label_list(text, where="an answer") for text in texts]
        refuse_unknown(Counter(label for item in lists for label in item), self.labels)
        return self._indicators(lists).astype(np.float64)

    def truth_as_text(self, truth: Sequence[list[str]]) -> list[str]:
        """JSON lists of labels."""
        return [json.dumps(labels, ensure_ascii=False) for labels in truth]

    def confidence(self, answers: Floats) -> Floats:
        """Probability of the whole set of labels, if they were independent of each other."""
        return np.asarray(np.where(answers >= self.threshold, answers, 1.0 - answers).prod(1), np.float64)

    def per_label(self, answers: Floats, truth: Sequence[list[str]]) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support of each label."""
        given, actual = answers >= self.threshold, self._indicators(truth)
        return label_table(self.labels, right=(given & actual).sum(0), given=given.sum(0), actual=actual.sum(0))

    def mistakes(self, answers: Floats, truth: Sequence[list[str]]) -> Floats:
        """Labels that are missing or too many."""
        return np.asarray(((answers >= self.threshold) != self._indicators(truth)).sum(1), np.float64)

    def scores(self, answers: Floats, truth: Sequence[list[str]]) -> dict[str, Score]:
        """Micro and macro F1, share of texts with exactly their labels."""
        return scores.multi_label(answers >= self.threshold, self._indicators(truth), labels=self.labels)

    def _indicators(self, truth: Sequence[list[str]]) -> NDArray[np.bool_]:
        index = {label: number for number, label in enumerate(self.labels)}
        out = np.zeros((len(truth), len(self.labels)), bool)
        for row, labels in enumerate(truth):
            out[row, [index[label] for label in labels]] = True
        return out


def _label_list(text: str, *, where: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(label, str) and label for label in value):
        raise InputError(
            f"{where}: the label {text[:80]!r} is no JSON list of labels",
            remedy="name the column of lists in ingest.sources.SOURCE.labels, or choose another kind of task",
        )
    return sorted(set(value))
