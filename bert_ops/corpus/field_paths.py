"""Paths to nested fields, as params.yaml writes them: ``a.b[0].c``.

Names are separated by dots, ``[0]`` is an element of a list (from 0), and a name that holds a dot or a bracket stands
in quotation marks, as JSON writes it: ``"a.b".c``. Where rows are looked for, ``[*]`` means each element.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal

from bert_ops.corpus.records import MISSING

#: A name, the place of an element, or each element.
Step = str | int | Literal[True]

_STEP = re.compile(r'(?P<dot>\.)?(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<name>[^."\[\]]+)|\[(?P<index>\d{1,9}|\*)\])')
_RULE = 'names separated by dots, [0] for an element of a list, "quotation marks" around a name that holds a dot'


def parse_path(path: str, *, key: str, stars: bool = False) -> list[Step]:
    """Take a path apart: a name is a str, a place an int, ``[*]`` is True.

    Raises:
        ValueError: it cannot be parsed; the message names ``key`` and what is allowed.

    """
    steps: list[Step] = []
    place = 0
    while place < len(path):
        match = _STEP.match(path, place)
        if match is None or (match["dot"] is None) != (place == 0 or match["index"] is not None):
            raise ValueError(f"{key} is {path!r}: unexpected {path[place]!r} at {place}; allowed: {_RULE}")
        steps.append(_step(match, key=key, path=path, stars=stars))
        place = match.end()
    if not steps:
        raise ValueError(f"{key} is empty; allowed: {_RULE}")
    return steps


def _step(match: re.Match[str], *, key: str, path: str, stars: bool) -> Step:
    if match["name"] is not None:
        return match["name"]
    if match["quoted"] is not None:
        try:
            return str(json.loads(match["quoted"]))
        except ValueError as error:
            raise ValueError(f"{key} is {path!r}: {match['quoted']} is not a JSON string; allowed: {_RULE}") from error
    if match["index"] == "*":
        if not stars:
            raise ValueError(f"{key} is {path!r}: [*] stands for many values; allowed: {_RULE}")
        return True
    return int(match["index"])


def getter(path: str | None) -> Callable[[Any], Any]:
    """Return a function that follows a path; where it leads nowhere, the result is MISSING; no path gives None."""
    if path is None:
        return lambda _: None
    steps = parse_path(path, key="path")
    if len(steps) == 1 and isinstance(steps[0], str):
        name = steps[0]
        return lambda value: value.get(name, MISSING) if isinstance(value, dict) else MISSING
    return lambda value: follow(value, steps)


def follow(value: Any, steps: list[Step]) -> Any:
    """Follow a path without stars."""
    for step in steps:
        if isinstance(step, str):
            if not isinstance(value, dict) or step not in value:
                return MISSING
        elif not isinstance(value, list) or step >= len(value):
            return MISSING
        value = value[step]
    return value
