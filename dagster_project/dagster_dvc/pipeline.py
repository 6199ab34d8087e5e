"""Reader: ``dvc.yaml`` to frozen records.

``dvc.yaml`` goes through DVC's own schema and resolver, so templating, ``vars``, ``foreach`` and ``matrix`` mean here
what they mean to ``dvc repro``. No repository is opened for that: reading takes some 20 ms after DVC's import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import PipelineError, ProjectNotFound, explain_cause

#: Names a project's folder where neither the working folder nor its parents hold a ``dvc.yaml``.
PROJECT_VARIABLE = "DVC_PROJECT"


@dataclass(frozen=True)
class Output:
    """Something that a stage makes; ``kind`` is ``out``, ``metric`` or ``plot``."""

    path: str
    kind: str


@dataclass(frozen=True)
class Parameter:
    """A key of a parameter file that a stage reads; no key means the whole file."""

    file: str
    key: str | None


@dataclass(frozen=True)
class Stage:
    """One stage of ``dvc.yaml`` with all templates resolved. Paths are POSIX and relative to the project."""

    name: str
    command: str
    description: str | None = None
    dependencies: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    outputs: tuple[Output, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    #: Folder that ``dvc.yaml``'s paths of this stage are relative to.
    folder: str = "."
    #: What DVC's own loader takes: the resolved entry of ``dvc.yaml``.
    definition: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def parts(self) -> tuple[str, ...]:
        """``finetune@sentiment`` as ``("finetune", "sentiment")``."""
        return tuple(self.name.split("@", 1))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Paths of the metrics files."""
        return tuple(output.path for output in self.outputs if output.kind == "metric")


@dataclass(frozen=True)
class Pipeline:
    """All stages in an order in which they can run, and who makes what they need."""

    root: Path
    stages: tuple[Stage, ...]
    #: stage -> path that it depends on -> stages that make that path, or a part of it, or the folder it lies in
    makers: Mapping[str, Mapping[str, tuple[str, ...]]]

    def stage(self, name: str) -> Stage:
        """Return the stage called ``name``."""
        return next(stage for stage in self.stages if stage.name == name)

    def upstream(self, name: str) -> tuple[str, ...]:
        """Names of the stages that ``name`` needs directly, without repetition."""
        return tuple(dict.fromkeys(maker for makers in self.makers[name].values() for maker in makers))

    def given(self, name: str) -> tuple[str, ...]:
        """Paths that ``name`` needs and no stage makes: raw inputs and code."""
        return tuple(path for path, makers in self.makers[name].items() if not makers)


def find_project(start: Path | None = None, *, fallback: Path | None = None) -> Path:
    """Find the folder that holds ``dvc.yaml``.

    The environment variable ``DVC_PROJECT`` wins; then ``start`` (the working folder) and its parents are searched,
    then ``fallback``.

    Raises:
        ProjectNotFound: there is none.
    """
    named = os.environ.get(PROJECT_VARIABLE)
    if named:
        candidates = [Path(named)]
    else:
        here = (start or Path.cwd()).resolve()
        candidates = [here, *here.parents, *([fallback] if fallback else [])]
    for folder in candidates:
        if (folder / "dvc.yaml").is_file():
            return folder.resolve()
    raise ProjectNotFound(
        f"no dvc.yaml in {named or f'{candidates[0]} or the folders above it'}",
        remedy=f"start from the project's folder, or name it in the environment variable {PROJECT_VARIABLE}",
    )


def read_pipeline(root: Path) -> Pipeline:
    """Read and resolve ``dvc.yaml``.

    Raises:
        PipelineError: the file or a file that it is filled from is missing, malformed, or describes no runnable graph.
    """
    stages = [_stage(name, definition) for name, definition in _resolved(root).items()]
    if not stages:
        raise PipelineError(
            f"{root / 'dvc.yaml'} holds no stages", remedy="add one (`dvc stage add`), or `git checkout dvc.yaml`"
        )
    makers = {stage.name: _makers(stage, stages) for stage in stages}
    upstream = {name: [m for path in paths.values() for m in path] for name, paths in makers.items()}
    try:
        order = list(TopologicalSorter(upstream).static_order())
    except CycleError as error:
        raise PipelineError(
            f"{root / 'dvc.yaml'}: stages need each other in a circle: {' -> '.join(error.args[1])}",
            remedy="remove one of these dependencies",
        ) from error
    # Dagster lists assets as they come; the order of dvc.yaml is the one that a person chose, so it breaks ties.
    position = {stage.name: number for number, stage in enumerate(stages)}
    by_name = {stage.name: stage for stage in stages}
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = 1 + max((depth[other] for other in upstream[name]), default=0)
    order.sort(key=lambda name: (depth[name], position[name]))
    return Pipeline(root=root, stages=tuple(by_name[name] for name in order), makers=makers)


@lru_cache(maxsize=4)
def _definition(_text: str, path: str) -> dict[str, Any]:
    """Parse ``dvc.yaml``; the text tells whether it is the one that was parsed before."""
    from dvc.schema import COMPILED_MULTI_STAGE_SCHEMA
    from dvc.utils.strictyaml import load

    content: dict[str, Any] = load(path, schema=COMPILED_MULTI_STAGE_SCHEMA)[0]
    return content


def _resolved(root: Path) -> dict[str, dict[str, Any]]:
    from types import SimpleNamespace

    from dvc.exceptions import DvcException
    from dvc.fs import LocalFileSystem
    from dvc.parsing import DataResolver

    path = root / "dvc.yaml"
    try:
        content = deepcopy(_definition(path.read_text(encoding="utf-8", errors="replace"), str(path)))
        # The resolver asks a repository only for its files and for its `parsing` settings.
        repo = SimpleNamespace(fs=LocalFileSystem(), config={})
        resolver = DataResolver(repo, str(root), content)
        names = resolver.get_keys()
        return {name: resolver.resolve_one(name)[name] for name in names}
    except DvcException as error:
        raise PipelineError(
            f"{_file_at_fault(error, path)} cannot be used: {explain_cause(error)}",
            remedy="correct it; `dvc stage list` shows the place",
        ) from error
    except FileNotFoundError as error:
        raise PipelineError(f"{path} does not exist", remedy="start from the project's folder") from error


def _file_at_fault(error: BaseException | None, path: Path) -> Path:
    """The file that DVC could not parse: ``dvc.yaml``, or one that it is filled from."""
    while error is not None:
        if isinstance(name := getattr(error, "path", None), str):
            return path.parent / Path(name).name
        error = error.__cause__
    return path


def _stage(name: str, definition: Mapping[str, Any]) -> Stage:
    folder = definition.get("wdir") or "."
    command, meta = definition["cmd"], definition.get("meta") or {}
    outputs = [
        Output(path=within(folder, _only_key(item)), kind=kind)
        for kind, key in (("out", "outs"), ("metric", "metrics"), ("plot", "plots"))
        for item in definition.get(key) or []
    ]
    return Stage(
        name=name,
        command=command if isinstance(command, str) else "\n".join(command),
        description=definition.get("desc"),
        dependencies=tuple(within(folder, path) for path in definition.get("deps") or []),
        parameters=tuple(_parameters(definition.get("params") or [], folder)),
        outputs=tuple(outputs),
        meta=meta if isinstance(meta, dict) else {str(meta): "no mapping"},
        folder=folder,
        definition=definition,
    )


def _parameters(entries: list[Any], folder: str) -> list[Parameter]:
    found = []
    for entry in entries:
        if isinstance(entry, str):
            found.append(Parameter(file=within(folder, "params.yaml"), key=entry))
            continue
        for file, keys in entry.items():
            found += [Parameter(file=within(folder, file), key=key) for key in keys or [None]]
    return found


def within(folder: str, path: str) -> str:
    """Path of ``dvc.yaml`` relative to the project; an address (``s3://…``) as it stands."""
    if "://" in path:
        return path
    return PurePosixPath(os.path.normpath(PurePosixPath(folder) / path)).as_posix()


def _only_key(item: Any) -> str:
    """Outputs with settings are written ``path: {settings}``."""
    return str(next(iter(item))) if isinstance(item, dict) else str(item)


def overlaps(one: str, other: str) -> bool:
    """Tell whether two paths are equal or one lies in the other."""
    return one == other or "." in (one, other) or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _makers(stage: Stage, stages: list[Stage]) -> dict[str, tuple[str, ...]]:
    return {
        path: tuple(other.name for other in stages if any(overlaps(path, output.path) for output in other.outputs))
        for path in stage.dependencies
    }
