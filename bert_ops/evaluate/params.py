"""Sections ``evaluate``, ``promote`` and ``report`` of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bert_ops.schema import Section, Seed, Share, Threads

#: What the overfitting detector can answer, from best to worst; ``not_enough_evidence`` is no judgement.
Verdict = Literal["healthy", "not_enough_evidence", "warn", "fail"]


class OverfittingParams(Section):
    """When a training curve counts as overfit (:mod:`bert_ops.evaluate.overfitting`)."""

    min_evaluations: int = Field(ge=4, description="evaluations below which no verdict is given")
    smoothing: int = Field(ge=1, description="evaluations in the running median of the losses; 1 switches it off")
    generalization_loss: float = Field(
        gt=0.0,
        description="share by which the smoothed validation loss may stand above its minimum (GL, Prechelt 1998)",
    )
    significance: float = Field(
        gt=0.0, lt=0.5, description="one-sided error rate of the Mann-Kendall test and of the paired bootstrap"
    )
    accuracy_points: float = Field(
        gt=0.0, description="accuracy points lost since the lowest validation loss from which accuracy counts as hurt"
    )

    @model_validator(mode="after")
    def _smoothing_leaves_a_curve(self) -> Self:
        if self.smoothing >= self.min_evaluations:
            raise ValueError(
                f"smoothing is {self.smoothing}; it must be below min_evaluations ({self.min_evaluations}), "
                "or the running median flattens the whole curve"
            )
        return self


class EvaluateParams(Section):
    """How a task's model is scored and what the HTML report draws. Intervals are 95% throughout, as the keys say."""

    seed: Seed
    threads: Threads
    bootstrap_resamples: int = Field(ge=200, le=1_000_000, description="resamples of every bootstrap interval")
    calibration_bins: int = Field(ge=2, le=1000, description="bins of equal width for ECE (Guo et al. 2017)")
    max_calibration_error: Share = Field(description="ECE above which the report warns of overconfidence")
    overfitting: OverfittingParams
    report_examples: int = Field(
        ge=50, le=200_000, description="rows that the report's details are drawn from; the metrics are over all rows"
    )


class PromoteParams(Section):
    """Gates that a compressed model passes before it becomes the champion."""

    max_points_lost: float = Field(
        ge=0.0,
        le=100.0,
        description="points (hundredths) of the task's metric that compression may cost, on the test split",
    )
    min_points_over_majority: float = Field(
        ge=0.0,
        le=100.0,
        description="points (hundredths) of the task's metric over the majority baseline that the 95% interval's lower "
        "end must reach",
    )
    min_size_ratio: float = Field(ge=1.0, description="bytes of the float32 model over bytes of the compressed one")
    reject_overfitting: list[Verdict] = Field(description="verdicts of the overfitting detector that stop a promotion")


class ReportParams(Section):
    """The page over all results."""

    title: str = Field(min_length=1, max_length=100, description="heading of reports/index.html")
