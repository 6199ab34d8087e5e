"""What is expected of the data, as plain values: no Great Expectations is needed to list or to count the checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bert_ops.quality.params import Limit

Severity = Literal["critical", "warning"]

#: How many failing rows a report shows of one check.
MAX_EXAMPLES = 5
#: Characters of a text that a report may show.
EXCERPT_CHARACTERS = 80


@dataclass(frozen=True)
class Check:
    """One expectation.

    Args:
        kind: class in ``great_expectations.expectations``, for example ``ExpectColumnValuesToBeUnique``.
        what: the expectation as a sentence for people.
        allowed: what passes, with the threshold in it.
        severity: a failed ``critical`` check stops the pipeline, a failed ``warning`` is only reported.
        setting: dotted key of the threshold in params.yaml, if it has one.
        arguments: keyword arguments of the class.
        remembers: the outcome depends on an earlier run, not on the data alone, so what was observed stays out of the
            metrics, which later stages depend on.

    """

    kind: str
    what: str
    allowed: str
    severity: Severity = "critical"
    setting: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    remembers: bool = False


@dataclass(frozen=True)
class Suite:
    """Checks over one table.

    Args:
        name: name of the suite, and of the table it is about.
        title: the same for people.
        identity: columns that tell which row failed; they are shown in the report.
        checks: the expectations, in the order in which they are shown.
        group: what it is about: raw documents, labelled examples or tokens.

    """

    name: str
    title: str
    identity: tuple[str, ...]
    checks: tuple[Check, ...]
    group: Literal["documents", "examples", "tokens"]


def holds(column: str, what: str, *, severity: Severity = "critical") -> Check:
    """Expect every row of a derived boolean column to be true.

    Rules that span rows or tables (leakage, conflicts) are computed as a column first: Great Expectations then takes
    0.8 s where a value set of 28,000 items takes 7 s.
    """
    return Check(
        "ExpectColumnValuesToBeInSet",
        what,
        "every row",
        severity,
        arguments={"column": column, "value_set": [True]},
    )


def between(
    column: str,
    what: str,
    *,
    low: float | None = None,
    high: float | None = None,
    severity: Severity = "critical",
) -> Check:
    """Expect every value of a column in a closed interval that is no threshold but a rule (no text is empty)."""
    return Check(
        "ExpectColumnValuesToBeBetween",
        what,
        interval(low, high),
        severity,
        arguments={"column": column, "min_value": low, "max_value": high, "mostly": 1.0},
    )


def within(column: str, what: str, limit: Limit, setting: str, *, high: float | None = None) -> Check:
    """Expect the values of a column within a limit of params.yaml, in all rows or in the share ``mostly`` of them.

    Args:
        column: the column.
        what: the expectation as a sentence.
        limit: its ``min``, ``max``, ``mostly`` and ``severity``, as far as it has them.
        setting: dotted key of the limit.
        high: upper bound of a limit that has none by itself.

    """
    low, mostly = getattr(limit, "min", None), getattr(limit, "mostly", 1.0)
    high = getattr(limit, "max", high)
    rows = "" if mostly == 1.0 else f", in at least {mostly:.4g} of the rows"
    return Check(
        "ExpectColumnValuesToBeBetween",
        what,
        interval(low, high) + rows,
        limit.severity,
        setting,
        {"column": column, "min_value": low, "max_value": high, "mostly": mostly},
    )


def figure(column: str, what: str, limit: Limit, setting: str) -> Check:
    """Expect the one value of a column in a table of one row within a limit; a missing value fails."""
    low, high = getattr(limit, "min", None), getattr(limit, "max", None)
    return Check(
        "ExpectColumnMaxToBeBetween",
        what,
        interval(low, high),
        limit.severity,
        setting,
        {"column": column, "min_value": low, "max_value": high},
    )


def row_count(what: str, *, low: int) -> Check:
    """Expect at least ``low`` rows, where there must be some: an empty table passes all row-level checks."""
    return Check("ExpectTableRowCountToBeBetween", what, interval(low, None), arguments={"min_value": low})


def columns(names: list[str]) -> Check:
    """Expect the named columns, and allow others."""
    return Check(
        "ExpectTableColumnsToMatchSet",
        "The required columns are there",
        ", ".join(names),
        arguments={"column_set": names, "exact_match": False},
    )


def not_null(column: str, what: str) -> Check:
    """Expect no value to be missing. Other row-level checks skip missing values, so this one must stand beside them."""
    return Check("ExpectColumnValuesToNotBeNull", what, "every row", arguments={"column": column})


def in_set(column: str, what: str, values: list[str]) -> Check:
    """Expect every value to be one of ``values``."""
    return Check(
        "ExpectColumnValuesToBeInSet", what, ", ".join(values), arguments={"column": column, "value_set": values}
    )


def equal(left: str, right: str, what: str, *, severity: Severity = "critical") -> Check:
    """Expect two columns to hold the same value in every row; a missing value on one side is a difference."""
    return Check(
        "ExpectColumnPairValuesToBeEqual",
        what,
        "every row",
        severity,
        arguments={"column_A": left, "column_B": right, "ignore_row_if": "neither"},
    )


def matches(column: str, what: str, pattern: str, *, allowed: str) -> Check:
    """Expect every value to match a regular expression."""
    return Check("ExpectColumnValuesToMatchRegex", what, allowed, arguments={"column": column, "regex": pattern})


def interval(low: float | None, high: float | None) -> str:
    """Say a closed interval: "at least 100", "at most 0.2", "1 to 20,000"."""
    if low is None:
        return f"at most {high:,.6g}"
    return f"at least {low:,.6g}" if high is None else f"{low:,.6g} to {high:,.6g}"
