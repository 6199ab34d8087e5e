"""``bert-ops schedule``: learning rate and batch of a run before it begins, as a table and as a page with curves.

With the log of an earlier run it also says how large its gradients were, and which bound of the norm they speak for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.io import write_text
from bert_ops.page import cards, page, table
from bert_ops.pretrain.course import Course, course, key_steps, remarks
from bert_ops.pretrain.curve_chart import curve
from bert_ops.pretrain.params import PretrainParams
from bert_ops.schema import load_section
from bert_ops.training.log_figures import numbers, quantile, suggested_bound
from bert_ops.training.log_summary import find
from bert_ops.training.run_log import read_log

#: Quantiles of the gradient norms that are told.
_QUANTILES = {
    "10% of the norms are below": 0.1,
    "half of them": 0.5,
    "90%": 0.9,
    "99%": 0.99,
    "largest gradient norm": 1.0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--log", type=Path, metavar="RUN", help="log of an earlier run, or a folder with one")
    parser.add_argument(
        "--out", type=Path, default=Path("reports/schedule.html"), help="HTML page to write (reports/schedule.html)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the table and write the page.

    Raises:
        InputError: schedule or batch do not fit the run, or the log has no gradient norms.

    """
    params = load_section(arguments.params, "pretrain", PretrainParams)
    found = course(params)
    norms = None if arguments.log is None else read_norms(find(arguments.log, root=Path()))
    lines = [*text(params, found), *(norms_text(norms, params) if norms is not None else [])]
    sys.stdout.write("\n".join(lines) + "\n")
    write_text(arguments.out, html(params, found, norms))
    sys.stdout.write(f"\nWrote {arguments.out}.\n")


def read_norms(path: Path) -> NDArray[np.float64]:
    """Steps and gradient norms of a log, (N, 2); norms that are not finite are left out.

    Raises:
        InputError: there are none, or it is no log.

    """
    records = [record for record in read_log(path) if record["event"] == "step"]
    rows = [(record["step"], *numbers([record], "gradient_norm")) for record in records]
    found = np.array([row for row in rows if len(row) == 2], np.float64).reshape(-1, 2)
    if not len(found):
        raise InputError(
            f"the log {path} has no gradient norms", remedy="name the log of a run that has made some steps"
        )
    return found


# ---------------------------------------------------------------- what is told


def headline(params: PretrainParams, found: Course) -> dict[str, str]:
    """The run in a few figures."""
    optimizer, schedule = params.optimizer, params.schedule
    return {
        "schedule": schedule.kind,
        f"steps, {schedule.warmup_steps:,} of warmup": f"{found.steps:,}",
        f"peak rate ({optimizer.kind})": f"{optimizer.learning_rate:g}",
        "tokens of a step": _range(found.batch.min(), found.batch.max()),
        "tokens in all": _range(*found.read[-1]),
    }


def rows(params: PretrainParams, found: Course) -> Iterator[list[str]]:
    """Key steps: number as the log counts them, what it is, rate, tokens of the step and read so far."""
    read = found.read
    for step, what in key_steps(params):
        low, high = found.rate[step]
        rate = _rate(high) if low == high else f"{_rate(low)} to {_rate(high)}"
        yield [f"{step + 1:,}", what, rate, _range(*found.batch[step]), _range(*read[step])]


_HEAD = ["step", "what", "learning rate", "tokens of the step", "read so far"]


def text(params: PretrainParams, found: Course) -> Iterator[str]:
    """Yield the lines of the table."""
    for name, value in headline(params, found).items():
        yield f"{name + ':':<24}{value}"
    yield ""
    cells = [_HEAD, *rows(params, found)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    for row in cells:
        aligned = (
            f"{cell:<{width}}" if column == 1 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(aligned).rstrip()
    said = remarks(params, found)
    yield from ["", *said] if said else []


def norm_figures(norms: NDArray[np.float64], params: PretrainParams) -> list[tuple[str, str]]:
    """What the gradient norms of a log are, what the bound in force does to them, and which they speak for."""
    values = norms[:, 1].tolist()
    shown = [(name, f"{quantile(values, share):.4g}") for name, share in _QUANTILES.items()]
    bound = params.clipping.norm
    if bound is None:
        shown.append(("clipping.norm", "none"))
    else:
        cut = float((norms[:, 1] > bound).mean())
        shown.append((f"steps beyond clipping.norm {bound:g}", f"{cut:.1%}"))
    suggested = suggested_bound(values)
    advice = "too few steps to say" if suggested is None else f"{suggested:g} (cuts one step of ten)"
    return [*shown, ("suggested clipping.norm", advice)]


def norms_text(norms: NDArray[np.float64], params: PretrainParams) -> Iterator[str]:
    """Yield the lines about gradient norms."""
    yield ""
    yield f"Of {len(norms):,} steps in the log:"
    for name, value in norm_figures(norms, params):
        yield f"  {name + ':':<36}{value}"


def html(params: PretrainParams, found: Course, norms: NDArray[np.float64] | None) -> str:
    """The page."""
    steps = np.arange(1, found.steps + 1)
    marks = key_steps(params)
    top = headline(params, found)
    parts = [cards((value, name) for name, value in top.items())]
    for title, values, format_value in (
        ("Learning rate", found.rate, _rate),
        ("Tokens of a step", found.batch.astype(np.float64), _tokens),
    ):
        dots = [(step + 1, f"step {step + 1:,}, {what}: {format_value(values[step, 1])}") for step, what in marks]
        parts.append(f"<h2>{title}</h2>\n{curve(steps, values, label=f'{title} by step', marks=dots)}")
    cells = [[escape(cell) for cell in row] for row in rows(params, found)]
    parts.append("<h2>Key steps</h2>\n" + table(_HEAD, cells, numeric=[0, 2, 3, 4]))
    parts += [f"<p>{escape(remark)}</p>" for remark in remarks(params, found)]
    if norms is not None:
        parts.append(_norms_html(norms, params))
    return page("Schedule of a run", "\n".join(parts), subtitle="pretrain of params.yaml; steps as the log counts them")


def _norms_html(norms: NDArray[np.float64], params: PretrainParams) -> str:
    values = norms[:, 1]
    suggested = suggested_bound(values.tolist())
    lines = [(params.clipping.norm, "clipping.norm"), (suggested, "suggested")]
    # The first steps of a run may be so large that nothing else would be seen.
    ceiling = max(float(np.quantile(values, 0.99)) * 1.2, *(bound for bound, _ in lines if bound is not None), 1e-12)
    chart = curve(
        norms[:, 0].astype(np.int64),
        values,
        label="Gradient norm by step",
        lines=[(bound, name) for bound, name in lines if bound is not None],
        ceiling=ceiling,
    )
    cells = [[escape(name), escape(value)] for name, value in norm_figures(norms, params)]
    return f"<h2>Gradient norms of the log</h2>\n{chart}" + table(["figure", "value"], cells, numeric=[1])


def _range(low: Any, high: Any) -> str:
    return _tokens(high) if low == high else f"{_tokens(low)} to {_tokens(high)}"


def _tokens(count: float) -> str:
    return f"{int(count):,}"


def _rate(rate: float) -> str:
    return f"{rate:.3e}"
