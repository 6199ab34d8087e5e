"""Tests, intervals and calibration that the scores of the tasks (``finetune.scores``) are judged with.

Class ids are integers in ``[0, classes)``. Bootstrap intervals are percentile intervals (Efron & Tibshirani 1993,
chapter 13).
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
