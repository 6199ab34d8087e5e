"""Turn answers into results: scores, intervals, comparisons. Everything here is a function of data and seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.evaluate import metrics
from bert_ops.evaluate.inputs import Examples
from bert_ops.evaluate.overfitting import Overfitting
from bert_ops.evaluate.params import EvaluateParams
from bert_ops.seeding import generator

#: Digits kept of every number: more than any decision needs, few enough to read.
_DIGITS = 6


def score(
    probabilities: NDArray[np.float32],
    *,
    examples: Examples,
    labels: list[str],
    baselines: dict[str, NDArray[np.int64]],
    params: EvaluateParams,
    task: str,
) -> dict[str, Any]:
    """Score a model and its baselines on the test split.

    Args:
        probabilities: ``[N, labels]``, checked.
        examples: the test split.
        labels: names by class id.
        baselines: class ids ``[N]`` that each baseline answered.
        params: seed, resamples, bins.
        task: names the random streams, so that tasks do not share draws.

    Returns:
        JSON values: accuracy, accuracy_ci95, f1_macro, f1_macro_ci95, calibration, confusion, per_label, baselines.
    """
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    right = predicted == examples.actual
    results = _scores(predicted, examples.actual, labels=labels, params=params, stream=(task, "model"))
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = metrics.calibration(confidence, right, bins=params.calibration_bins)
    results["calibration"] = {
        "error": bins.error,
        "mean_confidence": float(confidence.mean()),
        "bins": {"confidence": bins.confidence, "accuracy": bins.accuracy, "count": bins.count},
    }
    results["baselines"] = {}
    for name, answers in baselines.items():
        paired = metrics.compare_paired(
            right,
            answers == examples.actual,
            resamples=params.bootstrap_resamples,
            rng=generator(params.seed, "evaluate", task, "paired", name),
        )
        own = _scores(answers, examples.actual, labels=labels, params=params, stream=(task, name))
        results["baselines"][name] = {
            **{key: own[key] for key in ("accuracy", "accuracy_ci95", "f1_macro")},
            "difference": paired.difference,
            "difference_ci95": paired.interval.as_list(),
            "p_value": paired.p_value,
            "only_model_right": paired.only_model_right,
            "only_baseline_right": paired.only_baseline_right,
            "outcome": outcome(paired.interval.low, paired.interval.high),
        }
    return results


def outcome(low: float, high: float) -> str:
    """Say what a difference's interval allows to say: ``better``, ``worse`` or ``not_told_apart``."""
    if low > 0.0:
        return "better"
    return "worse" if high < 0.0 else "not_told_apart"


def _scores(
    predicted: NDArray[np.int64],
    actual: NDArray[np.int64],
    *,
    labels: list[str],
    params: EvaluateParams,
    stream: tuple[str, str],
) -> dict[str, Any]:
    table = metrics.confusion_matrix(actual, predicted, classes=len(labels))
    drawn = metrics.resampled_tables(
        table, resamples=params.bootstrap_resamples, rng=generator(params.seed, "evaluate", *stream)
    )
    return {
        "accuracy": float(metrics.accuracy(table)),
        "accuracy_ci95": metrics.percentile_interval(metrics.accuracy(drawn)).as_list(),
        "f1_macro": float(metrics.f1_macro(table)),
        "f1_macro_ci95": metrics.percentile_interval(metrics.f1_macro(drawn)).as_list(),
        "confusion": table.tolist(),
        "per_label": dict(zip(labels, metrics.per_class(table), strict=True)),
    }


def metrics_file(results: dict[str, Any]) -> dict[str, Any]:
    """Choose what metrics/evaluate/TASK.json holds: numbers that one compares between runs."""
    overfitting: dict[str, Any] = results["overfitting"]
    return {
        "accuracy": results["accuracy"],
        "accuracy_ci95": results["accuracy_ci95"],
        "f1_macro": results["f1_macro"],
        "f1_macro_ci95": results["f1_macro_ci95"],
        "calibration_error": results["calibration"]["error"],
        "baselines": {
            name: {
                key: row[key]
                for key in ("accuracy", "accuracy_ci95", "difference", "difference_ci95", "p_value", "outcome")
            }
            for name, row in results["baselines"].items()
        },
        "examples": {split: sum(rows.values()) for split, rows in results["examples"].items()},
        "overfitting": {
            key: overfitting[key]
            for key in (
                "flag",
                "verdict",
                "kept_verdict",
                "kept_step",
                "generalization_loss",
                "gap",
                "onset_step",
                "return_to_step",
                "headline",
                "advice",
            )
        },
        "verdict": results["verdict"]["headline"],
        "status": results["verdict"]["status"],
    }


def assemble(
    scores: dict[str, Any],
    *,
    task: str,
    labels: list[str],
    examples: Examples,
    overfitting: Overfitting,
    duplicates_removed: dict[str, Any],
) -> dict[str, Any]:
    """Join scores, overfitting evidence and the counts behind them; numbers rounded, so that files are legible."""
    value = rounded(
        {
            **scores,
            "task": task,
            "labels": labels,
            "examples": examples.counts,
            "overfitting": overfitting.as_dict(),
            "leakage": {
                "test_texts_in_other_splits": examples.overlap,
                "duplicates_removed_at_ingest": duplicates_removed,
            },
        }
    )
    assert isinstance(value, dict)
    return value


def rounded(value: Any) -> Any:
    """Round every float in nested JSON values; p-values too small for that keep their exponent."""
    if isinstance(value, float):
        return round(value, _DIGITS) if abs(value) >= 1e-3 else float(f"{value:.3g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
