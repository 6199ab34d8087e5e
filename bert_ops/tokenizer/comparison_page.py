"""The page of ``compare_tokenizers``: a table and drawings, self-contained, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from bert_ops.page import page, table

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 460, 250, 62, 44, 30, 28
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4", "12 4")

Series = tuple[str, Sequence[tuple[float, float]]]


def comparison_page(figures: list[dict[str, Any]]) -> str:
    """Return the page for the figures of each size, as ``compare.run`` makes them."""
    rows = [
        [
            f"{f['asked']:,}",
            f"{f['vocab_size']:,}",
            f"{f['tokens_per_character']:.3f}",
            f"{f['tokens_per_word']:.3f}",
            f"{f['unknown_share']:.3%}",
            f"{f['coverage']:.3%}",
            *(f"{tokens:,}" for tokens in f["document_tokens"].values()),
            f"{f['longer_than_512']:.1%}",
        ]
        for f in figures
    ]
    headers = [
        "asked for", "pieces", "tokens a character", "tokens a word", "unknown", "characters covered",
        "half of documents up to", "90% up to", "99% up to", "longest", "longer than 512",
    ]  # fmt: skip
    single = [
        ("Tokens a character", "tokens_per_character", "{:.3g}"),
        ("Tokens a word", "tokens_per_word", "{:.3g}"),
        ("Unknown tokens", "unknown_share", "{:.3%}"),
        ("Characters without a piece", "uncovered", "{:.3%}"),
    ]
    figures = [f | {"uncovered": 1.0 - f["coverage"]} for f in figures]
    drawings = [
        line_chart(title, [("", [(f["vocab_size"], f[key]) for f in figures])], x="pieces", form=form)
        for title, key, form in single
    ]
    lengths = [(f"{f['asked']:,}", [(float(bound), share) for bound, share in f["at_most"].items()]) for f in figures]
    drawings.append(line_chart("Documents of at most so many tokens", lengths, x="tokens", form="{:.0%}"))
    first = figures[0]
    return page(
        "Vocabulary sizes compared",
        "<h2>Figures</h2>\n"
        + table(headers, rows, numeric=range(len(headers)))
        + '<p class="soft">A word is what BERT\'s splitter makes of a text: a Chinese character is one, as is a mark '
        "of punctuation. Lengths of documents include [CLS] and [SEP]. A vocabulary stays smaller than asked for where "
        "the corpus has nothing left to merge. Fewer tokens make training and inference cheaper; more pieces make the "
        "embedding table larger, and each piece rarer in training.</p>\n<h2>Drawings</h2>\n" + "\n".join(drawings),
        subtitle=f"learned on the training split, measured on {first['documents']:,} documents "
        f"({first['characters']:,} characters) of the validation split",
    )


def line_chart(title: str, series: Sequence[Series], *, x: str, form: str) -> str:
    """Draw lines as SVG; the horizontal axis is logarithmic.

    Args:
        title: what stands above.
        series: name and points of each line; a single line needs no name.
        x: unit of the horizontal axis.
        form: how a value is written, for ``str.format``.

    """
    xs = [point for _, points in series for point, _ in points]
    ys = [value for _, points in series for _, value in points]
    # From zero: a small difference must look small.
    low, high = 0.0, max(ys) * 1.08 or 1.0
    if "%" in form:
        high = min(high, 1.0)
    left, right = math.log(min(xs)), math.log(max(xs))

    def place(point: float, value: float) -> tuple[float, float]:
        across = (math.log(point) - left) / (right - left) if right > left else 0.5
        up = (value - low) / (high - low)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP),
        )

    parts = [f'<text x="{_LEFT}" y="18" font-weight="600">{escape(title)}</text>']
    for step in range(5):
        value = low + (high - low) * step / 4
        height = place(xs[0], value)[1]
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{form.format(value)}</text>')
    for point in _ticks(xs):
        across = place(point, low)[0]
        parts.append(f'<text x="{across:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{point:,.0f}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    for number, (name, points) in enumerate(series):
        parts.append(_line([place(*point) for point in points], name, number, form, points))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(title)}">'
        "<style>svg text{fill:var(--ink);font-size:11px}svg .grid{stroke:var(--line)}"
        "svg polyline{fill:none;stroke:var(--link);stroke-width:2}svg circle{fill:var(--link)}</style>"
        + "".join(parts)
        + "</svg>"
    )


def _line(
    places: list[tuple[float, float]], name: str, number: int, form: str, points: Sequence[tuple[float, float]]
) -> str:
    dash = f' stroke-dasharray="{_DASHES[number % len(_DASHES)]}"' if number % len(_DASHES) else ""
    drawn = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
    dots = "".join(
        f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3">'
        f"<title>{escape(name)} {point:,.0f}: {form.format(value)}</title></circle>"
        for (across, up), (point, value) in zip(places, points, strict=True)
    )
    legend = ""
    if name:
        height = _TOP + 14 * number + 10
        legend = (
            f'<polyline points="{_LEFT + 8},{height - 4} {_LEFT + 36},{height - 4}"{dash}/>'
            f'<text x="{_LEFT + 42}" y="{height}">{escape(name)}</text>'
        )
    return f'<polyline points="{drawn}"{dash}/>{dots}{legend}'


def _ticks(points: Sequence[float]) -> list[float]:
    """Points to label: all of them, or about six, evenly chosen, if they are many."""
    unique = sorted(set(points))
    step = -(-len(unique) // 6)
    return unique[::step]
