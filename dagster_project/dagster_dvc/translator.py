"""Pure translation: a stage's record to what Dagster shows of it. Touches no file and starts nothing.

``meta`` of a stage in ``dvc.yaml`` is read here: ``group``, ``kinds`` (at most two), ``owners``, ``tags``, ``pool``
(stages that share a pool run one at a time), ``preview`` (files to show the beginning of), ``push`` (see remote.py) and
``checks``. A check reads one value of a metrics file::

    checks:
      - {name: expectations, file: metrics/validate_corpus.json, key: success, blocking: true}
      - {name: not_overfitting, file: metrics/evaluate.json, key: overfitting.flag, is: false}

``is`` is the value that passes (default ``true``); ``report`` names a page to link to. A blocking check that fails
stops what follows; others warn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from .errors import PipelineError
from .file_server import link
from .lock_file import LockedStage
from .meta import require_typed_meta
from .pipeline import Pipeline, Stage
from .preview import previews
from .workspace import Source, StageState, asset_key, code_version, digest, sources_of

_CHECK_KEYS = {"name", "file", "key", "is", "blocking", "description", "report"}
#: Stands for what ``dvc status`` lists of a stage.
STATUS_TAG = "dvc/status"
_SOURCE_TEXT = {
    "params": "Section of params.yaml. A change makes the stages that read it stale.",
    "code": "Code that the stage imports. A change makes it stale.",
    "input": "Given from outside; no stage makes it.",
}


@dataclass(frozen=True)
class Check:
    """A value in a metrics file that must be ``expected``."""

    name: str
    file: str
    key: str
    expected: Any
    blocking: bool
    description: str | None
    report: str | None


def to_key(key: tuple[str, ...]) -> dg.AssetKey:
    """Key of this package as Dagster's."""
    return dg.AssetKey(list(key))


def op_name(stage: Stage) -> str:
    """Name that Dagster gives to the step of a stage."""
    return "__".join(asset_key(stage))


def asset_spec(pipeline: Pipeline, stage: Stage) -> dg.AssetSpec:
    """Describe a stage as an asset.

    Raises:
        PipelineError: ``meta`` holds something that cannot be used.
    """
    require_typed_meta(stage)
    upstream = [asset_key(pipeline.stage(name)) for name in pipeline.upstream(stage.name)]
    sources = [source.key for source in sources_of(pipeline, stage.name)]
    return dg.AssetSpec(
        key=to_key(asset_key(stage)),
        deps=[to_key(key) for key in (*upstream, *sources)],
        description=describe(stage),
        group_name=stage.meta.get("group", "pipeline"),
        kinds={"dvc", *stage.meta.get("kinds", [])[:2]},
        owners=stage.meta.get("owners", []),
        tags=stage.meta.get("tags", {}),
        code_version=code_version(stage.command),
        metadata={
            "stage": stage.name,
            "command": dg.MetadataValue.md(f"```\n{stage.command}\n```"),
            "makes": dg.MetadataValue.md("\n".join(f"- `{output.path}` ({output.kind})" for output in stage.outputs)),
        },
    )


def describe(stage: Stage) -> str:
    """Description of an asset: the stage's ``desc`` and how to run it without Dagster."""
    return f"{stage.description or stage.name}\n\nOn a terminal: `dvc repro {stage.name}`"


def source_spec(source: Source) -> dg.AssetSpec:
    """Describe a source as an external asset."""
    return dg.AssetSpec(
        key=to_key(source.key),
        description=_SOURCE_TEXT[source.kind],
        group_name={"params": "params", "code": "code", "input": "inputs"}[source.kind],
        kinds={"yaml"} if source.kind == "params" else {"python"} if source.kind == "code" else {"file"},
        metadata={"paths": list(source.paths)} if source.paths else {},
    )


def checks_of(stage: Stage) -> tuple[Check, ...]:
    """Read ``meta.checks``.

    Raises:
        PipelineError: a key is missing or unknown, or the file is no metrics file of the stage.
    """
    found = []
    for entry in stage.meta.get("checks", []):
        unknown, absent = set(entry) - _CHECK_KEYS, {"name", "file", "key"} - set(entry)
        if unknown or absent or entry["file"] not in stage.metrics:
            problem = (
                f"unknown {sorted(unknown)}" if unknown else f"lacks {sorted(absent)}" if absent else entry["file"]
            )
            raise PipelineError(
                f"dvc.yaml: stage {stage.name}: meta.checks: {problem}",
                remedy=f"use {', '.join(sorted(_CHECK_KEYS))}; file: {', '.join(stage.metrics) or 'none has metrics'}",
            )
        found.append(
            Check(
                name=entry["name"],
                file=entry["file"],
                key=entry["key"],
                expected=entry.get("is", True),
                blocking=bool(entry.get("blocking", False)),
                description=entry.get("description"),
                report=entry.get("report"),
            )
        )
    return tuple(found)


def check_specs(stage: Stage) -> list[dg.AssetCheckSpec]:
    """Describe the checks of a stage."""
    return [
        dg.AssetCheckSpec(
            name=check.name,
            asset=to_key(asset_key(stage)),
            blocking=check.blocking,
            description=check.description or f"`{check.key}` in {check.file} must be `{check.expected}`",
        )
        for check in checks_of(stage)
    ]


def version_tags(state: StageState) -> dict[str, str]:
    """Tags that tell Dagster what a materialization is and what it was made from, in place of what it would guess."""
    tags = {
        "dagster/data_version": state.data_version,
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": state.code_version,
        STATUS_TAG: digest(list(state.why)) if state.why else "fresh",
    }
    for key, version in state.inputs.items():
        name = to_key(key).to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version
        tags[f"dagster/input_event_pointer/{name}"] = "NULL"
    return tags


def result_metadata(
    root: Path, stage: Stage, locked: LockedStage | None, metrics: Mapping[str, Any], *, how: str
) -> dict[str, Any]:
    """Metadata of a materialization.

    Args:
        root: the project.
        stage: what ran.
        locked: its entry in ``dvc.lock``, if it has one.
        metrics: content of its metrics files by path.
        how: "executed", "restored from the run-cache", "unchanged" or "outside Dagster".
    """
    metadata: dict[str, Any] = {"run": how}
    # What a person came for stands first: pages, curves, examples.
    links = {output.path: link(root, output.path) for output in stage.outputs}
    metadata |= {path: value for path, value in links.items() if value.value.endswith(".html")}
    metadata |= {title: dg.MetadataValue.md(text) for title, text in previews(root, stage).items()}
    for content in metrics.values():
        for name, value in flatten(content).items():
            metadata.setdefault(name, value)
    metadata["bytes"] = dg.MetadataValue.int(sum(locked.sizes.values()) if locked else 0)
    return metadata | {path: value for path, value in links.items() if path not in metadata}


def flatten(content: Any, prefix: str = "", *, limit: int = 60) -> dict[str, Any]:
    """Numbers, truth values and short texts of nested mappings by dotted key; lists are left out."""
    found: dict[str, Any] = {}
    if not isinstance(content, Mapping):
        return found
    for name, value in content.items():
        if len(found) >= limit:
            break
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= flatten(value, f"{key}.", limit=limit - len(found))
        elif isinstance(value, bool):
            found[key] = dg.MetadataValue.bool(value)
        elif isinstance(value, int):
            found[key] = dg.MetadataValue.int(value)
        elif isinstance(value, float):
            found[key] = dg.MetadataValue.float(value)
        elif isinstance(value, str) and len(value) <= 200:
            found[key] = value
    return found
