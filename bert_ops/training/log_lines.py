"""One record of a log as one line of strict JSON, and back.

JSON has no number for NaN and infinity: they stand as the texts "NaN", "Infinity" and "-Infinity" (as in protobuf's
JSON mapping), and :func:`parse` turns them back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(record: Mapping[str, Any]) -> str:
    """One record as one line of strict JSON.

    Raises:
        TypeError: a figure is neither a JSON value nor a scalar with ``item()`` (NumPy, torch).

    """
    return json.dumps(to_json(record), ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def to_json(value: Any) -> Any:
    """JSON value of a figure, a list or a mapping of them; numbers that JSON lacks become texts.

    Raises:
        TypeError: it is neither a JSON value nor a scalar with ``item()``.

    """
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else _name_of(value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if not hasattr(value, "item"):
        raise TypeError(f"a log cannot hold a {type(value).__name__}")
    return to_json(value.item())


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def from_json(value: Any) -> Any:
    """Undo :func:`to_json`."""
    if isinstance(value, dict):
        return {name: from_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def parse(line: bytes) -> Record | None:
    """Record of one line, or None if it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
        return None
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return None
    if not isinstance(value.get("time"), int | float):
        return None
    record: Record = from_json(value)
    return record
