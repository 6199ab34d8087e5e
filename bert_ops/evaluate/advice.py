"""What the overfitting detector found, in words: a headline that states the evidence, and what to do about it."""

from __future__ import annotations

from typing import Any

_REMEDIES = "train for fewer epochs, with more dropout, weight decay or data"


def words(facts: dict[str, Any]) -> tuple[str, str]:
    """Return headline and advice.

    Args:
        facts: the fields of :class:`bert_ops.evaluate.overfitting.Overfitting`, without headline and advice.
    """
    step = facts["return_to_step"]
    if facts["verdict"] == "healthy":
        if facts["still_falling"]:
            headline = "No overfitting: the validation loss was still falling when training ended."
            return headline, "More epochs may help; nothing needs to be undone."
        return "No overfitting: the validation loss has not risen beyond noise.", "Nothing needs to be undone."
    risen = f"the validation loss stands {facts['generalization_loss']:.1%} above its minimum of step {step}"
    if not facts["evidence"]["training_loss_falls"]:
        return (
            f"This is divergence, not overfitting: {risen}, and the training loss rises with it.",
            f"Lower the learning rate, lengthen the warmup or clip harder; until then use the weights of step {step}.",
        )
    if facts["kept_step"] <= step:
        kept = f"The weights kept are those of step {facts['kept_step']}, from before the rise."
        advice = f"{kept} To save the time after it, {_REMEDIES}."
    else:
        advice = f"Go back to step {step}, or {_REMEDIES}."
    if facts["verdict"] == "fail":
        return f"Overfitting: {risen} while the training loss kept falling; {_accuracy(facts)}.", advice
    return f"Signs of overfitting, short of proof: {risen}; {_accuracy(facts)}.", f"Watch it. {advice}"


def _accuracy(facts: dict[str, Any]) -> str:
    return {
        "lost": f"accuracy fell with it, by {facts['accuracy_points_lost'] or 0.0:.1f} points",
        "kept": "accuracy has not suffered: the model grew overconfident, not worse at choosing",
        "not_measured": "accuracy was not measured on the way",
    }[facts["accuracy_verdict"]]
