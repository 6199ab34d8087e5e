"""Line charts as inline SVG: no script, nothing fetched, colours of the page (light and dark)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 28, 34, 42


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points (x, y) and the CSS colour that it is drawn in."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False


def line_chart(lines: Sequence[Line], *, x_title: str, y_title: str) -> str:
    """Draw curves; points that are not finite are left out. Returns an ``<svg>`` element.

    Args:
        lines: at least one with a finite point.
        x_title: what the horizontal axis shows, with unit.
        y_title: what the vertical axis shows, with unit.
    """
    finite = [[(x, y) for x, y in line.points if math.isfinite(x) and math.isfinite(y)] for line in lines]
    xs = [x for points in finite for x, _ in points]
    ys = [y for points in finite for _, y in points]
    assert xs, "a chart needs a point"
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    x_low, x_high, y_low, y_high = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low or 1.0)
        up = (y - y_low) / (y_high - y_low or 1.0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(y_title)}" '
        'style="width:100%;height:auto;font-size:12px">'
    ]
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="var(--soft)">{tick:g}</text>'
        )
    for tick in x_ticks:
        x, _ = place(tick, y_low)
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="var(--soft)">{tick:,g}</text>'
        )
    parts.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end" fill="var(--soft)">{escape(x_title)}</text>'
        f'<text x="8" y="14" fill="var(--soft)">{escape(y_title)}</text>'
    )
    legend_x = float(_WIDTH - _RIGHT)
    for line, points in zip(reversed(lines), reversed(finite), strict=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        dash = ' stroke-dasharray="6 5"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>')
        parts.append(
            f'<text x="{legend_x:.0f}" y="14" text-anchor="end" fill="{line.colour}">{escape(line.name)}</text>'
        )
        legend_x -= 7.2 * len(line.name) + 20
    return "".join(parts) + "</svg>\n"


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round positions that span [low, high] from just below to just above: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)) or span < 1e-300:  # flat, as far as a drawing goes
        span = max(abs(high), 1e-9)
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * unit for unit in (1, 2, 5, 10) if span / (power * unit) <= about)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]
