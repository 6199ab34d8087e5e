"""Which regular expressions of params.yaml are let near a text: those that compile and cannot take exponential time.

Python's engine backtracks and knows no time limit, so the structure of a pattern is looked at before it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: Repeats without a bound that a pattern may have: the time for a line of n characters grows as n to this power + 1.
MAX_REPEATS = 2
#: A repeat that can match more often than this counts as one without a bound.
_BOUNDED = 16


def check_pattern(pattern: str) -> str | None:
    """Say what is wrong with a regular expression, or None if it compiles and cannot take exponential time.

    A repeat within a repeat, or alternatives within one, can match the same text in exponentially many ways; each
    repeat without a bound multiplies the time by the length of the line.
    """
    parser: Any = re._parser  # type: ignore[attr-defined]
    try:
        compiled = re.compile(pattern)
        parsed = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    if compiled.search(""):
        return "matches an empty line"
    if compiled.groupindex or compiled.flags & ~re.UNICODE.value:
        return "names a group or sets flags for the whole pattern; write (...) and (?i:...) instead"
    try:
        repeats = _repeats(parsed, within=False)
    except _Dangerous as dangerous:
        return str(dangerous)
    if repeats > MAX_REPEATS:
        return f"has {repeats} repeats without a bound (*, + or more than {_BOUNDED} times); allowed are {MAX_REPEATS}"
    return None


class _Dangerous(Exception):
    """Internal: a pattern that can take exponential time."""


def _repeats(parsed: Iterable[tuple[Any, Any]], *, within: bool) -> int:
    """Count repeats without a bound in a parsed pattern; ``within`` says whether a repeat is around it."""
    count = 0
    for operation, arguments in parsed:
        name = str(operation)
        if "GROUPREF" in name:
            raise _Dangerous("refers back to a group; spell it out")
        if within and (name == "BRANCH" or (name.endswith("REPEAT") and arguments[0] != arguments[1])):
            raise _Dangerous("has a repeat or alternatives within a repeat, which can take exponential time")
        repeated = name.endswith("REPEAT")
        unbounded = repeated and int(arguments[1]) > _BOUNDED
        count += unbounded
        for part in _parts(arguments):
            count += _repeats(part, within=within or (repeated and int(arguments[1]) > 1))
    return count


def _parts(arguments: Any) -> Iterable[Any]:
    """Parsed patterns within the arguments of an operation."""
    parser: Any = re._parser  # type: ignore[attr-defined]
    if isinstance(arguments, parser.SubPattern):
        yield arguments
    elif isinstance(arguments, tuple | list):
        for argument in arguments:
            yield from _parts(argument)
