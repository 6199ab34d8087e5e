"""A curve over the steps of a run as inline SVG, in the colours of the page, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 250, 84, 18, 14, 44

#: Points of a curve; a screen has no more columns.
_POINTS = 600


def curve(
    steps: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    label: str,
    marks: Sequence[tuple[int, str]] = (),
    lines: Sequence[tuple[float, str]] = (),
    ceiling: float | None = None,
) -> str:
    """Draw values over steps.

    Args:
        steps: (N,), numbers of the steps as the log counts them, ascending.
        values: (N,), or (N, 2) for the lower and the upper bound of something that is not known.
        label: what it is, for readers that do not see it.
        marks: steps to put a dot on, with a text that shows when the pointer is on it.
        lines: level lines with their names.
        ceiling: where the axis ends; the largest value by default.

    Returns:
        SVG; the axis of values begins at 0.

    """
    low, high = (values, values) if values.ndim == 1 else (values[:, 0], values[:, 1])
    ticks = _ticks(ceiling if ceiling is not None else float(high.max()))
    first, last = int(steps[0]), max(int(steps[-1]), int(steps[0]) + 1)

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - first) / (last - first)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * min(value / ticks[-1], 1.02)

    kept = _kept(steps, [step for step, _ in marks])
    upper = [(x(steps[i]), y(high[i])) for i in kept]
    lower = [(x(steps[i]), y(low[i])) for i in kept]
    floor = [(x(steps[kept[0]]), y(0)), (x(steps[kept[-1]]), y(0))]
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}" '
        'style="width:100%;height:auto" font-size="12" fill="var(--soft)">',
        *(_level(y(tick), _number(tick)) for tick in ticks),
        *(_below(x(step), f"{step:,}") for step in _places(first, last)),
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">step</text>',
    ]
    if np.array_equal(low, high):
        area = [floor[0], *upper, floor[1]]
        parts.append(f'<polygon points="{_joined(area)}" fill="var(--link)" fill-opacity=".1"/>')
    else:
        parts.append(f'<polygon points="{_joined([*upper, *lower[::-1]])}" fill="var(--link)" fill-opacity=".2"/>')
        parts.append(_line(lower))
    parts.append(_line(upper))
    within = [(value, name) for value, name in lines if 0 < value <= ticks[-1]]
    # Names of lines that lie close stand at the two ends.
    parts += [_named_line(y(value), name, right=place % 2 == 0) for place, (value, name) in enumerate(within)]
    for step, text in marks:
        at = int(np.searchsorted(steps, step))
        parts.append(
            f'<circle cx="{x(step):.1f}" cy="{y(high[at]):.1f}" r="4" fill="var(--link)" stroke="var(--back)">'
            f"<title>{escape(text)}</title></circle>"
        )
    return "".join(parts) + "</svg>\n"


def _kept(steps: NDArray[np.int64], marked: Sequence[int]) -> list[int]:
    """Places of the points that are drawn: evenly spread, and those on both sides of a mark, for sharp corners."""
    places = set(np.linspace(0, len(steps) - 1, _POINTS).round().astype(int).tolist())
    for place in np.searchsorted(steps, np.array(marked, np.int64)).tolist():
        places |= {max(place - 1, 0), min(place, len(steps) - 1)}
    return sorted(places)


def _ticks(most: float) -> list[float]:
    """Round values from 0 to the first that is not below ``most``, at most six."""
    if not most > 0 or not math.isfinite(most):
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / 5))
    width = next(factor * power for factor in (1, 2, 5, 10) if factor * power * 5 >= most * (1 - 1e-9))
    count = math.ceil(most / width * (1 - 1e-9))
    # Through text: 3 × 0.1 is not 0.3.
    return [float(f"{width * number:.6g}") for number in range(count + 1)]


def _places(first: int, last: int) -> list[int]:
    """Steps below the axis: the first, round ones, and the last if it has room."""
    width = max(1, round(_ticks(last)[1]))
    inner = [step for step in range(width, last, width) if step - first > width / 2 and last - step > width / 2]
    return [first, *inner, last]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _level(y: float, text: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _below(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{text}</text>'


def _named_line(y: float, name: str, *, right: bool) -> str:
    x, anchor = (_WIDTH - _RIGHT - 4, "end") if right else (_LEFT + 4, "start")
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--warn)" '
        'stroke-dasharray="6 4"/>'
        f'<text x="{x}" y="{y - 5:.1f}" text-anchor="{anchor}" fill="var(--warn)">{escape(name)}</text>'
    )


def _line(points: Sequence[tuple[float, float]]) -> str:
    return f'<polyline points="{_joined(points)}" fill="none" stroke="var(--link)" stroke-width="2"/>'


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
