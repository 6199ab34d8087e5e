"""Tasks with an answer a text: one label, several labels, a number."""

from __future__ import annotations

import json
import math
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
from bert_ops.finetune.problems.base import Items, Logits, Problem, Weights, mean_by_example
from bert_ops.finetune.scores import Score
from bert_ops.model.encoder import TaskModel

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
        return _present(frame)

    @classmethod
    def infer(cls, train: Sequence[str], task: TaskParams) -> Self:
        """Take the labels of the training split, sorted.

        Raises:
            InputError: there is one only.

        """
        labels = sorted(set(train))
        if len(labels) < 2:
            raise InputError(f"the training split holds one label only: {labels[0]!r}", allowed="at least two")
        return cls(labels)

    def check(self, truth: Iterable[str], *, split: str) -> None:
        """Refuse labels that training never saw; see the base class."""
        refuse_unseen(Counter(truth), self.labels, split=split)

    def targets(self, truth: Sequence[str], rows: Rows, items: Items) -> NDArray[np.int64]:
        """Class ids (M,)."""
        index = {label: number for number, label in enumerate(self.labels)}
        return np.array([index[label] for label in truth], np.int64)[items.example]

    def losses(self, logits_MC: Tensor, targets_M: Tensor, *, smoothing: float = 0.0) -> Tensor:
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

    def confidence(self, answers: Floats) -> Floats:
        """Highest probabilities."""
        return np.asarray(answers.max(1), np.float64)

    def scores(self, answers: Floats, truth: Sequence[str]) -> dict[str, Score]:
        """Accuracy, macro F1, Matthews."""
        index = {label: number for number, label in enumerate(self.labels)}
        actual = np.array([index[label] for label in truth], np.int64)
        return scores.single_label(answers.argmax(1), actual, labels=self.labels)


class MultiLabel(Problem[list[str], Floats]):
    """Any number of labels a text; the answers are probabilities (N, C), each by itself."""

    kind = "multi_label_classification"
    huggingface = "multi_label_classification"
    #: Probability from which a label counts as given.
    threshold = 0.5

    @classmethod
    def read(cls, frame: pd.DataFrame) -> list[list[str]]:
        """Read lists of labels, JSON; see the base class."""
        out = []
        for example, text in zip(frame["example_id"], _present(frame), strict=True):
            try:
                value = json.loads(text)
            except ValueError:
                value = None
            if not isinstance(value, list) or not all(isinstance(label, str) and label for label in value):
                raise InputError(
                    f"example {example}: the label {text[:80]!r} is no JSON list of labels",
                    remedy="name the column of lists in ingest.sources.SOURCE.labels, or choose another kind of task",
                )
            out.append(sorted(set(value)))
        return out

    @classmethod
    def infer(cls, train: Sequence[list[str]], task: TaskParams) -> Self:
        """Take the labels of the training split, sorted.

        Raises:
            InputError: there is none.

        """
        labels = sorted({label for item in train for label in item})
        if not labels:
            raise InputError("no example of the training split has a label", allowed="at least one label")
        return cls(labels)

    def check(self, truth: Iterable[list[str]], *, split: str) -> None:
        """Refuse labels that training never saw; see the base class."""
        refuse_unseen(Counter(label for item in truth for label in item), self.labels, split=split)

    def targets(self, truth: Sequence[list[str]], rows: Rows, items: Items) -> NDArray[np.float32]:
        """One for every label that holds, (M, C)."""
        return self._indicators(truth).astype(np.float32)[items.example]

    def losses(self, logits_MC: Tensor, targets_M: Tensor, *, smoothing: float = 0.0) -> Tensor:
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

    def confidence(self, answers: Floats) -> Floats:
        """Probability of the whole set of labels, if they were independent of each other."""
        return np.asarray(np.where(answers >= self.threshold, answers, 1.0 - answers).prod(1), np.float64)

    def scores(self, answers: Floats, truth: Sequence[list[str]]) -> dict[str, Score]:
        """Micro and macro F1, share of texts with exactly their labels."""
        return scores.multi_label(answers >= self.threshold, self._indicators(truth), labels=self.labels)

    def _indicators(self, truth: Sequence[list[str]]) -> NDArray[np.bool_]:
        index = {label: number for number, label in enumerate(self.labels)}
        out = np.zeros((len(truth), len(self.labels)), bool)
        for row, labels in enumerate(truth):
            out[row, [index[label] for label in labels]] = True
        return out


class Regression(Problem[float, Floats]):
    """A number a text; the answers are numbers (N,).

    The model learns the number less the training split's mean, in its standard deviations, so that one learning rate
    suits thousandths and millions; :meth:`folded` turns the classifier's weights back into the task's own unit.

    Args:
        labels: a name for the one output.
        mean: of the training split.
        deviation: of the training split.

    """

    kind = "regression"
    huggingface = "regression"

    def __init__(self, labels: list[str], *, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__(labels)
        self.mean, self.deviation = mean, deviation

    @classmethod
    def read(cls, frame: pd.DataFrame) -> list[float]:
        """Read numbers; see the base class."""
        out = []
        for example, text in zip(frame["example_id"], _present(frame), strict=True):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise InputError(
                    f"example {example}: {text[:80]!r} is no number",
                    remedy="name the column of numbers in ingest.sources.SOURCE.value, or choose another kind of task",
                )
            out.append(value)
        return out

    @classmethod
    def infer(cls, train: Sequence[float], task: TaskParams) -> Self:
        """Take mean and deviation of the training split.

        Raises:
            InputError: all numbers are the same.

        """
        values = np.asarray(train, np.float64)
        if values.min() == values.max():
            raise InputError(f"every example of the training split has the value {values[0]:g}", allowed="several")
        return cls(["value"], mean=float(values.mean()), deviation=float(values.std()))

    def check(self, truth: Iterable[float], *, split: str) -> None:
        """Take any number."""

    def targets(self, truth: Sequence[float], rows: Rows, items: Items) -> NDArray[np.float32]:
        """Standard deviations from the mean, (M,)."""
        values = (np.asarray(truth, np.float64) - self.mean) / self.deviation
        return values.astype(np.float32)[items.example]

    def losses(self, logits_MC: Tensor, targets_M: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Squared errors, in variances of the training split."""
        return (logits_MC.float()[:, 0] - targets_M).square()

    def folded(self, model: TaskModel) -> Self:
        """Scale and shift the classifier, so that it gives the task's own unit."""
        with torch.no_grad():
            model.classifier.weight.mul_(self.deviation)
            model.classifier.bias.mul_(self.deviation).add_(self.mean)
        return type(self)(self.labels)

    def answer(self, logits_MC: Logits, items: Items, rows: Rows) -> Floats:
        """Numbers (N,) in the task's own unit."""
        return mean_by_example(logits_MC, items, examples=rows.examples)[:, 0] * self.deviation + self.mean

    def constant(self, train: Sequence[float]) -> tuple[float, str]:
        """Take the mean."""
        mean = float(np.mean(train))
        return mean, f"the mean of the training split, {mean:g}"

    def repeated(self, answer: float, count: int) -> Floats:
        """Give the same number to each text."""
        return np.full(count, answer)

    def as_text(self, answers: Floats) -> list[str]:
        """Numbers as text."""
        return [repr(float(value)) for value in answers]

    def confidence(self, answers: Floats) -> Floats:
        """NaN: a number comes without a probability."""
        return np.full(len(answers), np.nan)

    def scores(self, answers: Floats, truth: Sequence[float]) -> dict[str, Score]:
        """Correlations, R² and errors."""
        return scores.regression(answers, np.asarray(truth, np.float64))


def softmax(logits_NC: Floats) -> Floats:
    """Probabilities over the last axis."""
    odds = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    out: Floats = odds / odds.sum(1, keepdims=True)
    return out


def class_weights(wanted: Any, targets: NDArray[Any], names: list[str]) -> Weights | None:
    """Weights of classes: none, by inverse frequency, or as named; scaled to a mean of 1 over the targets.

    Raises:
        InputError: a name is unknown, or one has no weight.

    """
    if wanted == "none":
        return None
    counts = np.bincount(targets, minlength=len(names)).astype(np.float64)
    by_name = 1.0 / np.maximum(counts, 1.0) if wanted == "balanced" else named_weights(wanted, names)
    return Weights((by_name * (counts.sum() / (by_name * counts).sum())).astype(np.float32))


def named_weights(wanted: dict[str, float], names: list[str]) -> NDArray[np.float32]:
    """Weights in the order of the names.

    Raises:
        InputError: a name is unknown, or one has no weight.

    """
    wrong = sorted(set(wanted) ^ set(names))
    if wrong:
        raise InputError(
            f"class_weights names {', '.join(map(repr, wanted))}; wrong or missing: {', '.join(map(repr, wrong))}",
            allowed=f"a weight for each of {', '.join(map(repr, names))}",
            remedy="correct tasks.TASK.class_weights, or set it to balanced",
        )
    return np.array([wanted[name] for name in names], np.float32)


def refuse_unseen(counts: Counter[str], labels: list[str], *, split: str) -> None:
    """Refuse labels of a split that training never saw.

    Raises:
        InputError: there are some.

    """
    unseen = sorted(set(counts) - set(labels))
    if unseen:
        shown = ", ".join(f"{label!r} ({counts[label]})" for label in unseen[:10])
        raise InputError(
            f"the {split} split has labels that training never saw: {shown}{', …' if len(unseen) > 10 else ''}",
            allowed=", ".join(map(repr, labels[:50])),
            remedy="add training examples of them, or correct the labels",
        )


def _present(frame: pd.DataFrame) -> list[str]:
    """Labels as they stand.

    Raises:
        InputError: some are missing.

    """
    absent = int(frame["label"].isna().sum())
    if absent:
        raise InputError(
            f"{absent} of {len(frame)} examples have no label",
            remedy="name the column that holds it in ingest.sources.SOURCE.label, or choose another kind of task",
        )
    labels: list[str] = frame["label"].tolist()
    return labels
