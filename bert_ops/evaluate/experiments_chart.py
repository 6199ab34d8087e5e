"""Scores against the values of one parameter, as inline SVG: no script, colours of the page (light and dark)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from bert_ops.evaluate.charts import ticks

_WIDTH, _HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 28, 28, 42
_LABELS = 12


@dataclass(frozen=True)
class Dot:
    """An experiment: the parameter's value, the score, and the name that pointing at it shows."""

    value: str
    score: float
    name: str
    is_baseline: bool = False


def dot_chart(dots: Sequence[Dot], *, x_title: str, y_title: str) -> str:
    """Draw a dot an experiment over evenly spaced values, and a line through the means of each. Returns an ``<svg>``.

    Values are as a grid has them: few, and of any kind (words, or rates that differ by powers of ten), so that their
    order tells more than their distance.

    Args:
        dots: at least one, in the order of their values; scores are finite.
        x_title: the parameter.
        y_title: what the vertical axis shows.
    """
    assert dots, "a chart needs a point"
    values = list(dict.fromkeys(dot.value for dot in dots))
    y_ticks = ticks(min(dot.score for dot in dots), max(dot.score for dot in dots), about=4)
    low, high = y_ticks[0], y_ticks[-1]

    def across(value: str) -> float:
        return _LEFT + (values.index(value) + 0.5) / len(values) * (_WIDTH - _LEFT - _RIGHT)

    def down(score: float) -> float:
        return _HEIGHT - _BOTTOM - (score - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{y_title} by {x_title}")}" '
        'style="width:100%;height:auto;font-size:12px">'
    ]
    for tick in y_ticks:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down(tick):.1f}" y2="{down(tick):.1f}" '
            f'stroke="var(--line)"/><text x="{_LEFT - 8}" y="{down(tick) + 4:.1f}" text-anchor="end" '
            f'fill="var(--soft)">{tick:g}</text>'
        )
    for number, value in enumerate(values):
        if number % -(-len(values) // _LABELS) == 0:
            parts.append(
                f'<text x="{across(value):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" '
                f'fill="var(--soft)">{escape(value[:24])}</text>'
            )
    means = [(across(value), down(fmean(dot.score for dot in dots if dot.value == value))) for value in values]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in means)
    parts.append(f'<polyline points="{path}" fill="none" stroke="var(--soft)" stroke-dasharray="4 4"/>')
    for dot in dots:
        look = 'r="8" fill="none"' if dot.is_baseline else 'r="4" fill="var(--link)"'
        parts.append(
            f'<circle cx="{across(dot.value):.1f}" cy="{down(dot.score):.1f}" {look} stroke="var(--link)" '
            f'stroke-width="1.5"><title>{escape(dot.name)}: {dot.score:.4f}</title></circle>'
        )
    parts.append(
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end" fill="var(--soft)">{escape(x_title)}</text>'
        f'<text x="8" y="14" fill="var(--soft)">{escape(y_title)}</text>'
    )
    if any(dot.is_baseline for dot in dots):
        parts.append(
            f'<text x="{_WIDTH - _RIGHT}" y="14" text-anchor="end" fill="var(--soft)">ring: the baseline</text>'
        )
    return "".join(parts) + "</svg>\n"
