"""Runs suites with Great Expectations and returns plain values.

A table comes in batches, so that memory is bounded whatever the size of the corpus: each batch is evaluated, and the
outcomes are put together (:mod:`~bert_ops.quality.merge`).

Great Expectations is asked for three things only: to evaluate an expectation on a table, to find the rows that fail
it, and to render its own pages. Everything else (context, stores, run ids) stays in memory and is thrown away, so
that equal data gives equal bytes. Importing it takes 5 to 10 s, so it is imported when a suite runs and not before.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from bert_ops.quality.checks import EXCERPT_CHARACTERS, MAX_EXAMPLES, Check, Suite
from bert_ops.quality.merge import merge, statistics

if TYPE_CHECKING:
    import pandas as pd

#: Makes the batches of a table, at least one.
Frames = Callable[[], "Iterable[pd.DataFrame]"]

#: Rows that are evaluated together: an evaluation costs some 50 ms whatever the number of rows.
_ROWS = 100_000
#: Significant digits of an observed figure; more would carry the rounding of a sum into the report.
_DIGITS = 9


@dataclass(frozen=True)
class Validation:
    """The outcome of several suites.

    Attributes:
        summary: ``success``, ``evaluated``, ``failed_critical``, ``failed_warning``, the same for each of ``suites``
            and ``groups``, and ``results``, as JSON holds it.
        suites: what was evaluated, in order.
        raw: Great Expectations' own result of each suite as JSON-like values, for its Data Docs.
        rows: rows of each suite's table.

    """

    summary: dict[str, Any]
    suites: tuple[Suite, ...]
    raw: tuple[dict[str, Any], ...]
    rows: dict[str, int]


def run_suites(tables: Mapping[str, Frames], suites: Sequence[Suite]) -> Validation:
    """Evaluate suites over the tables of the same names.

    A check that cannot be evaluated (its column is not there, its type does not fit) counts as failed and says why.
    """
    with quiet(), _without_fingerprints():
        gx = _great_expectations()
        source = _context(gx).data_sources.add_pandas("bert_ops")
        raw, rows = [], {}
        for suite in suites:
            document, rows[suite.name] = _evaluate(gx, source, suite, tables[suite.name])
            raw.append(document)
    results = [
        _plain(suite, check, outcome)
        for suite, document in zip(suites, raw, strict=True)
        for check, outcome in zip(suite.checks, document["results"], strict=True)
    ]
    group_of = {suite.name: suite.group for suite in suites}
    summary = {
        **_verdict(results),
        "suites": {suite.name: _verdict([r for r in results if r["suite"] == suite.name]) for suite in suites},
        "groups": {
            group: _verdict([r for r in results if group_of[r["suite"]] == group])
            for group in dict.fromkeys(group_of.values())
        },
        "results": results,
    }
    return Validation(summary, tuple(suites), tuple(raw), rows)


def _verdict(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    failed = [result["severity"] for result in results if not result["success"]]
    return {
        "success": "critical" not in failed,
        "evaluated": len(results),
        "failed_critical": failed.count("critical"),
        "failed_warning": failed.count("warning"),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Great Expectations from printing: its logger, its warnings, its progress bars."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _without_fingerprints() -> Iterator[None]:
    """Keep Great Expectations from hashing every table twice for a marker that nobody reads: half of its time."""
    _great_expectations()
    from great_expectations.execution_engine import pandas_execution_engine as module

    original = getattr(module, "hash_pandas_dataframe", None)
    if original is not None:
        module.hash_pandas_dataframe = lambda _: ""
    try:
        yield
    finally:
        if original is not None:
            module.hash_pandas_dataframe = original


def _great_expectations() -> Any:
    # Read at import: with it set nothing is sent anywhere, and no id is written to the home folder.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    return gx


def _context(gx: Any) -> Any:
    """Make a context in memory: no stores on disk, no site, no progress bars, no analytics."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _evaluate(gx: Any, source: Any, suite: Suite, frames: Frames) -> tuple[dict[str, Any], int]:
    """Evaluate one suite over all batches of its table; return the outcome and the number of rows."""
    definition = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe(suite.name)
    rows = 0
    document: dict[str, Any] | None = None
    for frame in _gathered(frames()):
        rows += len(frame)
        found = _evaluate_batch(gx, definition, suite, frame)
        document = found if document is None else merge(document, found)
    assert document is not None, "a table has at least one batch"
    return statistics(document), rows


def _gathered(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Join small batches; rows are numbered from 0 in each."""
    import pandas as pd

    waiting: list[pd.DataFrame] = []
    for frame in frames:
        if waiting and sum(map(len, waiting)) + len(frame) > _ROWS:
            yield pd.concat(waiting, ignore_index=True)
            waiting = []
        waiting.append(frame)
    yield pd.concat(waiting, ignore_index=True)


def _evaluate_batch(gx: Any, definition: Any, suite: Suite, frame: pd.DataFrame) -> dict[str, Any]:
    """Evaluate one batch; results come back in the order of the checks (Great Expectations moves errors up)."""
    batch = definition.get_batch(batch_parameters={"dataframe": frame})
    result = batch.validate(
        gx.ExpectationSuite(
            name=suite.name, expectations=[_expectation(gx, index, check) for index, check in enumerate(suite.checks)]
        ),
        # Asked for columns that tell which rows fail, Great Expectations takes 35 us a row; positions cost nothing.
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_EXAMPLES},
    )
    document: dict[str, Any] = _native(result.to_json_dict())
    document["results"].sort(key=lambda outcome: outcome["expectation_config"]["meta"]["index"])
    assert len(document["results"]) == len(suite.checks)
    for check, outcome in zip(suite.checks, document["results"], strict=True):
        found = outcome["result"]
        # Counts of the few values that are listed would read as counts of all.
        found.pop("partial_unexpected_counts", None)
        outcome["examples"] = _rows(frame, found.pop("partial_unexpected_index_list", None) or [], suite, check)
        if "element_count" not in found:
            # Members of sets come in the order of Python's string hashes, another one in each process.
            outcome["result"] = _sorted(found)
    return document


def _rows(frame: pd.DataFrame, positions: Sequence[int], suite: Suite, check: Check) -> list[dict[str, Any]]:
    """What tells the rows at some positions, and the values that failed."""
    about = (check.arguments.get(name) for name in ("column", "column_A", "column_B"))
    names = [str(name) for name in dict.fromkeys([*suite.identity, *about]) if name in frame.columns]
    return [{name: _native(frame[name].iloc[position]) for name in names} for position in positions[:MAX_EXAMPLES]]


def _sorted(value: Any) -> Any:
    """Sort every list inside."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    return sorted(value, key=str) if isinstance(value, list) else value


def _expectation(gx: Any, index: int, check: Check) -> Any:
    # The Data Docs take a description as a `string.Template` of HTML.
    description = escape(f"{check.what} ({check.allowed})").replace("$", "$$")
    return getattr(gx.expectations, check.kind)(
        **check.arguments, severity=check.severity, description=description, meta={"index": index}
    )


def _plain(suite: Suite, check: Check, outcome: dict[str, Any]) -> dict[str, Any]:
    """One result as the metrics file holds it."""
    arguments, result = check.arguments, outcome["result"]
    column = arguments.get("column")
    if "column_A" in arguments:
        column = f"{arguments['column_A']}, {arguments['column_B']}"
    return {
        "suite": suite.name,
        "expectation": outcome["expectation_config"]["type"],
        "column": column,
        "severity": check.severity,
        "success": outcome["success"],
        "what": check.what,
        "allowed": check.allowed,
        "setting": check.setting,
        "observed": _observed(outcome),
        "unexpected_count": result.get("unexpected_count") if "element_count" in result else None,
        "unexpected_percent": result.get("unexpected_percent"),
        "examples": [_excerpts(row) for row in outcome["examples"]],
    }


def _observed(outcome: dict[str, Any]) -> Any:
    """Return the observed figure, or how many rows fail, or why the check could not be evaluated."""
    result = outcome["result"]
    if "partial_missing_list" in result or isinstance(result.get("observed_value"), list):
        # Of a set, what is absent tells more than what is there.
        mismatched = (result.get("details") or {}).get("mismatched") or {}
        absent = result.get("partial_missing_list") or mismatched.get("missing") or []
        return f"missing: {', '.join(map(str, absent))}" if absent else "none is missing"
    if result.get("observed_value") is not None:
        return result["observed_value"]
    if "element_count" in result:
        failed, rows = result["unexpected_count"], result["element_count"]
        if rows == 1:
            return "the row fails" if failed else "the row holds"
        return f"{failed:,} of {rows:,} rows fail" if failed else f"all {rows:,} rows hold"
    message = exception_message(outcome.get("exception_info") or {})
    return f"not evaluated: {message}" if message else None


def exception_message(info: dict[str, Any]) -> str | None:
    """Return the first line of the error in ``exception_info``, which holds it directly or below the id of a metric."""
    if info.get("exception_message"):
        return str(info["exception_message"]).splitlines()[0].removeprefix("Error: ")
    found = [exception_message(value) for value in info.values() if isinstance(value, dict)]
    return next((message for message in found if message), None)


def _excerpts(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value[:EXCERPT_CHARACTERS] if isinstance(value, str) else value for key, value in row.items()}


def _native(value: Any) -> Any:
    """Turn NumPy values and non-finite numbers into what JSON holds, and round figures."""
    if isinstance(value, dict):
        return {str(key): _native(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_native(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
