"""The one place where numbers become sentences: the report, the index and the terminal say the same words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")

#: Metrics in words.
METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "matthews": "Matthews correlation",
    "subset_accuracy": "exact-match accuracy",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "r2": "R²",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
}

BASELINE_NAMES = {
    "majority": "the majority class",
    "tfidf_lr": "TF-IDF + logistic regression",
    "no_pretraining": "the same network without pretraining",
}

OUTCOMES = {"better": "beats it", "worse": "is worse", "not_told_apart": "cannot be told apart"}

OVERFITTING = {
    "healthy": "none seen",
    "warn": "signs of it",
    "fail": "yes",
    "not_enough_evidence": "not enough evidence",
}


def ordered(names: Iterable[str]) -> list[str]:
    """Put baselines into the order in which they are shown, the weakest first; unknown ones last."""
    known = list(BASELINE_NAMES)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def by_split(counts: dict[str, T]) -> list[tuple[str, T]]:
    """Put splits into their natural order."""
    order = {"train": 0, "validation": 1, "test": 2}
    return sorted(counts.items(), key=lambda item: order.get(item[0], 3))


def shown_scores(results: dict[str, Any]) -> list[str]:
    """Names of the scores that a table shows: the task's own, and another one that tells more."""
    others = ("f1_macro", "accuracy", "subset_accuracy", "entity_precision", "spearman", "r2")
    second = [name for name in others if name in results and name != results["metric"]]
    return [results["metric"], *second[:1]]


def percent(value: float) -> str:
    """0.8412 -> ``84.1%``."""
    return f"{value:.1%}"


def with_interval(value: float, interval: list[float]) -> str:
    """Format a share with its interval: ``84.1% (82.4-85.8)``."""
    return f"{value:.1%} ({span(interval)})"


def span(interval: list[float]) -> str:
    """Format an interval of shares: ``80.5–84.2``."""
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"


def points(value: float) -> str:
    """Format a difference of shares as signed points: ``+2.1``."""
    return f"{100 * value:+.1f}".replace("-", "−")


def points_with_interval(value: float, interval: list[float]) -> str:
    """Format a difference with its interval: ``+2.1 (+0.4 to +3.8)``."""
    return f"{points(value)} ({points(interval[0])} to {points(interval[1])})"


def p_value(value: float) -> str:
    """Format a p-value: ``p = 0.031`` or ``p < 0.001``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def against(name: str, row: dict[str, Any]) -> str:
    """Say in one sentence how the model stands to a baseline; never more than the paired interval allows."""
    baseline = BASELINE_NAMES.get(name, name)
    gap = f"{points_with_interval(row['difference'], row['difference_ci95'])} points, {p_value(row['p_value'])}"
    return {
        "better": f"Beats {baseline}: {gap}.",
        "worse": f"Does not beat {baseline}: it is worse by this test, {gap}.",
        "not_told_apart": f"Does not beat {baseline}: the test split cannot tell them apart, {gap}.",
    }[row["outcome"]]


def verdict(results: dict[str, Any]) -> dict[str, Any]:
    """Judge a task's results.

    Returns:
        ``status`` (``good``, ``warn`` or ``bad``), ``headline`` and ``sentences``. Bad: no better than the majority
        class, or overfit, or test texts leaked; good: better than every baseline, and no sign of overfitting.
    """
    outcomes = {name: row["outcome"] for name, row in results["baselines"].items()}
    beaten = [BASELINE_NAMES.get(name, name) for name, value in outcomes.items() if value == "better"]
    unbeaten = [BASELINE_NAMES.get(name, name) for name, value in outcomes.items() if value != "better"]
    overfit = results["overfitting"]
    leaked = int(results["leakage"]["test_texts_in_other_splits"])
    if outcomes.get("majority") != "better":
        status, head = "bad", "It has learned nothing: it does not beat the majority class"
    elif leaked:
        status, head = "bad", f"Its scores cannot be trusted: {leaked:,} test texts stand in another split too"
    elif overfit["kept_verdict"] == "fail":
        status, head = "bad", "It overfits"
    elif unbeaten:
        status, head = "warn", f"It works, but does not beat {_list(unbeaten)}"
    elif overfit["verdict"] == "healthy":
        status, head = "good", "It beats every baseline and does not overfit"
    elif overfit["verdict"] == "fail" and overfit["kept_verdict"] == "healthy":
        status, head = (
            "good",
            "It beats every baseline; training overfitted in the end, but the weights from before "
            f"(step {overfit['kept_step']}) were kept",
        )
    else:
        status, head = "warn", f"It beats every baseline; overfitting: {OVERFITTING[overfit['verdict']]}"
    count = results["examples"].get("test", 0)
    name = METRIC_NAMES[results["metric"]]
    score = f"{with_interval(results['score'], results['score_ci95'])} {name} on {count:,} test examples"
    return {
        "status": status,
        "headline": f"{head}: {score}.",
        "beaten": beaten,
        "unbeaten": unbeaten,
        "sentences": [
            *(against(name, row) for name, row in results["baselines"].items()),
            overfit["headline"],
            overfit["advice"],
        ],
    }


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
