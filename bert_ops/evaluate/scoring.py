"""Turn answers into results: scores, intervals, comparisons. Everything here is a function of data and seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from bert_ops.evaluate import metrics
from bert_ops.evaluate.inputs import Examples
from bert_ops.evaluate.overfitting import Overfitting
from bert_ops.evaluate.params import EvaluateParams
from bert_ops.finetune.problems import AnyProblem, SingleLabel
from bert_ops.finetune.resampling import bootstrap, paired
from bert_ops.finetune.scores import Score, evaluate_score
from bert_ops.seeding import generator

#: Digits kept of every number: more than any decision needs, few enough to read.
_DIGITS = 6


def score(
    answers: Any,
    *,
    problem: AnyProblem,
    examples: Examples,
    baselines: dict[str, Any],
    params: EvaluateParams,
    task: str,
    metric: str,
) -> dict[str, Any]:
    """Score a model and its baselines on the test split.

    Args:
        answers: of the model, checked, as the problem answers.
        problem: the task's kind and labels.
        examples: the test split.
        baselines: answers of each baseline.
        params: seed, resamples, bins.
        task: names the random streams, so that tasks do not share draws.
        metric: score that the task is judged by.

    Returns:
        JSON values: ``kind``, ``metric``, ``score`` and ``score_ci95`` of that metric, every other score and its
        interval by name (``accuracy``, ``accuracy_ci95``, …), ``per_label``, ``baselines``; of single labels
        ``calibration`` and ``confusion``, else None.
    """
    own = problem.scores(answers, examples.truth)
    results: dict[str, Any] = {
        "kind": problem.kind,
        **_scores(own, metric=metric, params=params, stream=(task, "model")),
        "per_label": problem.per_label(answers, examples.truth),
        "calibration": None,
        "confusion": None,
    }
    actual = problem.class_ids(examples.truth) if isinstance(problem, SingleLabel) else None
    if actual is not None:
        right = answers.argmax(axis=1) == actual
        results["calibration"] = _calibration(answers, right, bins=params.calibration_bins)
        table = metrics.confusion_matrix(actual, answers.argmax(axis=1), classes=len(problem.labels))
        results["confusion"] = table.tolist()
    results["baselines"] = {}
    for name, given in baselines.items():
        theirs = problem.scores(given, examples.truth)
        compared = paired(
            own[metric],
            theirs[metric],
            resamples=params.bootstrap_resamples,
            rng=generator(params.seed, "evaluate", task, "paired", name),
        )
        row = {
            **_scores(theirs, metric=metric, params=params, stream=(task, name)),
            "difference": compared.difference,
            "difference_ci95": compared.interval.as_list(),
            "p_value": compared.p_value,
            "outcome": outcome(compared.interval.low, compared.interval.high),
        }
        if actual is not None and metric == "accuracy":
            # The exact test knows what a resampled share can only estimate.
            right, answered = answers.argmax(axis=1) == actual, given.argmax(axis=1) == actual
            gained, lost = int((right & ~answered).sum()), int((~right & answered).sum())
            row |= {"only_model_right": gained, "only_baseline_right": lost}
            row["p_value"] = metrics.mcnemar_exact(gained, lost)
        results["baselines"][name] = row
    return results


def outcome(low: float, high: float) -> str:
    """Say what a difference's interval allows to say: ``better``, ``worse`` or ``not_told_apart``."""
    if low > 0.0:
        return "better"
    return "worse" if high < 0.0 else "not_told_apart"


def _scores(found: dict[str, Score], *, metric: str, params: EvaluateParams, stream: tuple[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {"metric": metric}
    for name, one in found.items():
        rng = generator(params.seed, "evaluate", *stream, name)
        interval = bootstrap(one, resamples=params.bootstrap_resamples, rng=rng).as_list()
        values |= {name: evaluate_score(one), f"{name}_ci95": interval}
    return values | {"score": values[metric], "score_ci95": values[f"{metric}_ci95"]}


def _calibration(probabilities: Any, right: Any, *, bins: int) -> dict[str, Any]:
    confidence = probabilities.max(axis=1).astype(np.float64)
    found = metrics.calibration(confidence, right, bins=bins)
    return {
        "error": found.error,
        "mean_confidence": float(confidence.mean()),
        "bins": {"confidence": found.confidence, "accuracy": found.accuracy, "count": found.count},
    }


#: Of a baseline, what the metrics file holds besides its scores.
_COMPARED = ("difference", "difference_ci95", "p_value", "outcome")


def metrics_file(results: dict[str, Any]) -> dict[str, Any]:
    """Choose what metrics/evaluate/TASK.json holds: numbers that one compares between runs."""
    overfitting: dict[str, Any] = results["overfitting"]
    names = score_names(results)
    calibration = results["calibration"]
    return {
        **{key: results[key] for key in ("kind", "metric", "score", "score_ci95")},
        **{key: results[key] for name in names for key in (name, f"{name}_ci95")},
        "calibration_error": None if calibration is None else calibration["error"],
        "baselines": {
            name: {key: row[key] for key in ("score", "score_ci95", *names, *_COMPARED)}
            for name, row in results["baselines"].items()
        },
        "examples": results["examples"],
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


def score_names(results: dict[str, Any]) -> list[str]:
    """Names of the scores in results, that of the task's metric first."""
    names = [key.removesuffix("_ci95") for key in results if key.endswith("_ci95") and key != "score_ci95"]
    return sorted(names, key=lambda name: name != results["metric"])


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
            "label_counts": examples.labels,
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
