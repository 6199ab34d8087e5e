"""What ``dvc status`` says of each stage, read with DVC's own objects and without its locks.

``dvc status`` itself would take the repository's lock, read ``dvc.lock`` once more (and find nothing in it while
another process rewrites it), and hash a file once for each stage that reads it. This reader takes the records of
:mod:`.pipeline` and hashes each path once, with DVC's ignore rules and its memory of unchanged files.
``tests/dagster_dvc/test_truth.py`` holds it against ``dvc status``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import PipelineError, remedy_for
from .lock_file import LockedStage
from .pipeline import Parameter, Pipeline, Stage, within

#: Stands for a file or a parameter that does not exist.
MISSING = "missing"


@dataclass(frozen=True)
class StageStatus:
    """One stage as DVC sees it; the words are those of ``dvc status``: modified, deleted, new, not in cache."""

    #: hashes of dependencies and values of parameters in ``dvc.lock``
    dependencies: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[Parameter, Any] = field(default_factory=dict)
    changed_dependencies: Mapping[str, str] = field(default_factory=dict)
    changed_parameters: Mapping[Parameter, str] = field(default_factory=dict)
    changed_outputs: Mapping[str, str] = field(default_factory=dict)
    changed_command: bool = False
    always_changed: bool = False

    @property
    def changed(self) -> bool:
        """Tell whether ``dvc status`` lists the stage."""
        return bool(
            self.changed_dependencies
            or self.changed_parameters
            or self.changed_outputs
            or self.changed_command
            or self.always_changed
        )


@dataclass(frozen=True)
class Workspace:
    """Hashes of files and values of parameters as they are now, and what differs from ``dvc.lock``."""

    hashes: Mapping[str, str]
    parameters: Mapping[Parameter, Any]
    stages: Mapping[str, StageStatus] = field(default_factory=dict)
    #: stages that ``dvc.lock`` has an entry of
    recorded: frozenset[str] = frozenset()


def read_status(
    pipeline: Pipeline, lock: Mapping[str, LockedStage], *, stages: Iterable[str], also: Mapping[str, Iterable[str]]
) -> Workspace:
    """Compare stages with ``dvc.lock``.

    Args:
        pipeline: from ``dvc.yaml``.
        lock: from ``dvc.lock``.
        stages: names of those to compare.
        also: stage -> paths among its dependencies and outputs to hash without comparing.

    Raises:
        PipelineError: the folder is no DVC repository, or DVC cannot read a dependency, an output or a parameter file.
    """
    from dvc.dvcfile import ProjectFile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(pipeline.root)) as repo:
            reader = _Reader(pipeline, lock, ProjectFile(repo, str(pipeline.root / "dvc.yaml")))
            found = {name: reader.status(pipeline.stage(name)) for name in stages}
            for name, paths in also.items():
                reader.hash_paths(pipeline.stage(name), set(paths))
    except (DvcException, OSError) as error:
        cause = " ".join(str(error).split())
        raise PipelineError(
            f"{pipeline.root}: DVC cannot read the workspace: {cause}",
            remedy=remedy_for(cause, otherwise="`dvc status` shows the same; mend what it names"),
        ) from error
    return Workspace(hashes=reader.hashes, parameters=reader.parameters, stages=found, recorded=frozenset(lock))


class _Reader:
    """Memory of one reading: no path is hashed twice, no parameter file parsed twice."""

    def __init__(self, pipeline: Pipeline, lock: Mapping[str, LockedStage], file: Any) -> None:
        self._root, self._lock, self._file = pipeline.root, lock, file
        self._seen: dict[tuple[str, str], Any] = {}
        self._files: dict[str, Any] = {}
        self.hashes: dict[str, str] = {}
        self.parameters: dict[Parameter, Any] = {}

    def status(self, stage: Stage) -> StageStatus:
        from dvc.dependency import ParamsDependency

        loaded = self._load(stage)
        recorded: dict[str, str] = {}
        values: dict[Parameter, Any] = {}
        dependencies: dict[str, str] = {}
        parameters: dict[Parameter, str] = {}
        for dependency in loaded.deps:
            path = within(stage.folder, dependency.def_path)
            if isinstance(dependency, ParamsDependency):
                values |= self._compare_parameters(path, dependency, parameters)
                continue
            recorded[path] = str(dependency.hash_info.value) if dependency.hash_info else MISSING
            if word := self._compare(path, dependency):
                dependencies[path] = word
        outputs = {}
        for output in loaded.outs:
            path = within(stage.folder, output.def_path)
            if word := self._compare(path, output):
                outputs[path] = word
        return StageStatus(
            dependencies=recorded,
            parameters=values,
            # DVC disconnects a frozen stage from what it depends on.
            changed_dependencies={} if loaded.frozen else dependencies,
            changed_parameters={} if loaded.frozen else parameters,
            changed_outputs=outputs,
            changed_command=bool(loaded.cmd_changed),
            always_changed=bool(loaded.is_callback or loaded.always_changed),
        )

    def hash_paths(self, stage: Stage, wanted: set[str]) -> None:
        if missing := wanted - set(self.hashes):
            loaded = self._load(stage)
            for entry in [*loaded.deps, *loaded.outs]:
                path = within(stage.folder, entry.def_path)
                if path in missing:
                    self._hash(path, entry)

    def _load(self, stage: Stage) -> Any:
        from copy import deepcopy

        from dvc.stage.loader import StageLoader

        locked = self._lock.get(stage.name)
        entry = deepcopy(dict(locked.entry)) if locked else None
        return StageLoader.load_stage(self._file, stage.name, deepcopy(dict(stage.definition)), entry)

    def _hash(self, path: str, entry: Any) -> Any:
        """Hash of what stands there, ``None`` if nothing does."""
        found = None
        if entry.exists:
            key = (entry.fs_path, entry.hash_name)
            if key not in self._seen:
                self._seen[key] = entry.get_hash()
            found = self._seen[key]
        self.hashes[path] = str(found.value) if found else MISSING
        return found

    def _compare(self, path: str, entry: Any) -> str | None:
        """``entry.status()`` of DVC in one word."""
        found = self._hash(path, entry)
        if entry.hash_info and entry.use_cache and entry.changed_cache():
            return "not in cache"
        if found is None:
            return "deleted"
        return None if found == entry.hash_info else "modified"

    def _compare_parameters(self, file: str, dependency: Any, changed: dict[Parameter, str]) -> dict[Parameter, Any]:
        """Put what changed into ``changed``, as ``ParamsDependency.status()`` does; return the recorded values."""
        now, recorded = self._parameters(dependency), dependency.hash_info.value
        values: dict[Parameter, Any] = {}
        for key in dependency.params or [None]:
            parameter = Parameter(file=file, key=key)
            before, after = _value(recorded, key), _value(now, key)
            values[parameter], self.parameters[parameter] = before, after
            if now is None or (key is not None and key not in now):
                changed[parameter] = "deleted"
            elif recorded is None or (key is not None and key not in recorded):
                changed[parameter] = "new"
            elif before != (list(after) if isinstance(after, tuple) else after):
                changed[parameter] = "modified"
        return values

    def _parameters(self, dependency: Any) -> Mapping[str, Any] | None:
        """Values of the keys that exist; of all if the dependency names none; ``None`` if there is no such file."""
        import dpath
        from dvc.utils.serialize import load_path

        if not dependency.exists:
            return None
        path = dependency.fs_path
        if path not in self._files:
            self._files[path] = load_path(path, dependency.repo.fs)
        content = self._files[path]
        found: dict[str, Any] = {}
        for key in dependency.params:
            try:
                found[key] = dpath.get(content, key, separator=".")
            except KeyError:
                continue
        return found if dependency.params else content


def _value(content: Mapping[str, Any] | None, key: str | None) -> Any:
    return MISSING if content is None else content if key is None else content.get(key, MISSING)
