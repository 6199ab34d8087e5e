"""Charts of the data card: a funnel and bars in CSS, histograms in SVG; colours are those of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bert_ops.corpus.card_words import number, percent
from bert_ops.page import table

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 230, 64, 12, 12, 34

#: Hues of the classes of characters, told apart in light and dark.
_HUES = {
    "Han": "#3b7dd8", "Kana": "#8e6bd6", "Hangul": "#c45ab3", "Latin": "#e08a2c", "other letters": "#b5651d",
    "digits": "#2a9d8f", "punctuation": "#8aa0b8", "symbols": "#c9a227", "space": "#c3ccd6", "other": "#d1495b",
}  # fmt: skip


def funnel(steps: Sequence[Mapping[str, Any]]) -> str:
    """Draw the steps (name, rows_in, removed, changed, rows_out) as bars, a row of a table each."""
    most = max([step["rows_in"] for step in steps] + [1])
    rows = []
    for step in steps:
        kept, lost = (100 * max(step[key], 0) / most for key in ("rows_out", "removed"))
        # A sliver shows that something was removed, however little.
        lost = max(lost, 0.6) if step["removed"] else 0
        bar = (
            f'<div class="bar" role="img" aria-label="{number(step["rows_out"])} rows left">'
            f'<i style="width:{min(kept, 100 - lost):.2f}%"></i><i class="lost" style="width:{lost:.2f}%"></i></div>'
        )
        rows.append(
            [
                escape(step["name"].replace("_", " ")),
                bar,
                number(step["rows_out"]),
                f'<span class="bad">−{number(step["removed"])}</span>' if step["removed"] else "0",
                number(step["changed"]),
            ]
        )
    return table(["step", "", "rows left", "removed", "texts changed"], rows, numeric=[2, 3, 4])


def histogram(lengths: Mapping[str, Any], *, label: str, small: bool = False) -> str:
    """Draw documents by length; bins are as wide as their edges are apart on a logarithmic axis."""
    edges, counts = lengths["edges"], lengths["counts"]
    if not any(counts):
        return '<p class="soft">There are no documents.</p>'
    height, left = (250, 104) if small else (_HEIGHT, _LEFT)
    first = next(i for i, count in enumerate(counts) if count)
    last = max(i for i, count in enumerate(counts) if count)
    width = (_WIDTH - left - _RIGHT) / (last - first + 1)
    tallest, floor = max(counts), height - _BOTTOM
    top = _ceiling(tallest)
    parts = [
        f'<svg class="hist{" small" if small else ""}" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(label)}" style="width:100%;height:auto">'
    ]
    for tick in (0, top // 2, top) if top > 1 else (0, top):
        y = floor - (floor - _TOP) * tick / top
        parts.append(
            f'<line x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        )
    shown_until = float(left) - 40
    for index in range(first, last + 1):
        x = left + (index - first) * width
        tall = (floor - _TOP) * counts[index] / top
        upper = edges[index + 1] - 1
        span = number(edges[index]) if upper == edges[index] else f"{number(edges[index])} to {number(upper)}"
        parts.append(
            f'<rect x="{x + 0.75:.1f}" y="{floor - tall:.1f}" width="{max(width - 1.5, 1):.1f}" height="{tall:.1f}" '
            f'fill="var(--link)"><title>{span} characters: {number(counts[index])} documents</title></rect>'
        )
        # Round edges only, and none that would touch the one before it.
        edge = _round(edges[index])
        if edge is not None and x - shown_until > (110 if small else 62):
            parts.append(f'<text x="{x:.1f}" y="{floor + 24}" text-anchor="middle">{number(edge)}</text>')
            shown_until = x
    return "".join(parts) + "</svg>\n"


def _round(edge: int) -> int | None:
    """Return 1, 2 or 5 times a power of ten if an edge is within 1% of it."""
    near = int(float(f"{edge:.0e}"))
    return near if str(near)[:1] in "125" and abs(edge - near) <= near / 100 else None


def _ceiling(value: int) -> int:
    """Smallest of 1, 2, 4, 6, 8 times a power of ten that is not below a value, so that its half is whole, too."""
    power = 1
    while True:
        for factor in (1, 2, 4, 6, 8):
            if factor * power >= value:
                return factor * power
        power *= 10


def class_bars(profiles: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the classes of characters of each source as one stacked bar, with the shares below it."""
    present = [name for name in _HUES if any(facts["classes"].get(name) for facts in profiles.values())]
    key = "".join(f'<li><span class="key" style="background:{_HUES[name]}"></span>{name}</li>' for name in present)
    parts = [f'<ul class="tokens">{key}</ul>']
    for source, facts in profiles.items():
        shares = {name: facts["classes"].get(name, 0) / max(facts["characters"], 1) for name in present}
        shares = {name: share for name, share in shares.items() if share}
        bar = "".join(
            f'<i style="width:{100 * share:.3f}%;background:{_HUES[name]}" title="{name} {percent(share)}"></i>'
            for name, share in shares.items()
        )
        said = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
        parts.append(
            f'<figure><figcaption><strong>{escape(source)}</strong></figcaption><div class="stack">{bar}</div>'
            f'<p class="soft said">{said}</p></figure>'
        )
    return "".join(parts) + "\n"
