"""The report of a validation stage, and its end: files first, then the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bert_ops.errors import ValidationFailed
from bert_ops.io import atomic_folder, write_json, write_text
from bert_ops.page import cards, page, table
from bert_ops.progress import note
from bert_ops.quality import datadocs
from bert_ops.quality.engine import Validation
from bert_ops.quality.history import remember, values_hash
from bert_ops.quality.trend import history_section, wide
from bert_ops.schema import Section

#: How a result is marked: (class, sign, word); the word stands beside the colour for those who do not see it.
_HOLDS = ("good", "✓", "holds")
_FAILS = {"critical": ("bad", "✗", "fails"), "warning": ("warn", "!", "warns")}


@dataclass(frozen=True)
class Outputs:
    """Where the results of a validation go.

    Attributes:
        report: folder for ``index.html``, ``results.json`` and ``datadocs/SUITE.html``.
        metrics: file for the summary.
        history: file with the verdicts of earlier runs; outside the outputs of the stage.

    """

    report: Path
    metrics: Path
    history: Path


def conclude(
    validation: Validation,
    *,
    stage: str,
    about: str,
    outputs: Outputs,
    data: str,
    params: Section,
    counts: Mapping[str, int],
    figures: Mapping[str, Any] | None = None,
    remedy: str | None = None,
) -> None:
    """Write the report folder, the history and the metrics, then say or raise how it went.

    Args:
        validation: the outcome.
        stage: name of the stage, for messages.
        about: what was checked, for people ("the corpus in data/corpus").
        outputs: where the results go.
        data: hash of what was checked.
        params: its thresholds.
        counts: the size of what was checked, by what is counted; the first is drawn as a trend.
        figures: what else the metrics hold.
        remedy: what else to do about a failure.

    Raises:
        ValidationFailed: a critical check failed. The report and the metrics are written already.
        StorageError: they could not be written.

    """
    record = history_record(validation, data=data, params=params, counts=counts)
    history = remember(outputs.history, record)
    with atomic_folder(outputs.report) as folder:
        write_text(folder / "index.html", index_page(validation, about=about, history=history))
        write_json(folder / "results.json", validation.summary)
        for name, html in datadocs.render(validation).items():
            write_text(folder / "datadocs" / f"{name}.html", html)
    write_json(outputs.metrics, lasting(validation) | dict(figures or {}))
    index = outputs.report / "index.html"
    if not validation.summary["success"]:
        raise failure(validation, about=about, index=index, remedy=remedy)
    note(f"{stage}: {verdict(validation.summary)}; {index}")


def history_record(validation: Validation, *, data: str, params: Section, counts: Mapping[str, int]) -> dict[str, Any]:
    """What is remembered of a validation; the same for the same data and thresholds."""
    failed: dict[str, list[str]] = {"critical": [], "warning": []}
    for result in validation.summary["results"]:
        if not result["success"]:
            failed[result["severity"]].append(f"{result['suite']}: {result['what']}")
    return {
        "data": data,
        "params": values_hash(params.model_dump(mode="json")),
        "counts": dict(counts),
        "evaluated": validation.summary["evaluated"],
        "failed": failed["critical"],
        "warned": failed["warning"],
    }


def lasting(validation: Validation) -> dict[str, Any]:
    """The summary without what was observed by checks that compare with an earlier run.

    Later stages depend on the metrics; they must not run again because a run on another machine remembers less.
    """
    remembers = {(s.name, check.what) for s in validation.suites for check in s.checks if check.remembers}
    results = [
        {**r, "observed": None, "examples": [], "unexpected_count": None, "unexpected_percent": None}
        if (r["suite"], r["what"]) in remembers
        else r
        for r in validation.summary["results"]
    ]
    return {**validation.summary, "results": results}


def failure(validation: Validation, *, about: str, index: Path, remedy: str | None = None) -> ValidationFailed:
    """Build the error that names each failed critical check, what was observed and what is allowed."""
    failed = [r for r in validation.summary["results"] if not r["success"] and r["severity"] == "critical"]
    lines = [f"{about}: {verdict(validation.summary)}"]
    identities = {suite.name: suite.identity for suite in validation.suites}
    for result in failed:
        lines.append(f"  - {result['suite']}: {result['what']}: {observed(result)}; allowed: {allowed(result)}")
        for row in result["examples"][:1]:
            lines[-1] += f"; for example {identity(row, identities[result['suite']])}"
    usual = f"open {index}, mend the data at its source, or change the threshold in params.yaml"
    return ValidationFailed("\n".join(lines), remedy=f"{usual}; {remedy}" if remedy else usual)


def verdict(summary: dict[str, Any]) -> str:
    """One sentence on the whole."""
    critical, warning, evaluated = (summary[key] for key in ("failed_critical", "failed_warning", "evaluated"))
    if critical:
        tail = f", and {warning} only warn" if warning else ""
        return f"{critical} of {evaluated} expectations fail and stop the pipeline{tail}"
    if warning:
        return f"passed: {evaluated - warning} of {evaluated} expectations hold, {warning} warn"
    return f"passed: all {evaluated} expectations hold"


def observed(result: dict[str, Any]) -> str:
    """Say what was observed."""
    value = result["observed"]
    if value is None:
        return "nothing"
    text = str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{int(value):,}" if value == int(value) else f"{value:,.6g}"
    percent = result["unexpected_percent"]
    return f"{text} ({percent:.3g}%)" if percent else text


def allowed(result: dict[str, Any]) -> str:
    """Say what passes, with the key of params.yaml that says so."""
    return f"{result['allowed']} (`{result['setting']}`)" if result["setting"] else str(result["allowed"])


def identity(row: dict[str, Any], suite_identity: tuple[str, ...]) -> str:
    """Name a failing row by its id, then the value that failed, unless that only says False."""
    keys = [key for key in suite_identity if key in row] + [key for key in row if key not in suite_identity]
    shown = {key: "missing" if row[key] is None else row[key] for key in keys if row[key] is not False}
    return ", ".join(f"{key} {value}" for key, value in shown.items() if key != "excerpt")


def index_page(validation: Validation, *, about: str, history: Sequence[Mapping[str, Any]]) -> str:
    """Return ``index.html``: the verdict, then what fails, then every expectation, then the history."""
    summary = validation.summary
    if summary["failed_critical"]:
        colour, sign = "bad", "✗"
    else:
        colour, sign = ("warn", "!") if summary["failed_warning"] else ("good", "✓")
    sentence = verdict(summary)
    identities = {suite.name: suite.identity for suite in validation.suites}
    parts = [
        f'<p class="{colour}"><strong>{sign} {escape(sentence[0].upper() + sentence[1:])}.</strong></p>',
        cards(
            [
                (str(summary["evaluated"]), "expectations evaluated"),
                (str(summary["failed_critical"]), "failed, critical"),
                (str(summary["failed_warning"]), "failed, warning"),
                (f"{max(validation.rows.values(), default=0):,}", "rows in the largest table"),
            ]
        ),
    ]
    failed = sorted((r for r in summary["results"] if not r["success"]), key=lambda r: r["severity"])
    if failed:
        parts.append("<h2>What fails</h2>" + _failures(failed, identities))
    parts.append(
        '<p class="soft">A critical failure stops the pipeline; a warning is only reported. '
        "Thresholds stand in <code>params.yaml</code>.</p>"
    )
    for suite in validation.suites:
        results = [r for r in summary["results"] if r["suite"] == suite.name]
        count = validation.rows[suite.name]
        link = f'<a href="datadocs/{escape(suite.name)}.html">Data Docs by Great Expectations</a>'
        parts.append(
            f'<h2 id="{escape(suite.name)}">{escape(suite.title)}</h2>'
            f'<p class="soft">{count:,} {"row" if count == 1 else "rows"} · {link}</p>' + _results(results)
        )
    parts.append(history_section(history))
    return page("Data validation", "\n".join(parts), subtitle=about)


def _failures(results: list[dict[str, Any]], identities: dict[str, tuple[str, ...]]) -> str:
    rows = [
        (
            _mark(r),
            f'{escape(r["what"])}<br><a href="#{escape(r["suite"])}">{escape(r["suite"])}</a>',
            escape(observed(r)),
            _allowed(r),
            _examples(r, identities[r["suite"]]),
        )
        for r in results
    ]
    return wide(table(["", "expectation", "observed", "allowed", "failing examples"], rows))


def _results(results: list[dict[str, Any]]) -> str:
    rows = [
        (
            _mark(r),
            f'{escape(r["what"])}<br><span class="soft">{_code(r["expectation"])} {escape(r["column"] or "")}</span>',
            escape(observed(r)),
            _allowed(r),
            r["severity"],
        )
        for r in results
    ]
    return wide(table(["", "expectation", "observed", "allowed", "severity"], rows))


def _allowed(result: dict[str, Any]) -> str:
    return escape(result["allowed"]) + (f"<br>{_code(result['setting'])}" if result["setting"] else "")


def _code(name: str) -> str:
    """A name that may break at its underscores, so that a table stays within the page."""
    return f"<code>{escape(name).replace('_', '_<wbr>')}</code>"


def _mark(result: dict[str, Any]) -> str:
    colour, sign, word = _HOLDS if result["success"] else _FAILS[result["severity"]]
    return f'<strong class="{colour}">{sign}&nbsp;{word}</strong>'


def _examples(result: dict[str, Any], suite_identity: tuple[str, ...]) -> str:
    lines = []
    for row in result["examples"]:
        excerpt = f'<br><span class="soft">{escape(str(row["excerpt"]))}</span>' if row.get("excerpt") else ""
        lines.append(escape(identity(row, suite_identity)) + excerpt)
    return "<br>".join(lines)
