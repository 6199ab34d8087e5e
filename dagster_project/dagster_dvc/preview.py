"""What a person wants to see of a result without opening a file: curves, first rows, a few lines, as Markdown.

A stage's plots are drawn by the axes that ``dvc.yaml`` names. Files that ``meta.preview`` lists are shown as they are
(Markdown, text) or as a table (CSV, TSV, JSON Lines). What cannot be read is left out: a preview must never fail a run.
"""

from __future__ import annotations

import base64
import csv
import json
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from .markdown import table
from .pipeline import Stage, within

_ROWS, _CHARACTERS, _POINTS = 8, 6000, 200
_WIDTH, _HEIGHT = 360, 110


def previews(root: Path, stage: Stage) -> dict[str, str]:
    """Markdown by title for what a stage made."""
    found = {}
    for path, settings in _plots(stage):
        if text := curve(root / path, settings):
            found[str(settings.get("title") or path)] = text
    for path in stage.meta.get("preview", []):
        if text := excerpt(root / path):
            found[f"preview of {Path(path).name}"] = text
    return found


def curve(path: Path, settings: Mapping[str, Any]) -> str | None:
    """A small line chart of a table, with its first, best and last value; ``None`` if there is nothing to draw.

    Args:
        path: CSV or TSV with a header.
        settings: ``x`` and ``y`` as DVC's plots name them.
    """
    y, x = settings.get("y"), settings.get("x")
    if not isinstance(y, str) or path.suffix not in {".csv", ".tsv"}:
        return None
    points = list(_points(path, x if isinstance(x, str) else None, y))
    if not points:
        return None
    lowest = min(points, key=lambda point: point[1])
    words = f"`{y}`: {points[0][1]:.4g} → {points[-1][1]:.4g}, lowest {lowest[1]:.4g}"
    if isinstance(x, str):
        words += f" at {x} {lowest[0]:g} of {points[-1][0]:g}"
    image = base64.b64encode(_drawing(points).encode()).decode()
    return f"![{y}](data:image/svg+xml;base64,{image})\n\n{words}"


def excerpt(path: Path) -> str | None:
    """The beginning of a file as Markdown; ``None`` if it does not exist or cannot be shown."""
    try:
        if path.suffix in {".csv", ".tsv"}:
            with path.open(encoding="utf-8", newline="") as file:
                return table(list(islice(csv.DictReader(file, delimiter=_delimiter(path)), _ROWS)))
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                return table([json.loads(line) for line in islice(file, _ROWS)])
        with path.open(encoding="utf-8") as file:
            text = file.read(_CHARACTERS)
    except (OSError, ValueError):
        return None
    return text if path.suffix == ".md" else f"```\n{text}\n```"


def _plots(stage: Stage) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for item in stage.definition.get("plots") or []:
        if isinstance(item, Mapping):
            for path, settings in item.items():
                yield within(stage.folder, str(path)), settings or {}


def _points(path: Path, x: str | None, y: str) -> Iterator[tuple[float, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=_delimiter(path)))
    except (OSError, ValueError):
        return
    step = max(1, len(rows) // _POINTS)
    for number, row in enumerate(rows):
        if number % step and number != len(rows) - 1:
            continue
        try:
            point = (float(row[x]) if x else float(number), float(row[y]))
        except (KeyError, TypeError, ValueError):
            continue
        if all(map(math.isfinite, point)):
            yield point


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def _drawing(points: list[tuple[float, float]]) -> str:
    """An SVG that is readable on a light and on a dark page."""
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))
    wide, high = x1 - x0 or 1.0, y1 - y0 or 1.0
    places = [((x - x0) / wide * (_WIDTH - 8) + 4, (y1 - y) / high * (_HEIGHT - 8) + 4) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<polyline points="{line}" fill="none" stroke="#2f7fd6" stroke-width="2" stroke-linejoin="round"/>'
        f'<circle cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="3" fill="#2f7fd6"/></svg>'
    )
