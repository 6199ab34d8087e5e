"""The history of a validation as a table and a small chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bert_ops.page import table

#: How many versions of the data are shown, the last ones.
SHOWN = 30

_WIDTH, _HEIGHT, _MARGIN = 720, 120, 14


def history_section(history: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of a report about the versions of the data so far, the present one last.

    Args:
        history: records of :func:`bert_ops.quality.history.remember`, oldest first.

    """
    shown = list(enumerate(history, start=1))[-SHOWN:]
    rows = []
    names = list(dict.fromkeys(name for record in history for name in record["counts"]))
    for number, record in reversed(shown):
        colour, word = _verdict(record)
        problems = [*record["failed"], *record["warned"]]
        rows.append(
            [
                f"{number}{' (this one)' if number == len(history) else ''}",
                f"<code>{escape(str(record['data'])[:12])}</code>",
                *(_number(record["counts"].get(name)) for name in names),
                f'<span class="{colour}">{word}</span>',
                "<br>".join(escape(str(problem)) for problem in problems),
            ]
        )
    headers = ["version", "data", *map(escape, names), "verdict", "what failed or warned"]
    note = "A version is a state of the data and of the thresholds; checking it again adds nothing."
    chart = _chart([record for _, record in shown], names[:1])
    versions = wide(table(headers, rows, numeric=range(2, 2 + len(names))))
    return f'<h2 id="history">History</h2><p class="soft">{note}</p>{chart}{versions}'


def wide(html: str) -> str:
    """Let a table scroll within the page where the screen is narrower than it."""
    return f'<div style="overflow-x:auto">{html}</div>'


def _verdict(record: Mapping[str, Any]) -> tuple[str, str]:
    failed, warned = len(record["failed"]), len(record["warned"])
    if failed:
        return "bad", f"✗&nbsp;{failed} of {record['evaluated']} fail"
    return ("warn", f"!&nbsp;{warned} warn") if warned else ("good", f"✓&nbsp;all {record['evaluated']} hold")


def _chart(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Draw one count over the versions; the colour of a point is that of its verdict."""
    if len(records) < 2 or not names:
        return ""
    name = names[0]
    values = [float(record["counts"].get(name) or 0) for record in records]
    top = max([*values, 1.0])
    step = (_WIDTH - 2 * _MARGIN) / (len(values) - 1)
    points = [
        (_MARGIN + index * step, _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * value / top)
        for index, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="var(--{_verdict(record)[0]})">'
        f"<title>{_number(record['counts'].get(name))} {escape(name)}</title></circle>"
        for (x, y), record in zip(points, records, strict=True)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)} over the versions" '
        f'style="width:100%;height:auto"><line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{_HEIGHT - _MARGIN}" '
        f'y2="{_HEIGHT - _MARGIN}" stroke="var(--line)"/><polyline points="{line}" fill="none" stroke="var(--link)" '
        f'stroke-width="2"/>{dots}</svg><p class="soft">{escape(name)} over the versions, from 0</p>'
    )


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"
