"""Scores of a classifier and how far they can be trusted.

Class ids are integers in ``[0, classes)``. Bootstrap intervals are percentile intervals (Efron & Tibshirani 1993,
chapter 13). For scores that are functions of a contingency table the resample is drawn from the table itself:
drawing N examples with replacement and counting them in cells is one multinomial draw over the cells, so the
distribution is the same and the cost does not grow with the number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Coverage of every interval; the keys of the metrics files say ``ci95``.
CONFIDENCE = 0.95

#: Values held at a time by the bootstrap of real-valued scores; bounds its memory to some 100 MiB.
_CHUNK_VALUES = 4_000_000

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float

    def as_list(self) -> list[float]:
        """Return ``[low, high]``, as the metrics files hold it."""
        return [self.low, self.high]


def confusion_matrix(actual: Ints, predicted: Ints, *, classes: int) -> NDArray[np.int64]:
    """Count examples by class: ``[classes, classes]``, rows are actual and columns predicted."""
    assert actual.shape == predicted.shape
    cells = actual.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def accuracy(confusion: NDArray[np.int64]) -> Floats:
    """Share of examples on the diagonal of ``[..., classes, classes]``."""
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return np.asarray(right / confusion.sum(axis=(-2, -1)))


def f1_by_class(confusion: NDArray[np.int64]) -> Floats:
    """F1 of each class, ``[..., classes]``: 2 TP / (2 TP + FP + FN); 0 where a class is neither seen nor predicted."""
    true_positive = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.asarray(2 * true_positive / np.maximum(either, 1))


def f1_macro(confusion: NDArray[np.int64]) -> Floats:
    """Unweighted mean of F1 over the classes that occur or are predicted (as scikit-learn's ``average="macro"``)."""
    present = (confusion.sum(axis=-1) + confusion.sum(axis=-2)) > 0
    return np.asarray((f1_by_class(confusion) * present).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


def per_class(confusion: NDArray[np.int64]) -> list[dict[str, float]]:
    """Precision, recall, F1 and support of each class; a ratio with nothing below the line is 0."""
    right = np.diagonal(confusion)
    precision = right / np.maximum(confusion.sum(axis=0), 1)
    recall = right / np.maximum(confusion.sum(axis=1), 1)
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for p, r, f, n in zip(precision, recall, f1_by_class(confusion), confusion.sum(axis=1), strict=True)
    ]


def resampled_tables(table: NDArray[np.int64], *, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Bootstrap a contingency table: ``[resamples, *table.shape]``, each with the same number of examples."""
    total = int(table.sum())
    assert total > 0, "an empty split is refused before anything is scored"
    drawn = rng.multinomial(total, table.reshape(-1) / total, size=resamples)
    return drawn.reshape(resamples, *table.shape)


def percentile_interval(samples: Floats) -> Interval:
    """Cut equal tails off the bootstrap distribution ``samples`` (Efron & Tibshirani 1993, eq. 13.5)."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def bootstrap_means(values: Floats, *, resamples: int, rng: np.random.Generator) -> Floats:
    """Means of ``resamples`` draws with replacement from ``values [N]``; memory is bounded for any N."""
    count = len(values)
    assert count > 0
    chunk = max(1, _CHUNK_VALUES // count)
    means = np.empty(resamples)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        means[start : start + size] = values[rng.integers(0, count, size=(size, count))].mean(axis=1)
    return means


@dataclass(frozen=True)
class PairedComparison:
    """Model against baseline on the same examples.

    ``difference`` is accuracy of the model minus accuracy of the baseline; ``p_value`` is McNemar's, two-sided.
    """

    difference: float
    interval: Interval
    p_value: float
    only_model_right: int
    only_baseline_right: int


def compare_paired(
    model_right: NDArray[np.bool_], baseline_right: NDArray[np.bool_], *, resamples: int, rng: np.random.Generator
) -> PairedComparison:
    """Compare two classifiers on the same examples ``[N]``.

    The interval is a paired percentile bootstrap (examples are resampled, both answers together: Efron & Tibshirani
    1993, chapter 8; Koehn 2004 for its use in NLP), the p-value McNemar's exact test.
    """
    assert model_right.shape == baseline_right.shape
    gained = int((model_right & ~baseline_right).sum())
    lost = int((~model_right & baseline_right).sum())
    total = len(model_right)
    drawn = resampled_tables(np.array([gained, lost, total - gained - lost]), resamples=resamples, rng=rng)
    samples = (drawn[:, 0] - drawn[:, 1]) / total
    return PairedComparison(
        difference=(gained - lost) / total,
        interval=percentile_interval(samples),
        p_value=mcnemar_exact(gained, lost),
        only_model_right=gained,
        only_baseline_right=lost,
    )


def mcnemar_exact(only_first_right: int, only_second_right: int) -> float:
    """Two-sided p-value of McNemar's test in its exact form: a binomial test of the disagreements at 1/2.

    Source: McNemar 1947; Dietterich 1998 recommends it for two classifiers on one test set.
    """
    from scipy.special import bdtr

    disagreements = only_first_right + only_second_right
    if disagreements == 0:
        return 1.0
    return float(min(1.0, 2.0 * bdtr(min(only_first_right, only_second_right), disagreements, 0.5)))


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and the bins behind it (empty bins left out)."""

    error: float
    confidence: list[float]
    accuracy: list[float]
    count: list[int]


def calibration(confidence: Floats, right: NDArray[np.bool_], *, bins: int) -> Calibration:
    """Measure the expected calibration error: distance of accuracy and confidence, averaged over bins by examples.

    Args:
        confidence: probability of the predicted class, ``[N]``, within [0, 1].
        right: whether the prediction was right, ``[N]``.
        bins: bins of equal width over [0, 1]; a value on an edge belongs to the bin below it.

    Source: Naeini et al. 2015; Guo et al. 2017, eq. 3.
    """
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    mean_confidence = np.bincount(index, weights=confidence, minlength=bins)[filled] / count[filled]
    mean_accuracy = np.bincount(index, weights=right.astype(float), minlength=bins)[filled] / count[filled]
    error = float((np.abs(mean_accuracy - mean_confidence) * count[filled]).sum() / len(confidence))
    return Calibration(error, mean_confidence.tolist(), mean_accuracy.tolist(), count[filled].tolist())
