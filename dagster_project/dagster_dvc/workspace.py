"""What stands in the workspace now, beside what ``dvc.lock`` says of the last run: the versions that Dagster is told.

Dagster calls an asset stale if a data version that it was made from is not the current one. Here a version is DVC's
hash, so both tools call the same things stale. One rule makes that exact where the graphs differ in grain (a stage may
need one file of another's folder): a stage is said to have been made from the *current* version of an input if all
that it reads of that input equals what ``dvc.lock`` recorded; otherwise from the recorded one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PipelineError
from .pipeline import LockedStage, Parameter, Pipeline, Stage, overlaps

Key = tuple[str, ...]
#: Stands for a file or a parameter that does not exist.
MISSING = "missing"


@dataclass(frozen=True)
class Workspace:
    """Hashes of files and values of parameters as they are now."""

    hashes: Mapping[str, str]
    parameters: Mapping[Parameter, Any]


@dataclass(frozen=True)
class StageState:
    """What the last run of a stage made, and from what."""

    data_version: str
    code_version: str
    inputs: Mapping[Key, str]


@dataclass(frozen=True)
class Snapshot:
    """Versions of everything that Dagster shows; a stage that has not run yet is absent."""

    sources: Mapping[Key, str]
    stages: Mapping[str, StageState]


@dataclass(frozen=True)
class Source:
    """Something that a person edits and stages read: a parameter section, a raw input, the code of a stage."""

    key: Key
    kind: str
    paths: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()


def asset_key(stage: Stage) -> Key:
    """Key of a stage's asset: ``finetune@sentiment`` is ``finetune_sentiment``.

    Dagster's graph shows only the last part of a key, so that ``finetune/sentiment`` and ``evaluate/sentiment`` would
    look the same; "@" is not allowed in it.
    """
    return (re.sub(r"[^A-Za-z0-9_]+", "_", stage.name),)


def sources_of(pipeline: Pipeline, name: str) -> tuple[Source, ...]:
    """List what ``name`` reads and no stage makes: its code as one source, each raw input, each parameter section."""
    stage = pipeline.stage(name)
    given = pipeline.given(name)
    code = tuple(path for path in given if _is_code(pipeline.root / path))
    found = [Source(key=("code", stage.parts[0]), kind="code", paths=code)] if code else []
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


def read_workspace(pipeline: Pipeline) -> Workspace:
    """Hash what the stages depend on, as DVC does: with its ignore rules, and with its memory of unchanged files.

    Raises:
        PipelineError: the folder is no DVC repository, or DVC cannot read a dependency.
    """
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    hashes: dict[str, str] = {}
    try:
        with Repo(str(pipeline.root)) as repo:
            for stage in repo.index.stages:
                for dependency in stage.deps:
                    path = _relative(dependency.fs_path, pipeline.root)
                    if path and path not in hashes and not isinstance(dependency, ParamsDependency):
                        hashes[path] = str(dependency.get_hash().value) if dependency.exists else MISSING
    except (DvcException, OSError) as error:
        raise PipelineError(
            f"{pipeline.root}: DVC cannot read the workspace: {' '.join(str(error).split())}",
            remedy="`dvc status` shows the same; mend what it names",
        ) from error
    parameters = [parameter for stage in pipeline.stages for parameter in stage.parameters]
    return Workspace(hashes=hashes, parameters=_parameter_values(pipeline.root, parameters))


def take_snapshot(pipeline: Pipeline, lock: Mapping[str, LockedStage], workspace: Workspace) -> Snapshot:
    """Compute every version from the three readings; touches no file."""
    sources = {key: digest(_current(source, workspace)) for key, source in all_sources(pipeline).items()}
    data = {s.name: data_version(pipeline, s.name, lock[s.name]) for s in pipeline.stages if s.name in lock}
    stages = {}
    for name, version in data.items():
        inputs: dict[Key, str] = {}
        for source in sources_of(pipeline, name):
            recorded = _recorded(source, lock[name])
            same = recorded == _current(source, workspace)
            inputs[source.key] = sources[source.key] if same else digest(recorded)
        for maker in pipeline.upstream(name):
            key = asset_key(pipeline.stage(maker))
            inputs[key] = _edge(pipeline, name, maker, lock=lock, workspace=workspace, data=data)
        stages[name] = StageState(data_version=version, code_version=code_version(lock[name].command), inputs=inputs)
    return Snapshot(sources=sources, stages=stages)


def code_version(command: str) -> str:
    """Version of a stage's command line."""
    return hashlib.md5(command.encode(), usedforsecurity=False).hexdigest()


def data_version(pipeline: Pipeline, name: str, locked: LockedStage) -> str:
    """Version of what a stage made: DVC's hash of the outputs that other stages need, or of all if none does.

    Outputs that nothing needs (timings, pages) differ from run to run and must not make stages below look stale.
    """
    wanted = [
        path for stage in pipeline.stages for path, makers in pipeline.makers[stage.name].items() if name in makers
    ]
    needed = {o: h for o, h in locked.outputs.items() if any(overlaps(o, path) for path in wanted)}
    hashes = needed or dict(locked.outputs)
    return next(iter(hashes.values())) if len(hashes) == 1 else digest(hashes)


def digest(value: Any) -> str:
    """Short hash of a JSON value; a mapping of one entry with a text value is that text."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(only := next(iter(value.values())), str):
        return only
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _edge(
    pipeline: Pipeline,
    name: str,
    maker: str,
    *,
    lock: Mapping[str, LockedStage],
    workspace: Workspace,
    data: Mapping[str, str],
) -> str:
    """Version of ``maker`` that ``name`` was made from, by the rule of this module."""
    recorded = {path: h for path, h in lock[name].dependencies.items() if maker in pipeline.makers[name].get(path, ())}
    if maker not in data:
        return digest(recorded)
    made = lock[maker].outputs
    current = {path: made.get(path) or workspace.hashes.get(path, MISSING) for path in recorded}
    wanted = {path for path, makers in pipeline.makers[name].items() if maker in makers}
    return data[maker] if recorded == current and wanted == set(recorded) else f"recorded-{digest(recorded)}"


def _current(source: Source, workspace: Workspace) -> dict[str, str]:
    values = {path: workspace.hashes.get(path, MISSING) for path in source.paths}
    return values | {_label(p): digest([workspace.parameters.get(p, MISSING)]) for p in source.parameters}


def _recorded(source: Source, locked: LockedStage) -> dict[str, str]:
    values = {path: locked.dependencies.get(path, MISSING) for path in source.paths}
    return values | {_label(p): digest([locked.parameters.get(p, MISSING)]) for p in source.parameters}


def _label(parameter: Parameter) -> str:
    return f"{parameter.file}:{parameter.key or ''}"


def _parameter_key(parameter: Parameter) -> Key:
    file = () if parameter.file == "params.yaml" else tuple(parameter.file.split("/"))
    return ("params", *file, *(parameter.key.split(".") if parameter.key else ()))


def _parameter_values(root: Path, parameters: Iterable[Parameter]) -> dict[Parameter, Any]:
    from dvc.exceptions import DvcException
    from dvc.fs import LocalFileSystem
    from dvc.utils.serialize import load_path

    loaded: dict[str, Any] = {}
    values: dict[Parameter, Any] = {}
    for parameter in parameters:
        if parameter.file not in loaded:
            try:
                loaded[parameter.file] = load_path(str(root / parameter.file), LocalFileSystem())
            except (DvcException, OSError) as error:
                raise PipelineError(f"{root / parameter.file} cannot be read: {error}", remedy="mend it") from error
        value = loaded[parameter.file]
        for part in parameter.key.split(".") if parameter.key else ():
            value = value.get(part, MISSING) if isinstance(value, Mapping) else MISSING
        values[parameter] = value
    return values


def _is_code(path: Path) -> bool:
    if path.suffix == ".py":
        return True
    return path.is_dir() and next(path.rglob("*.py"), None) is not None


def _relative(path: str, root: Path) -> str | None:
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:
        return None
