"""Results of asset checks, read from the JSON that the stages write.

The checks themselves run inside the stages (importing Great Expectations takes seconds, and ``dvc repro`` alone must
be as strict): here their verdicts become visible, with the failing rows beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from .file_server import link
from .markdown import table
from .pipeline import Pipeline, Stage
from .translator import Check, checks_of, flatten, to_key
from .workspace import asset_key

_ROWS_SHOWN = 20


def read_metrics(root: Path, stage: Stage) -> dict[str, Any]:
    """Read the metrics files of a stage that exist and are JSON; by path."""
    found = {}
    for path in stage.metrics:
        try:
            found[path] = json.loads((root / path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return found


def all_metrics(root: Path, pipeline: Pipeline) -> dict[str, Any]:
    """Read the metrics files of all stages; by path."""
    return {path: content for stage in pipeline.stages for path, content in read_metrics(root, stage).items()}


def check_results(root: Path, stage: Stage, metrics: Mapping[str, Any]) -> Iterator[dg.AssetCheckResult]:
    """Evaluate the checks of a stage on the content of its metrics files."""
    for check in checks_of(stage):
        yield check_result(root, stage, check, metrics.get(check.file))


def check_result(root: Path, stage: Stage, check: Check, content: Any) -> dg.AssetCheckResult:
    """Evaluate one check; a missing file or key fails it."""
    value = look_up(content, check.key)
    metadata: dict[str, Any] = {"file": check.file, "key": check.key, "value": json.dumps(value, ensure_ascii=False)}
    parent = look_up(content, check.key.rpartition(".")[0]) if "." in check.key else content
    if isinstance(parent, Mapping):
        metadata |= {f"{name}": shown for name, shown in flatten(parent, limit=20).items() if name not in metadata}
        failing = [row for row in parent.get("results", []) if isinstance(row, Mapping) and row.get("success") is False]
        if failing:
            metadata["failing"] = dg.MetadataValue.md(table(failing[:_ROWS_SHOWN]))
    if check.report:
        metadata["report"] = link(root, check.report)
    return dg.AssetCheckResult(
        asset_key=to_key(asset_key(stage)),
        check_name=check.name,
        passed=value == check.expected and value is not None,
        severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
        description=f"`{check.key}` is `{value}`" if value is not None else f"{check.file} has no `{check.key}`",
        metadata=metadata,
    )


def look_up(content: Any, key: str) -> Any:
    """Follow a dotted key through nested mappings; ``None`` if it leads nowhere."""
    for part in key.split(".") if key else ():
        content = content.get(part) if isinstance(content, Mapping) else None
    return content
