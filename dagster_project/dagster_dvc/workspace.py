"""What stands in the workspace now, beside what ``dvc.lock`` says of the last run: the versions that Dagster is told.

Dagster calls an asset stale if a data version that it was made from, or its code version, is not the current one. Here
a version is DVC's hash, and one rule makes both tools call the same stages stale, also where their graphs differ in
grain (a stage may need one file of another's folder): a stage is said to have been made from the *current* version of
an input if ``dvc status`` finds nothing changed in what it reads of that input; otherwise from the recorded one. What
else DVC finds (an output edited by hand, no entry in ``dvc.lock``) stands in place of the code version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .lock_file import LockedStage, read_lock
from .pipeline import Parameter, Pipeline, Stage, overlaps
from .status import MISSING, StageStatus, Workspace, read_status

Key = tuple[str, ...]
#: The data version by which Dagster says that there is nothing: the asset is shown as missing.
NOTHING = "NULL"
COMMAND_CHANGED = "command changed since the last run"


@dataclass(frozen=True)
class StageState:
    """What the last run of a stage made, and from what, as Dagster is to see it."""

    data_version: str
    code_version: str
    inputs: Mapping[Key, str]
    #: inputs that differ from those of the last run: their version is any but the current one
    changed_inputs: frozenset[Key] = frozenset()
    #: what makes it stale beside its inputs; in words
    own: tuple[str, ...] = ()
    #: what ``dvc status`` lists; nothing if the stage is fresh
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """Versions of everything that Dagster shows."""

    sources: Mapping[Key, str]
    stages: Mapping[str, StageState]


@dataclass(frozen=True)
class Source:
    """Something that a person edits and stages read: a parameter section, a raw input, the code of a stage."""

    key: Key
    kind: str
    paths: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()


def asset_key(stage: Stage | str) -> Key:
    """Key of a stage's asset: ``finetune@sentiment`` is ``finetune_sentiment``.

    Dagster's graph shows only the last part of a key, so that ``finetune/sentiment`` and ``evaluate/sentiment`` would
    look the same; "@" is not allowed in it.
    """
    return (re.sub(r"[^A-Za-z0-9_]+", "_", stage if isinstance(stage, str) else stage.name),)


def sources_of(pipeline: Pipeline, name: str) -> tuple[Source, ...]:
    """List what ``name`` reads and no stage makes: its code as one source, each raw input, each parameter section."""
    stage = pipeline.stage(name)
    given = pipeline.given(name)
    code = tuple(path for path in given if _is_code(pipeline.root / path))
    found = [Source(key=("code", f"{stage.parts[0]}_code"), kind="code", paths=code)] if code else []
    found += [Source(key=tuple(path.split("/")), kind="input", paths=(path,)) for path in given if path not in code]
    found += [Source(key=_parameter_key(p), kind="params", parameters=(p,)) for p in stage.parameters]
    return tuple(found)


def all_sources(pipeline: Pipeline) -> dict[Key, Source]:
    """All sources of all stages by key; the code of stages that share a key is joined."""
    merged: dict[Key, Source] = {}
    for stage in pipeline.stages:
        for source in sources_of(pipeline, stage.name):
            known = merged.get(source.key)
            paths = tuple(sorted({*(known.paths if known else ()), *source.paths}))
            merged[source.key] = Source(key=source.key, kind=source.kind, paths=paths, parameters=source.parameters)
    return merged


def read_workspace(
    pipeline: Pipeline, lock: Mapping[str, LockedStage] | None = None, *, only: str | None = None
) -> Workspace:
    """Hash what the stages depend on and make, and compare it with ``dvc.lock``.

    Args:
        pipeline: from ``dvc.yaml``.
        lock: from ``dvc.lock``; read if it is not given.
        only: read no more than what the state of this stage needs.

    Raises:
        PipelineError: the folder is no DVC repository, or DVC cannot read a dependency, an output or a parameter file.
        LockFileError: ``dvc.lock`` is damaged.
    """
    lock = read_lock(pipeline.root) if lock is None else lock
    if only is None:
        return read_status(pipeline, lock, stages=[stage.name for stage in pipeline.stages], also={})
    also = {maker: set(_versioned(pipeline, maker)) for maker in pipeline.upstream(only)}
    keys = {source.key for source in sources_of(pipeline, only)}
    for stage in pipeline.stages:
        shared = {path for source in sources_of(pipeline, stage.name) if source.key in keys for path in source.paths}
        also.setdefault(stage.name, set()).update(shared)
    return read_status(pipeline, lock, stages=[only], also=also)


def take_snapshot(pipeline: Pipeline, workspace: Workspace) -> Snapshot:
    """Compute the versions of the stages that ``workspace`` has read, and of their sources; touches no file."""
    wanted = {source.key for name in workspace.stages for source in sources_of(pipeline, name)}
    sources = {
        key: digest(_current(source, workspace)) for key, source in all_sources(pipeline).items() if key in wanted
    }
    stages = {}
    for name, status in workspace.stages.items():
        inputs, changed = dict[Key, str](), set[Key]()
        for source in sources_of(pipeline, name):
            inputs[source.key] = sources[source.key]
            paths, parameters = set(source.paths), set(source.parameters)
            if paths & set(status.changed_dependencies) or parameters & set(status.changed_parameters):
                changed.add(source.key)
                inputs[source.key] = _other(digest(_recorded(source, status)), than=sources[source.key])
        for maker in pipeline.upstream(name):
            key = asset_key(maker)
            inputs[key] = data_version(pipeline, maker, workspace)
            read = {path for path, makers in pipeline.makers[name].items() if maker in makers}
            if read & set(status.changed_dependencies):
                changed.add(key)
                recorded = digest({path: status.dependencies.get(path, MISSING) for path in read})
                inputs[key] = _other(recorded, than=inputs[key])
        why = _why(status, workspace)
        # Whatever DVC lists must show: what is no input of the asset stands with the stage's own changes.
        own = _own_changes(status, recorded=name in workspace.recorded) or (() if changed else why)
        stages[name] = StageState(
            data_version=data_version(pipeline, name, workspace),
            code_version="; ".join(own) or code_version(pipeline.stage(name).command),
            inputs=inputs,
            changed_inputs=frozenset(changed),
            own=own,
            why=why,
        )
    return Snapshot(sources=sources, stages=stages)


def code_version(command: str) -> str:
    """Version of a stage's command line."""
    return hashlib.md5(command.encode(), usedforsecurity=False).hexdigest()


def data_version(pipeline: Pipeline, name: str, workspace: Workspace) -> str:
    """Version of what a stage made: DVC's hash of the outputs that other stages need, or of all if none does.

    What stands in the workspace counts, not what ``dvc.lock`` records: the stages below read the former. Outputs that
    nothing needs (timings, pages) differ from run to run and must not make stages below look stale. Where a stage has
    neither run nor left anything, the version is the one by which Dagster says that there is nothing.
    """
    hashes = {path: workspace.hashes.get(path, MISSING) for path in _versioned(pipeline, name)}
    status = workspace.stages.get(name)
    if name not in workspace.recorded and (status is None or status.changed) and set(hashes.values()) <= {MISSING}:
        return NOTHING
    return digest(hashes)


def digest(value: Any) -> str:
    """Short hash of a JSON value; a mapping of one entry with a text value is that text."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(only := next(iter(value.values())), str):
        return only
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _versioned(pipeline: Pipeline, name: str) -> tuple[str, ...]:
    """Outputs whose hashes make up the data version of a stage."""
    wanted = [path for makers in pipeline.makers.values() for path, names in makers.items() if name in names]
    paths = tuple(output.path for output in pipeline.stage(name).outputs)
    return tuple(path for path in paths if any(overlaps(path, other) for other in wanted)) or paths


def _other(version: str, *, than: str) -> str:
    """A version that Dagster takes for another one."""
    return version if version != than else f"recorded-{version}"


def _own_changes(status: StageStatus, *, recorded: bool) -> tuple[str, ...]:
    """What makes a stage stale that is no input of it, in words; they stand in place of its code version."""
    words = [] if recorded else ["no entry in dvc.lock"]
    for word, shown in (("modified", "edited"), ("deleted", "deleted"), ("not in cache", "not in DVC's cache")):
        paths = sorted(path for path, found in status.changed_outputs.items() if found == word)
        if paths and recorded:
            words.append(f"outputs {shown}: {', '.join(paths)}")
    if status.changed_command:
        words.append(COMMAND_CHANGED)
    if status.always_changed:
        words.append("always changed: DVC runs it each time")
    return tuple(words) if status.changed else ()


def _why(status: StageStatus, workspace: Workspace) -> tuple[str, ...]:
    """What ``dvc status`` lists, one line each, with the values of parameters."""
    lines = [f"dependency {path}: {word}" for path, word in status.changed_dependencies.items()]
    for parameter, word in status.changed_parameters.items():
        before, after = (values.get(parameter, MISSING) for values in (status.parameters, workspace.parameters))
        shown = f" (was {before}, is {after})" if word == "modified" and parameter.key else ""
        lines.append(f"parameter {_label(parameter)}: {word}{shown[:200]}")
    lines += [f"output {path}: {word}" for path, word in status.changed_outputs.items()]
    lines += ["command: modified"] * status.changed_command + ["always changed"] * status.always_changed
    return tuple(lines)


def _current(source: Source, workspace: Workspace) -> dict[str, str]:
    values = {path: workspace.hashes.get(path, MISSING) for path in source.paths}
    return values | {_label(p): digest([workspace.parameters.get(p, MISSING)]) for p in source.parameters}


def _recorded(source: Source, status: StageStatus) -> dict[str, str]:
    values = {path: status.dependencies.get(path, MISSING) for path in source.paths}
    return values | {_label(p): digest([status.parameters.get(p, MISSING)]) for p in source.parameters}


def _label(parameter: Parameter) -> str:
    return f"{parameter.file}:{parameter.key or ''}"


def _parameter_key(parameter: Parameter) -> Key:
    """Key of a section; the last part says that it is one: the graph shows no more than that part."""
    file = () if parameter.file == "params.yaml" else tuple(parameter.file.split("/"))
    *outer, last = (*file, *(parameter.key.split(".") if parameter.key else ())) or (parameter.file,)
    return ("params", *outer, f"{last}_params")


def _is_code(path: Path) -> bool:
    if path.suffix == ".py":
        return True
    return path.is_dir() and next(path.rglob("*.py"), None) is not None
