"""Sections of the Evidently report: one metric class, one widget builder a section.

Evidently hands a metric its data as datasets, so the results and the training curve come in as additional data
(``results``: one row with the column ``json``; ``history``: one row an evaluation; ``mistakes``). Import this module
only through :mod:`bert_ops.evaluate.evidently_page`, which switches Evidently's telemetry off first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Optional

import pandas as pd
import plotly.graph_objects as go
from evidently.core.datasets import Dataset
from evidently.core.metric_types import SingleValue, SingleValueCalculation, SingleValueMetric
from evidently.core.report import Context
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import (
    CounterData,
    WidgetSize,
    counter,
    plotly_figure,
    table_data,
    text_widget,
)

from bert_ops.evaluate import wording

_COLOURS = {"model": "#3b86c9", "second": "#d9515f", "soft": "#8a94a3"}

#: Labels that the table of examples has columns for.
_LABELS_SHOWN = 12

Frames = dict[str, pd.DataFrame]
Built = tuple[float, list[BaseWidgetInfo]]


class SectionMetric(SingleValueMetric):
    """A section of the report; its value is what its tests look at."""

    section: str
    title: str
    subject: str = ""


class SectionCalculation(SingleValueCalculation[SectionMetric]):
    """Build the widgets of a section out of the additional data."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Optional[Dataset]) -> SingleValue:  # noqa: ARG002, UP045
        """Return the section's value with its widgets."""
        frames = {name: data.as_dataframe() for name, data in context.additional_data.items()}
        results = json.loads(frames["results"]["json"].iloc[0])
        value, widgets = SECTIONS[self.metric.section](results, frames, self.metric.subject)
        return SingleValue(display_name=self.metric.title, value=value, widget=widgets)

    def display_name(self) -> str:
        """Name the section."""
        return str(self.metric.title)


def _verdict(results: dict[str, Any], _: Frames, __: str) -> Built:
    verdict = results["verdict"]
    overfitting = results["overfitting"]
    kept = wording.OVERFITTING[overfitting["kept_verdict"]]
    figures = [
        *(
            CounterData(
                f"{wording.METRIC_NAMES[name]} ({wording.span(results[f'{name}_ci95'])})",
                wording.percent(results[name]),
            )
            for name in wording.shown_scores(results)
        ),
        CounterData("baselines beaten", f"{len(verdict['beaten'])} of {len(results['baselines'])}"),
        CounterData(f"overfitting (weights kept: {kept})", wording.OVERFITTING[overfitting["verdict"]]),
    ]
    sentences = "\n".join(f"- {sentence}" for sentence in verdict["sentences"])
    return float({"good": 0, "warn": 1, "bad": 2}[verdict["status"]]), [
        text_widget(text=f"## {verdict['headline']}\n\n{sentences}"),
        counter(counters=figures),
    ]


def _scores(results: dict[str, Any], _: Frames, __: str) -> Built:
    names = wording.shown_scores(results)
    rows = [["this model", *_shown(results, names), "", "", ""]]
    for name in wording.ordered(results["baselines"]):
        row = results["baselines"][name]
        rows.append(
            [
                wording.BASELINE_NAMES.get(name, name),
                *_shown(row, names),
                wording.points_with_interval(row["difference"], row["difference_ci95"]),
                wording.p_value(row["p_value"]),
                wording.OUTCOMES[row["outcome"]],
            ]
        )
    test = "McNemar" if results["metric"] == "accuracy" else "paired bootstrap"
    own, *others = (wording.METRIC_NAMES[name] for name in names)
    columns = ["", f"{own} (95%)", *others, "model minus baseline, points (95%)", test, "the model"]
    widgets = [table_data(title="Scores on the test split, beside the baselines", column_names=columns, data=rows)]
    if results["per_label"]:
        labels = [
            [label, *(wording.percent(row[key]) for key in ("precision", "recall", "f1")), f"{row['support']:,}"]
            for label, row in results["per_label"].items()
        ]
        columns = ["label", "precision", "recall", "F1", "in the test split"]
        widgets.append(table_data(title="Each label", column_names=columns, data=labels))
    return float(results["score"]), widgets


def _shown(values: dict[str, Any], names: list[str]) -> list[str]:
    """Cells of scores, the first one with its interval."""
    first, *others = names
    return [
        wording.with_interval(values[first], values[f"{first}_ci95"]),
        *(wording.percent(values[name]) for name in others),
    ]


def _curves(results: dict[str, Any], frames: Frames, __: str) -> Built:
    history, overfitting = frames["history"], results["overfitting"]
    widgets = [
        plotly_figure(title="Loss while fine-tuning (without dropout)", figure=_loss_figure(history, overfitting))
    ]
    if "validation_accuracy" in history:
        figure = _figure("step", "accuracy on validation")
        figure.add_scatter(
            x=history["step"].tolist(),
            y=history["validation_accuracy"].tolist(),
            mode="lines+markers",
            name="validation",
            line={"color": _COLOURS["second"]},
        )
        widgets.append(plotly_figure(title="Accuracy while fine-tuning", figure=figure, size=WidgetSize.HALF))
    if results["calibration"] is not None:
        widgets.append(_reliability(results["calibration"]))
    return float(history["validation_loss"].iloc[-1]), widgets


def _loss_figure(history: pd.DataFrame, overfitting: dict[str, Any]) -> go.Figure:
    figure = _figure("step", "loss, nats an example")
    for column, name, colour in (
        ("train_loss", "training (fixed probe)", _COLOURS["model"]),
        ("validation_loss", "validation", _COLOURS["second"]),
    ):
        figure.add_scatter(
            x=history["step"].tolist(),
            y=history[column].tolist(),
            mode="lines+markers",
            name=name,
            line={"color": colour},
        )
    for key, text in (("return_to_step", "lowest validation loss"), ("onset_step", "overfitting sets in")):
        step = overfitting[key]
        if step is not None:
            figure.add_vline(x=step, line={"dash": "dot", "color": _COLOURS["soft"]}, annotation_text=f"{text}: {step}")
    return figure


def _reliability(calibration: dict[str, Any]) -> BaseWidgetInfo:
    bins = calibration["bins"]
    figure = _figure("confidence", "accuracy")
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line={"dash": "dot", "color": _COLOURS["soft"]}
    )
    figure.add_scatter(
        x=bins["confidence"],
        y=bins["accuracy"],
        mode="lines+markers",
        name="model",
        text=[f"{count:,} examples" for count in bins["count"]],
        line={"color": _COLOURS["model"]},
    )
    title = f"Calibration: ECE {calibration['error']:.3f}, mean confidence {calibration['mean_confidence']:.1%}"
    return plotly_figure(title=title, figure=figure, size=WidgetSize.HALF)


def _overfitting(results: dict[str, Any], _: Frames, __: str) -> Built:
    found = results["overfitting"]
    words = {True: "yes", False: "no", None: "not looked at"}

    def number(value: float | None, form: str, interval: list[float] | None = None) -> str:
        if value is None:
            return "–"
        span = f" ({format(interval[0], form)} to {format(interval[1], form)})" if interval else ""
        return (format(value, form) + span).replace("-", "−")

    signs = {key: words[value] for key, value in found["evidence"].items()}
    worse = number(found["last_minus_best"], "+.4f", found["last_minus_best_ci95"])
    lost = number(found["accuracy_points_lost"], ".1f")
    rows = [
        ["smoothed validation loss above its minimum (GL)", number(found["generalization_loss"], ".1%")],
        ["validation loss rises at the end (Mann-Kendall)", _p(found["trend_p_value"])],
        ["last evaluation worse than the best (paired bootstrap)", worse],
        ["training loss still falls after the best evaluation", "–"],
        ["validation minus training loss (shown, not judged)", number(found["gap"], "+.4f", found["gap_ci95"])],
        ["accuracy points lost since the lowest validation loss", lost],
        ["step of onset", number(found["onset_step"], "d")],
        ["step of the lowest validation loss", number(found["return_to_step"], "d")],
        ["step whose weights were kept", number(found["kept_step"], "d")],
    ]
    seen = [
        signs["generalization_loss"],
        signs["rising_trend"],
        signs["paired_bootstrap"],
        signs["training_loss_falls"],
        "",
        found["accuracy_verdict"].replace("_", " "),
        "",
        f"of {number(found['last_step'], 'd')}",
        wording.OVERFITTING[found["kept_verdict"]],
    ]
    title = f"Overfitting: {wording.OVERFITTING[found['verdict']]} ({found['evaluations']} evaluations)"
    return float({"healthy": 0, "not_enough_evidence": 0, "warn": 1, "fail": 2}[found["kept_verdict"]]), [
        table_data(
            title=title,
            column_names=["sign", "value (95%)", "seen"],
            data=[[*row, mark] for row, mark in zip(rows, seen, strict=True)],
        )
    ]


def _against(results: dict[str, Any], _: Frames, subject: str) -> Built:
    return float(results["baselines"][subject]["difference_ci95"][0]), []


def _preset(results: dict[str, Any], _: Frames, subject: str) -> Built:
    total = results["examples"].get("test", 0)
    scope = "all" if int(subject) >= total else f"a sample of {int(subject):,} of"
    labels = results["labels"]
    about = f" Precision, recall and F1 are those of the label `{max(labels)}`." if len(labels) == 2 else ""
    return float(subject), [text_widget(text=f"## Details\n\nDrawn over {scope} {total:,} test examples.{about}")]


def _calibration(results: dict[str, Any], _: Frames, __: str) -> Built:
    return float(results["calibration"]["error"]), []


def _leakage(results: dict[str, Any], _: Frames, __: str) -> Built:
    counts = results["label_counts"]
    labels = sorted({label for split in counts.values() for label in split})[:_LABELS_SHOWN]
    rows = [
        [split, f"{total:,}", *(f"{counts[split].get(label, 0):,}" for label in labels)]
        for split, total in wording.by_split(results["examples"])
    ]
    leakage = results["leakage"]
    removed = (
        ", ".join(f"{name} {count:,}" for name, count in leakage["duplicates_removed_at_ingest"].items()) or "none"
    )
    note = (
        f"Test texts that stand in another split: **{leakage['test_texts_in_other_splits']:,}**. "
        f"Duplicates removed at ingest, by source: {removed}. Nothing was tuned on the test split."
    )
    return float(leakage["test_texts_in_other_splits"]), [
        table_data(title="Examples", column_names=["split", "all", *labels], data=rows),
        text_widget(text=note),
    ]


def _mistakes(_: dict[str, Any], frames: Frames, __: str) -> Built:
    frame = frames["mistakes"]
    if frame.empty:
        return 0.0, [text_widget(text="There are no mistakes on the test split.", title="Worst mistakes")]
    return float(len(frame)), [
        table_data(title="Worst mistakes", column_names=list(frame), data=frame.to_numpy().tolist())
    ]


def _p(value: float | None) -> str:
    return "–" if value is None else wording.p_value(value)


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white", xaxis_title=x, yaxis_title=y, margin={"l": 50, "r": 20, "t": 30, "b": 40},
        legend={"orientation": "h", "y": 1.12},
    )  # fmt: skip
    return figure


#: Section name -> builder of its value and widgets.
SECTIONS: dict[str, Callable[[dict[str, Any], Frames, str], Built]] = {
    "against": _against,
    "preset": _preset,
    "verdict": _verdict,
    "scores": _scores,
    "curves": _curves,
    "overfitting": _overfitting,
    "calibration": _calibration,
    "leakage": _leakage,
    "mistakes": _mistakes,
}
