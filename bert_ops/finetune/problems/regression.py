"""Tasks with a number a text or pair of texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bert_ops.errors import InputError
from bert_ops.finetune import scores
from bert_ops.finetune.encoding import Rows
from bert_ops.finetune.params import TaskParams
from bert_ops.finetune.problems.base import Items, Logits, Problem, mean_by_example
from bert_ops.finetune.problems.checks import present
from bert_ops.finetune.scores import Score
from bert_ops.model.heads import TaskModel

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


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
        rows = zip(frame["example_id"], present(frame), strict=True)
        return [_number(text, where=f"example {example}") for example, text in rows]

    @classmethod
    def infer(cls, train: Sequence[float], task: TaskParams) -> Self:
        """Take mean and deviation of the training split.

        Raises:
            InputError: all numbers are the same.

        """
        values = np.asarray(train, np.float64)
        if values.min() == values.max():
            raise InputError(
                f"every example of the training split has the value {values[0]:g}",
                allowed="several",
                remedy="check the column and the query; rows that were rejected stand in quarantine.parquet",
            )
        return cls(["value"], mean=float(values.mean()), deviation=float(values.std()))

    def check(self, truth: Iterable[float], *, split: str) -> None:
        """Take any number."""

    def label_counts(self, truth: Sequence[float]) -> dict[str, int]:
        """None: numbers have no labels."""
        return {}

    def targets(self, truth: Sequence[float], rows: Rows, items: Items) -> NDArray[np.float32]:
        """Standard deviations from the mean, (M,)."""
        values = (np.asarray(truth, np.float64) - self.mean) / self.deviation
        return values.astype(np.float32)[items.example]

    def losses(
        self, logits_MC: Tensor, targets_M: Tensor, *, starts: NDArray[np.int64], smoothing: float = 0.0
    ) -> Tensor:
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

    def from_text(self, texts: Sequence[str]) -> Floats:
        """Numbers."""
        return np.array([_number(text, where="an answer") for text in texts], np.float64)

    def truth_as_text(self, truth: Sequence[float]) -> list[str]:
        """Numbers as text."""
        return [repr(float(value)) for value in truth]

    def confidence(self, answers: Floats) -> Floats:
        """NaN: a number comes without a probability."""
        return np.full(len(answers), np.nan)

    def mistakes(self, answers: Floats, truth: Sequence[float]) -> Floats:
        """Absolute errors."""
        return np.abs(answers - np.asarray(truth, np.float64))

    def scores(self, answers: Floats, truth: Sequence[float]) -> dict[str, Score]:
        """Correlations, R² and errors."""
        return scores.regression(answers, np.asarray(truth, np.float64))


def _number(text: str, *, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{where}: {text[:80]!r} is no number",
            remedy="name the column of numbers in ingest.sources.SOURCE.value, or choose another kind of task",
        )
    return value
