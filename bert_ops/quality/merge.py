"""Puts together what Great Expectations says of the batches of one table.

Only expectations whose outcome follows from those of the batches are used on tables in batches: those that look at
each row, the number of rows and the set of columns. Rules over all rows at once (no id occurs twice) come as a boolean
column.
"""

from __future__ import annotations

from typing import Any

from bert_ops.quality.checks import MAX_EXAMPLES

_SUMS = ("element_count", "unexpected_count", "missing_count")


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of a suite over two batches, the first of which may be several."""
    results = [_merged(*pair) for pair in zip(first["results"], second["results"], strict=True)]
    return {**first, "results": results}


def statistics(document: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome of a suite with its counts of expectations, and its success, made anew."""
    held = sum(bool(outcome["success"]) for outcome in document["results"])
    evaluated = len(document["results"])
    counts = {
        "evaluated_expectations": evaluated,
        "successful_expectations": held,
        "unsuccessful_expectations": evaluated - held,
        "success_percent": 100.0 * held / evaluated if evaluated else None,
    }
    return {**document, "success": held == evaluated, "statistics": counts}


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    examples = (first["examples"] + second["examples"])[:MAX_EXAMPLES]
    for outcome in (first, second):
        if not outcome["result"] or _failed_to_run(outcome):
            return {**outcome, "success": False, "examples": examples}
    left, right = first["result"], second["result"]
    if "element_count" in left:
        result = _rows(left, right)
        allowed = 1.0 - float(first["expectation_config"]["kwargs"].get("mostly", 1.0))
        present = result["element_count"] - result.get("missing_count", 0)
        # The share that Great Expectations compares, with its tolerance for the rounding of a quotient.
        success = result["unexpected_count"] <= allowed * present + 1e-9 * present
        return {**first, "success": success, "result": result, "examples": examples}
    if first["expectation_config"]["type"] == "expect_table_row_count_to_be_between":
        rows = left["observed_value"] + right["observed_value"]
        enough = rows >= first["expectation_config"]["kwargs"]["min_value"]
        return {**first, "success": enough, "result": {**left, "observed_value": rows}, "examples": examples}
    assert first["expectation_config"]["type"] == "expect_table_columns_to_match_set", first["expectation_config"]
    return second if first["success"] else first


def _rows(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    result = {**left, **{key: left[key] + right[key] for key in _SUMS if key in left}}
    listed = left.get("partial_unexpected_list", []) + right.get("partial_unexpected_list", [])
    result["partial_unexpected_list"] = listed[:MAX_EXAMPLES]
    total, failed = result["element_count"], result["unexpected_count"]
    present = total - result.get("missing_count", 0)
    result["unexpected_percent"] = _percent(failed, present)
    for key, count, whole in (
        ("unexpected_percent_nonmissing", failed, present),
        ("unexpected_percent_total", failed, total),
        ("missing_percent", result.get("missing_count", 0), total),
    ):
        if key in left:
            result[key] = _percent(count, whole)
    return result


def _percent(count: int, whole: int) -> float:
    return float(f"{100.0 * count / whole:.9g}") if whole else 0.0


def _failed_to_run(outcome: dict[str, Any]) -> bool:
    info = outcome.get("exception_info") or {}
    return bool(info.get("raised_exception")) or any(
        isinstance(value, dict) and value.get("raised_exception") for value in info.values()
    )
