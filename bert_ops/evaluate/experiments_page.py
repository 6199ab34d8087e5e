"""The page of ``bert-ops experiments``: what each changed, what came out on validation, and what it cost."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from bert_ops.evaluate import wording
from bert_ops.evaluate.experiments import Comparison, Experiment, Score
from bert_ops.evaluate.experiments_chart import Dot, dot_chart
from bert_ops.page import page, table
from bert_ops.progress import duration

_STATES = {"done": "", "failed": "bad", "running": "warn", "queued": "soft"}
_ABSENT = '<span class="soft">–</span>'


def html(comparison: Comparison) -> str:
    """Return the whole page."""
    body = "".join(
        [
            _counts(comparison),
            *(_task(comparison, task) for task in comparison.tasks),
            _unfinished(comparison),
            _reading(comparison),
        ]
    )
    return page("Experiments", body, subtitle=f"Started from {comparison.baseline.name}, as dvc exp show lists them")


def best_by_validation(comparison: Comparison, task: str) -> Experiment | None:
    """The row with the highest validation score; the earliest of equals, so that a tie keeps the baseline."""
    rows = [row for row in (comparison.baseline, *comparison.experiments) if task in row.scores]
    rows = [row for row in rows if math.isfinite(row.scores[task].chosen_by)]
    return max(rows, key=lambda row: row.scores[task].chosen_by, default=None)


def _counts(comparison: Comparison) -> str:
    states = [row.state for row in comparison.experiments]
    counts = ", ".join(
        f"{states.count(state)} {state}" for state in dict.fromkeys([*_STATES, *states]) if state in states
    )
    return f"<p>{len(states)} experiments: {escape(counts)}.</p>\n"


def _task(comparison: Comparison, task: str) -> str:
    """The table of a task, the best first, and a chart for each parameter that was tried at several values."""
    rows = [row for row in (comparison.baseline, *comparison.experiments) if task in row.scores]
    best, base = best_by_validation(comparison, task), comparison.baseline.scores.get(task)
    rows.sort(key=lambda row: -row.scores[task].chosen_by)
    metric = wording.METRIC_NAMES.get(rows[0].scores[task].metric, rows[0].scores[task].metric)
    headers = [
        "experiment",
        "changed",
        f"validation {metric}",
        "minus baseline, points",
        "seconds",
        "trained parameters",
        '<span class="soft">test, not for choosing</span>',
    ]
    cells = [_row(row, task, base, is_best=row is best, is_base=row is comparison.baseline) for row in rows]
    note = "" if base else "<p>The baseline has no score: run <code>dvc repro</code>, and commit dvc.lock.</p>"
    return f"<h2>Task {escape(task)}</h2>{note}{table(headers, cells, numeric=range(2, 7))}{_charts(comparison, task)}"


def _row(row: Experiment, task: str, base: Score | None, *, is_best: bool, is_base: bool) -> list[str]:
    score = row.scores[task]
    mark = ' <span class="good">best on validation</span>' if is_best else ""
    name = "baseline" if is_base else row.name
    if is_base or base is None:
        difference = _ABSENT
    elif score.model is not None and score.model == base.model:
        difference = '<span class="soft">same model</span>'
    else:
        difference = wording.points(score.chosen_by - base.chosen_by)
    return [
        f"<b>{escape(name)}</b>{mark}" if is_best or is_base else escape(name),
        _changed(row),
        f"<b>{_validation(score)}</b>" if is_best else _validation(score),
        difference,
        _ABSENT if score.seconds is None else escape(duration(score.seconds)),
        _ABSENT if score.trained is None else f"{score.trained:,}",
        _ABSENT if score.test is None else f'<span class="soft">{wording.percent(score.test)}</span>',
    ]


def _validation(score: Score) -> str:
    """The score; of several runs their mean, with its interval and their number."""
    if score.spread is None:
        return wording.percent(score.validation)
    runs = f"{len(score.spread['scores'])} {score.spread['kind']}"
    return f'{wording.with_interval(score.chosen_by, score.spread["ci95"])}<br><span class="soft">{escape(runs)}</span>'


def _changed(row: Experiment) -> str:
    if not row.changed:
        return _ABSENT
    return "<br>".join(
        f"<code>{_breakable(key)}</code> {'taken out' if new is None else escape(shown(new))}"
        for key, new in row.changed.items()
    )


def _breakable(key: str) -> str:
    """A dotted key that may go on in the next line, so that a table fits the page."""
    return escape(key).replace(".", ".<wbr>")


def shown(value: Any) -> str:
    """A value as YAML has it, numbers short."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _charts(comparison: Comparison, task: str) -> str:
    """Validation score against each changed parameter of which at least three points are known."""
    rows = [row for row in (comparison.baseline, *comparison.experiments) if task in row.scores]
    charts = []
    for key in dict.fromkeys(_shared_key(key, task) for row in rows for key in row.changed):
        dots = [
            Dot(shown(value), row.scores[task].chosen_by, row.name, is_baseline=row is comparison.baseline)
            for row, value in sorted(((row, row.value(key, task)) for row in rows), key=lambda pair: _order(pair[1]))
            if value is not None and math.isfinite(row.scores[task].chosen_by)
        ]
        if len(dots) >= 3 and len({dot.value for dot in dots}) > 1:
            y_title = _axis(rows, task)
            charts.append(f"<h3><code>{escape(key)}</code></h3>{dot_chart(dots, x_title=key, y_title=y_title)}")
    return "".join(charts)


def _shared_key(key: str, task: str) -> str:
    """The key of section ``finetune`` that a task's own stands for; other keys as they are."""
    return key.removeprefix(f"tasks.{task}.") if key.startswith(f"tasks.{task}.finetune.") else key


def _axis(rows: list[Experiment], task: str) -> str:
    """The task's metric in words, for an axis."""
    metric = rows[0].scores[task].metric
    return f"validation {wording.METRIC_NAMES.get(metric, metric)}"


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _unfinished(comparison: Comparison) -> str:
    """Experiments without a result, and why."""
    rows = [
        [
            escape(row.name),
            f'<span class="{_STATES.get(row.state, "soft")}">{escape(row.state)}</span>',
            _changed(row),
            escape(row.why) if row.state != "failed" else f"<code>dvc queue logs {escape(row.name)}</code> says why",
        ]
        for row in comparison.experiments
        if row.state != "done" or not row.scores
    ]
    return f"<h2>Without a result</h2>{table(['experiment', '', 'changed', ''], rows)}" if rows else ""


def _reading(comparison: Comparison) -> str:
    several = sum(bool(row.scores) for row in comparison.experiments)
    return (
        "<h2>How to read this</h2><ul>"
        "<li>Choose on validation alone. A test score on which one chooses is no test any more: look at it once, of "
        "the experiment that was chosen. It stands here only where an experiment ran <code>evaluate</code> too.</li>"
        f"<li>The best of {several} is partly luck: its validation score is too high as an estimate, the more so the "
        "more were tried. Differences smaller than those between seeds mean nothing; "
        "<code>-S finetune.runs.count=5</code> learns each experiment with five seeds and shows their mean with its "
        "95% interval.</li>"
        "<li>Charts put every experiment at its value; where several parameters were changed, dots above each other "
        "differ in the others. Values stand in order, evenly spaced; the line joins their means.</li>"
        "<li><code>dvc exp apply NAME</code> brings an experiment into the workspace, <code>dvc exp branch NAME</code> "
        "makes a branch of it.</li></ul>\n"
    )
