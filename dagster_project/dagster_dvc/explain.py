"""Says in words why a stage is stale, what changed in a source, and how to mend it: metadata for Dagster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from .pipeline import Stage
from .status import MISSING, Workspace
from .workspace import Key, Snapshot, Source, StageState

_LINES_SHOWN = 40


def explanation(stage: Stage, state: StageState) -> dict[str, dg.MetadataValue[Any]]:
    """What ``dvc status`` lists of a stage, and the ways out; nothing for a fresh one."""
    if not state.why:
        return {}
    ways = [f"materialize, or `dvc repro {stage.name}`: makes it anew"]
    if any(line.startswith("output") for line in state.why):
        ways.append(f"`dvc checkout {stage.name}`: brings back what dvc.lock records")
        ways.append(f"`dvc pull {stage.name}`: fetches what DVC's cache lacks, if it was pushed")
    ways.append(f"`dvc commit {stage.name}`: takes what stands there for its result")
    return {"why": _list(state.why), "mend": _list(ways)}


def source_metadata(source: Source, workspace: Workspace, snapshot: Snapshot) -> dict[str, dg.MetadataValue[Any]]:
    """What a source holds now, and the stages that were last made from something else."""
    found: dict[str, dg.MetadataValue[Any]] = {}
    if source.kind == "params":
        values = {f"{p.file}:{p.key or ''}": workspace.parameters.get(p, MISSING) for p in source.parameters}
        text = json.dumps(values, indent=1, ensure_ascii=False, default=str)
        found["value"] = dg.MetadataValue.md(f"```\n{text[:4000]}\n```")
    else:
        found["files"] = _list([f"{path}: {workspace.hashes.get(path, MISSING)}" for path in source.paths])
    if lines := _readers(source.key, snapshot):
        found["makes stale"] = _list(lines)
    return found


def _readers(key: Key, snapshot: Snapshot) -> list[str]:
    """Stages whose last run read another version; with what each of them finds changed."""
    return [f"{name}: {', '.join(state.why)}" for name, state in snapshot.stages.items() if key in state.changed_inputs]


def _list(lines: Mapping[str, Any] | list[str] | tuple[str, ...]) -> dg.MetadataValue[Any]:
    shown = [f"- {line}" for line in list(lines)[:_LINES_SHOWN]]
    if len(lines) > _LINES_SHOWN:
        shown.append(f"- and {len(lines) - _LINES_SHOWN} more")
    return dg.MetadataValue.md("\n".join(shown))
