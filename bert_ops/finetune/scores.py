"""Scores of answers.

Every score here is a function of sums over examples: right answers, counts of a label, products of deviations. So one
bootstrap and one paired comparison serve all of them (``resampling.py``).

A ratio with nothing below the line is 0, as in scikit-learn and seqeval: F1, precision and recall without anything to
find or found, correlations where one side is constant, every score of no example at all. R² where the true numbers
are all the same is 1 if every answer is right, and 0 otherwise (scikit-learn's ``force_finite``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.finetune.spans import Span

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

#: Scores by kind of task; the first is what a task is judged by unless it says otherwise.
METRICS: dict[str, tuple[str, ...]] = {
    "sequence_classification": ("accuracy", "f1_macro", "matthews"),
    "multi_label_classification": ("f1_micro", "f1_macro", "subset_accuracy"),
    "regression": ("pearson", "spearman", "r2", "rmse", "mae"),
    "token_classification": ("entity_f1", "entity_precision", "entity_recall", "token_accuracy"),
}

#: Numbers from here on are refused: their squares and sums of these must be finite.
_LARGEST = 1e140


@dataclass(frozen=True, eq=False)
class Score:
    """A score that is a function of sums over examples.

    Most examples of a large set have the same statistics (right or wrong, of one class); each kind is held once.

    Args:
        name: of the score.
        kinds: (U, K) float64, statistics of each kind of example.
        kind_of: (N,) kind of each example.
        value: sums of statistics (..., K) -> scores (...), finite for every sum over examples, none included.
        higher_is_better: false for errors.

    """

    name: str
    kinds: Floats
    kind_of: Ints
    value: Callable[[Floats], Floats]
    higher_is_better: bool = True

    @property
    def statistics_NK(self) -> Floats:  # noqa: N802 (shapes stand in names)
        """Statistics of each example."""
        out: Floats = self.kinds[self.kind_of]
        return out


def score_of(
    name: str, statistics_NK: Floats, value: Callable[[Floats], Floats], *, higher_is_better: bool = True
) -> Score:
    """Return the score of examples with these statistics."""
    return Score(name, statistics_NK, np.arange(len(statistics_NK)), value, higher_is_better)


def evaluate_score(score: Score) -> float:
    """Value over all examples."""
    counts = np.bincount(score.kind_of, minlength=len(score.kinds)).astype(np.float64)
    return float(score.value(counts @ score.kinds))


# ---------------------------------------------------------------- labels of texts


def single_label(predicted: Ints, actual: Ints, *, labels: Sequence[str]) -> dict[str, Score]:
    """Accuracy, macro F1 over the classes that occur or are predicted, and Matthews' correlation.

    Args:
        predicted: (N,) class ids.
        actual: (N,) class ids.
        labels: names of the classes.

    """
    classes = len(labels)
    cells, row_N = np.unique(actual.astype(np.int64) * classes + predicted, return_inverse=True)
    of_actual, of_predicted = np.eye(classes)[cells // classes], np.eye(classes)[cells % classes]
    counts = np.concatenate([of_actual * of_predicted, of_predicted, of_actual], 1)
    values = {"accuracy": _recall, "f1_macro": _f1_macro, "matthews": _matthews}
    return {name: Score(name, counts, row_N, value) for name, value in values.items()}


def multi_label(predicted: Bools, actual: Bools, *, labels: Sequence[str]) -> dict[str, Score]:
    """Micro F1, macro F1 over the labels that occur or are predicted, and the share of texts with exactly their labels.

    Args:
        predicted: (N, C) whether a label is given.
        actual: (N, C) whether it holds.
        labels: their names.

    """
    assert predicted.shape == actual.shape == (len(actual), len(labels))
    packed = np.packbits(np.concatenate([predicted, actual], 1), axis=1)
    _, first, row_N = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    p, a = predicted[first], actual[first]
    counts = np.concatenate([p & a, p, a], 1).astype(np.float64)
    exact = np.stack([(p == a).all(1), np.ones(len(first))], 1).astype(np.float64)
    return {
        "f1_micro": Score("f1_micro", counts, row_N.reshape(-1), _f1_micro),
        "f1_macro": Score("f1_macro", counts, row_N.reshape(-1), _f1_macro),
        "subset_accuracy": Score("subset_accuracy", exact, row_N.reshape(-1), _share),
    }


def _thirds(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Right, predicted and actual of each label, (..., C) each."""
    right, predicted, actual = np.split(sums, 3, axis=-1)
    return right, predicted, actual


def _ratio(above: Floats, below: Floats) -> Floats:
    """Quotient; 0 where nothing is below the line."""
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=np.asarray(below) > 0)


def _share(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 1])


def _precision(sums: Floats) -> Floats:
    right, predicted, _ = _thirds(sums)
    return _ratio(right.sum(-1), predicted.sum(-1))


def _recall(sums: Floats) -> Floats:
    """Micro recall; of single labels, where every text has one, accuracy."""
    right, _, actual = _thirds(sums)
    return _ratio(right.sum(-1), actual.sum(-1))


def _f1_micro(sums: Floats) -> Floats:
    right, predicted, actual = _thirds(sums)
    return _ratio(2 * right.sum(-1), (predicted + actual).sum(-1))


def _f1_of(sums: Floats, *, number: int) -> Floats:
    right, predicted, actual = (part[..., number] for part in _thirds(sums))
    return _ratio(2 * right, predicted + actual)


def _f1_macro(sums: Floats) -> Floats:
    """Mean over the labels that occur or are predicted (scikit-learn's ``average="macro"`` for single labels)."""
    right, predicted, actual = _thirds(sums)
    either = predicted + actual
    return _ratio(_ratio(2 * right, either).sum(-1), (either > 0).sum(-1))


def _matthews(sums: Floats) -> Floats:
    """R_K of Gorodkin 2004, eq. 8, which is Matthews' correlation for two classes; 0 if one side has one class only."""
    right, predicted, actual = _thirds(sums)
    total = actual.sum(-1)
    covariance = right.sum(-1) * total - (predicted * actual).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (actual**2).sum(-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0.0)))


# ---------------------------------------------------------------- numbers


def regression(predicted: Floats, actual: Floats) -> dict[str, Score]:
    """Pearson's and Spearman's correlation, R², root mean squared and mean absolute error.

    Spearman's is Pearson's of ranks in the whole set, ties averaged; a resample keeps these ranks.

    Args:
        predicted: (N,) numbers.
        actual: (N,) numbers.

    Raises:
        InputError: a number is not finite, or so large that sums of its square are not.

    """
    bad = int((~((np.abs(predicted) < _LARGEST) & (np.abs(actual) < _LARGEST))).sum())
    if bad:
        raise InputError(
            f"{bad:,} of {len(actual):,} answers or true numbers are not finite, or {_LARGEST:g} and more",
            remedy="if training diverged, lower finetune.optimizer.lr; otherwise scale the numbers",
        )
    errors = np.stack([np.abs(predicted - actual), (predicted - actual) ** 2], 1)
    linear = _moments(predicted, actual)
    statistics = np.concatenate([linear, errors], 1)
    ranks = _moments(_ranks(predicted), _ranks(actual))
    return {
        "pearson": score_of("pearson", linear, _correlation),
        "spearman": score_of("spearman", ranks, _correlation),
        "r2": score_of("r2", statistics, _r2),
        "rmse": score_of(
            "rmse", statistics, lambda sums: np.sqrt(_ratio(sums[..., 7], sums[..., 0])), higher_is_better=False
        ),
        "mae": score_of("mae", statistics, lambda sums: _ratio(sums[..., 6], sums[..., 0]), higher_is_better=False),
    }


def _moments(x: Floats, y: Floats) -> Floats:
    """``1, x, y, xx, yy, xy`` of each example, about the means of the whole set (sums of squares stay exact)."""
    x, y = (values - values.mean() if len(values) else values for values in (x, y))
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], 1)


def _spread(sums: Floats, first: int, second: int) -> Floats:
    """Sum of squared deviations from the mean of these examples; 0 where it is no more than rounding."""
    total, linear, square = sums[..., 0], sums[..., first], sums[..., second]
    spread = square - _ratio(linear**2, total)
    return np.where(spread > 1e-12 * square, spread, 0.0)


def _correlation(sums: Floats) -> Floats:
    together = sums[..., 5] - _ratio(sums[..., 1] * sums[..., 2], sums[..., 0])
    # Roots apart: a product of two small spreads underflows.
    return np.clip(_ratio(together, np.sqrt(_spread(sums, 1, 3)) * np.sqrt(_spread(sums, 2, 4))), -1.0, 1.0)


def _r2(sums: Floats) -> Floats:
    spread, squares = _spread(sums, 2, 4), sums[..., 7]
    constant = np.where((squares > 0) | (sums[..., 0] == 0), 0.0, 1.0)
    return np.where(spread > 0, 1.0 - _ratio(squares, spread), constant)


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, those of equal values averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    out: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return out


# ---------------------------------------------------------------- spans


def tagging(
    predicted: Sequence[Sequence[Span]],
    actual: Sequence[Sequence[Span]],
    *,
    labels: Sequence[str],
    tags: tuple[Ints, Ints, Ints] | None = None,
) -> dict[str, Score]:
    """Micro F1, precision and recall of spans, F1 of each label as ``entity_f1_LABEL``, accuracy of tokens' tags.

    A span is right if its beginning, end and label are; with spans read from tags this is seqeval's count in its
    default mode.

    Args:
        predicted: spans of each text.
        actual: spans of each text.
        labels: of all spans.
        tags: predicted (M,) and actual (M,) tags of the tokens and the first token of each text, (N + 1,); tokens
            whose actual tag is negative do not count. None: there is no ``token_accuracy``.

    """
    number = {label: place for place, label in enumerate(labels)}
    kinds: dict[bytes, int] = {}
    row_N = np.empty(len(actual), np.int64)
    for example, (given, true) in enumerate(zip(predicted, actual, strict=True)):
        found, wanted = set(given), set(true)
        row = np.zeros((3, len(labels)))
        for part, spans in zip(row, (found & wanted, found, wanted), strict=True):
            for span in spans:
                part[number[span[2]]] += 1
        row_N[example] = kinds.setdefault(row.tobytes(), len(kinds))
    counts = np.frombuffer(b"".join(kinds), np.float64).reshape(len(kinds), 3 * len(labels))
    values = {"entity_f1": _f1_micro, "entity_precision": _precision, "entity_recall": _recall}
    values |= {f"entity_f1_{label}": partial(_f1_of, number=place) for label, place in number.items()}
    scores = {name: Score(name, counts, row_N, value) for name, value in values.items()}
    return scores if tags is None else {**scores, "token_accuracy": _token_accuracy(*tags)}


def _token_accuracy(predicted: Ints, actual: Ints, starts: Ints) -> Score:
    counts = np.stack([(predicted == actual) & (actual >= 0), actual >= 0], 1).astype(np.float64)
    sums = np.concatenate([np.zeros((1, 2)), counts.cumsum(0)])
    rows, row_N = np.unique(sums[starts[1:]] - sums[starts[:-1]], axis=0, return_inverse=True)
    return Score("token_accuracy", rows, row_N.reshape(-1), _share)
