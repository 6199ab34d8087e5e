"""Does a training run overfit? Its validation loss rises while its training loss still falls.

Both losses are *clean* terms: without dropout, on a fixed part of the training split and on the validation split, so
that they differ by generalisation and nothing else. Four signs are looked at:

- **GL**: the smoothed validation loss stands more than a threshold above its minimum (generalisation loss: Prechelt
  1998, "Early Stopping - But When?", section 2.2; smoothed by a running median, because one noisy minimum is enough to
  raise the unsmoothed one).
- **Mann-Kendall**: the tail of the validation curve has a rising trend (Mann 1945, Kendall 1975; one-sided).
- **Paired bootstrap**: the per-example validation losses of the last evaluation lie above those of the best one.
- **Training**: the training loss fell further after the best evaluation. Without it, a rising validation loss is
  divergence and not overfitting.

*fail* when GL, the paired bootstrap and a falling training loss agree; *warn* when two of GL, Mann-Kendall and the
paired bootstrap hold. The gap between the losses is reported and not judged: it opens in healthy runs as well.
A model that lost loss but kept its accuracy has grown overconfident; the report tells the two apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.evaluate.advice import words
from bert_ops.evaluate.metrics import bootstrap_means, percentile_interval
from bert_ops.evaluate.params import OverfittingParams, Verdict

Floats = NDArray[np.floating[Any]]

#: Least evaluations of the tail that the trend test looks at: below 5, only a perfect order is significant.
_MIN_TAIL = 5


@dataclass(frozen=True)
class History:
    """What was measured while training, one entry an evaluation; all arrays have shape ``[evaluations]``.

    ``train_loss`` and ``validation_loss`` are clean means in nats an example; ``validation_accuracy`` is a share.
    """

    step: NDArray[np.int64]
    train_loss: Floats
    validation_loss: Floats
    validation_accuracy: Floats | None = None


@dataclass(frozen=True)
class Overfitting:
    """The answer of :func:`judge`, made of JSON values.

    ``verdict`` is on the whole run, ``kept_verdict`` on the weights that were kept: those of the lowest validation
    loss come from before any rise, so a run may overfit and its model be fine. ``flag`` is true when the verdict is
    ``fail``. ``onset_step`` is where the smoothed validation loss passed the threshold for good (null: it never did),
    ``return_to_step`` where the validation loss was lowest. ``still_falling``: the validation loss falls through the
    last five evaluations (Mann-Kendall). ``gap`` is validation minus training loss at the last evaluation; its
    interval is over validation examples, with the training mean taken as known.
    """

    verdict: Verdict
    flag: bool
    kept_step: int | None
    kept_verdict: Verdict
    evidence: dict[str, bool | None]
    generalization_loss: float | None
    trend_p_value: float | None
    last_minus_best: float | None
    last_minus_best_ci95: list[float] | None
    gap: float | None
    gap_ci95: list[float] | None
    onset_step: int | None
    return_to_step: int | None
    last_step: int | None
    still_falling: bool
    accuracy_verdict: str
    accuracy_points_lost: float | None
    evaluations: int
    headline: str
    advice: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def judge(
    history: History,
    *,
    params: OverfittingParams,
    resamples: int,
    rng: np.random.Generator,
    validation_losses: Floats | None = None,
    kept_step: int | None = None,
) -> Overfitting:
    """Judge a training curve.

    Args:
        history: the curve; finite numbers, steps rising.
        params: thresholds.
        resamples: draws of each bootstrap.
        rng: generator of the bootstrap draws.
        validation_losses: clean loss of each validation example, ``[evaluations, examples]``; without it the verdict
            cannot be ``fail``, because the paired evidence is missing.
        kept_step: step whose weights the model has; None means the last.
    """
    evaluations = len(history.step)
    assert validation_losses is None or validation_losses.shape[0] == evaluations
    gap = _gap(history, validation_losses, resamples=resamples, rng=rng)
    if evaluations < params.min_evaluations:
        return _not_enough(history, params, gap=gap, kept_step=kept_step)

    best = int(np.argmin(history.validation_loss))
    loss_above = generalization_loss(running_median(history.validation_loss, window=params.smoothing))
    trend = mann_kendall(history.validation_loss[-max(_MIN_TAIL, evaluations // 2) :])
    train = running_median(history.train_loss, window=params.smoothing)
    difference, paired = _last_against_best(validation_losses, best, resamples=resamples, rng=rng)
    evidence: dict[str, bool | None] = {
        "generalization_loss": bool(loss_above[-1] > params.generalization_loss),
        "rising_trend": bool(trend < params.significance),
        "paired_bootstrap": None if paired is None else bool(np.quantile(paired, params.significance) > 0.0),
        "training_loss_falls": bool(train[-1] < train[best]),
    }
    verdict = decide(evidence)
    kept = int(history.step[-1]) if kept_step is None else kept_step
    falling = mann_kendall(-history.validation_loss[-_MIN_TAIL:])
    facts: dict[str, Any] = {
        "verdict": verdict,
        "flag": verdict == "fail",
        "kept_step": kept,
        "kept_verdict": "healthy" if kept <= history.step[best] else verdict,
        "evidence": evidence,
        "generalization_loss": float(loss_above[-1]),
        "trend_p_value": trend,
        "last_minus_best": difference,
        "last_minus_best_ci95": None if paired is None else percentile_interval(paired).as_list(),
        **gap,
        "onset_step": _onset(history.step, loss_above, threshold=params.generalization_loss),
        "return_to_step": int(history.step[best]),
        "last_step": int(history.step[-1]),
        "still_falling": bool(falling < params.significance),
        **_accuracy(history, best, limit=params.accuracy_points),
        "evaluations": evaluations,
    }
    headline, advice = words(facts)
    return Overfitting(**facts, headline=headline, advice=advice)


def decide(evidence: dict[str, bool | None]) -> Verdict:
    """Combine the signs; a sign that could not be looked at (None) counts as absent."""
    rises, trend, paired = (bool(evidence[key]) for key in ("generalization_loss", "rising_trend", "paired_bootstrap"))
    if rises and paired and evidence["training_loss_falls"]:
        return "fail"
    return "warn" if rises + trend + paired >= 2 else "healthy"


def running_median(values: Floats, *, window: int) -> Floats:
    """Median of the last ``window`` values up to each position, fewer at the start.

    It looks back only, so that a verdict during training is the one given afterwards.
    """
    return np.array([np.median(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)])


def generalization_loss(values: Floats) -> Floats:
    """Share by which each value stands above the lowest so far: Prechelt's GL / 100, ``[evaluations]``."""
    return values / np.maximum(np.minimum.accumulate(values), np.finfo(float).tiny) - 1.0


def mann_kendall(values: Floats) -> float:
    """One-sided p-value of a rising trend: normal approximation with continuity and tie correction.

    Source: Mann 1945; Kendall 1975, chapter 4.
    """
    from scipy.special import ndtr

    count = len(values)
    if count < 3:
        return 1.0
    score = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(count, 1)].sum())
    _, ties = np.unique(values, return_counts=True)
    spread = (count * (count - 1) * (2 * count + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18.0
    if spread <= 0.0:
        return 1.0
    return float(ndtr(-(score - np.sign(score)) / np.sqrt(spread)))


def _last_against_best(
    losses: Floats | None, best: int, *, resamples: int, rng: np.random.Generator
) -> tuple[float | None, Floats | None]:
    if losses is None:
        return None, None
    differences = np.asarray(losses[-1] - losses[best], dtype=np.float64)
    return float(differences.mean()), bootstrap_means(differences, resamples=resamples, rng=rng)


def _onset(step: NDArray[np.int64], loss_above: Floats, *, threshold: float) -> int | None:
    below = np.flatnonzero(loss_above <= threshold)
    first = int(below[-1]) + 1
    return int(step[first]) if first < len(step) else None


def _gap(
    history: History, validation_losses: Floats | None, *, resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    if len(history.step) == 0:
        return {"gap": None, "gap_ci95": None}
    train = float(history.train_loss[-1])
    gap = float(history.validation_loss[-1]) - train
    if validation_losses is None:
        return {"gap": gap, "gap_ci95": None}
    means = bootstrap_means(np.asarray(validation_losses[-1], dtype=np.float64), resamples=resamples, rng=rng)
    return {"gap": gap, "gap_ci95": percentile_interval(means - train).as_list()}


def _accuracy(history: History, best: int, *, limit: float) -> dict[str, Any]:
    if history.validation_accuracy is None:
        return {"accuracy_verdict": "not_measured", "accuracy_points_lost": None}
    points = 100.0 * float(history.validation_accuracy[best] - history.validation_accuracy[-1])
    return {"accuracy_verdict": "lost" if points >= limit else "kept", "accuracy_points_lost": points}


def _not_enough(
    history: History, params: OverfittingParams, *, gap: dict[str, Any], kept_step: int | None
) -> Overfitting:
    count = len(history.step)
    return Overfitting(
        verdict="not_enough_evidence",
        flag=False,
        kept_step=kept_step,
        kept_verdict="not_enough_evidence",
        evidence=dict.fromkeys(("generalization_loss", "rising_trend", "paired_bootstrap", "training_loss_falls")),
        generalization_loss=None,
        trend_p_value=None,
        last_minus_best=None,
        last_minus_best_ci95=None,
        **gap,
        onset_step=None,
        return_to_step=int(history.step[np.argmin(history.validation_loss)]) if count else None,
        last_step=int(history.step[-1]) if count else None,
        still_falling=False,
        accuracy_verdict="not_measured",
        accuracy_points_lost=None,
        evaluations=count,
        headline=f"Not enough evidence: {count} evaluations, {params.min_evaluations} are needed.",
        advice="Evaluate more often while training: raise `finetune.evaluations_per_epoch`.",
    )
