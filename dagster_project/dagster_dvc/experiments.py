"""Runs part of the pipeline with other parameters as a DVC experiment, and leaves the workspace as it was.

``dvc exp run --temp`` would serve, but it stashes uncommitted changes in the workspace for a moment (a stage that runs
there would import other code, and a kill in that moment leaves them stashed), and it leaves untracked data behind.
Here a clone of the workspace, uncommitted and untracked files included, is made in ``.dvc/tmp``; it shares objects with
the Git repository and the cache with DVC. The experiment runs in the clone, and its commit is fetched: ``dvc exp show``
lists it, ``dvc exp apply NAME`` or :func:`apply` brings it into the workspace.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checks import all_metrics
from .clone import FOLDER, clone, digest, git, overlay
from .config_types import Schema, changes, merge, read_params
from .errors import ExperimentError
from .pipeline import Pipeline, read_pipeline
from .runner import run_command

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


@dataclass(frozen=True)
class Experiment:
    """What an experiment changed and what came out; ``metrics`` is by path, as the stages wrote it."""

    name: str
    revision: str
    changed: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, Any]


def prepare(root: Path, overrides: Mapping[str, Any], schema: Schema) -> dict[str, tuple[Any, Any]]:
    """Put overrides into the parameters, validate the whole, and return what changes: dotted key to both values.

    Raises:
        OverrideError: a value is not allowed.
    """
    values = read_params(root)
    merged = merge(values, overrides)
    schema.check(merged)
    return changes(values, merged)


def run(
    root: Path,
    *,
    name: str,
    overrides: Mapping[str, Any],
    targets: tuple[str, ...],
    schema: Schema,
    force: bool = False,
    on_line: Callable[[str], None],
    on_message: Callable[[Mapping[str, Any]], None] = lambda _: None,
    pipes: Callable[[Path], Mapping[str, str]] = lambda _: {},
) -> Experiment:
    """Run an experiment and wait for it.

    Args:
        root: the project.
        name: of the experiment; no other may have it.
        overrides: nested sections of ``params.yaml``.
        targets: stages, with all that they need; none means all.
        schema: what ``params.yaml`` may hold.
        force: run the targets even if nothing changed for them.
        on_line: receives each line of output.
        on_message: receives each progress message of a stage.
        pipes: given the file for messages, the environment that opens Dagster Pipes in the stages.

    Raises:
        OverrideError: a value is not allowed; nothing was started.
        ExperimentError: the project is no Git repository with a commit, the name is taken, or no stage ``targets``.
        StageFailed: a stage failed; the clone is removed, the output was passed on.
    """
    changed = prepare(root, overrides, schema)
    pipeline = read_pipeline(root)
    _require(root, pipeline, name, targets)
    for key, (before, after) in changed.items():
        on_line(f"{key}: {before} -> {after}")
    with clone(root) as folder:
        started = overlay(root, folder, pipeline)
        _write_params(folder, overrides)
        _checkout(folder, on_line)
        command = ["exp", "run", "--name", name, *(["--force"] if force else []), *targets]
        run_command(
            [sys.executable, "-m", "dvc", *command],
            root=folder,
            on_line=on_line,
            on_message=on_message,
            pipes=pipes,
            subject=f"experiment {name}",
            remedy="correct what the last lines name; the workspace is as it was",
        )
        reference = _reference(folder, name)
        if reference is None:
            raise ExperimentError(
                f"experiment {name} came out equal to the commit that it began from",
                remedy="nothing is left to do: no parameter, code or data differs from the last commit",
            )
        revision = git(folder, "rev-parse", reference)
        git(root, "fetch", "--quiet", "--no-tags", str(folder), f"{reference}:{reference}")
        _remember(root, name, started)
        made = all_metrics(folder, pipeline)
    return Experiment(name=name, revision=revision, changed=changed, metrics=made)


def apply(root: Path, *, name: str, force: bool = False, on_line: Callable[[str], None]) -> None:
    """Bring an experiment's parameters, code and results into the workspace.

    Args:
        root: the project.
        name: of the experiment.
        force: even if files were edited since the experiment began; those edits are lost.
        on_line: receives each line of output.

    Raises:
        ExperimentError: there is no such experiment, or edits would be lost.
        StageFailed: DVC could not apply it.
    """
    _requiregit(root)
    reference = _reference(root, name)
    if reference is None:
        known = ", ".join(names(root)) or "none"
        raise ExperimentError(f"there is no experiment {name} of this commit", remedy=f"name one of: {known}")
    edited = _edited_since(root, name, reference)
    if edited and not force:
        raise ExperimentError(
            f"applying {name} would overwrite edits of {', '.join(edited)}",
            remedy="commit them, or set `force` to lose them",
        )
    run_command(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "exp", "apply", name],
        root=root,
        subject=f"experiment {name}",
        on_line=on_line,
        remedy="`dvc exp show` lists the experiments",
    )


def names(root: Path) -> list[str]:
    """Names of the experiments that began from the present commit, oldest first."""
    head = git(root, "rev-parse", "HEAD")
    listed = git(root, "for-each-ref", "--sort=creatordate", "--format=%(refname)", f"refs/exps/{head[:2]}/{head[2:]}/")
    return [line.rsplit("/", 1)[1] for line in listed.splitlines()]


def _require(root: Path, pipeline: Pipeline, name: str, targets: tuple[str, ...]) -> None:
    _requiregit(root)
    if not _NAME.fullmatch(name):
        raise ExperimentError(
            f"{name!r} cannot name an experiment", remedy="use letters, digits, dots, dashes and underscores"
        )
    if name in names(root):
        raise ExperimentError(
            f"there is an experiment {name} already",
            remedy=f"choose another name, or remove it: `dvc exp remove {name}`",
        )
    known = {stage.name for stage in pipeline.stages} | {stage.parts[0] for stage in pipeline.stages}
    if unknown := [target for target in targets if target not in known]:
        raise ExperimentError(
            f"dvc.yaml has no stage {', '.join(unknown)}", remedy=f"choose from {', '.join(sorted(known))}"
        )


def _requiregit(root: Path) -> None:
    try:
        git(root, "rev-parse", "--verify", "HEAD")
    except ExperimentError as error:
        raise ExperimentError(
            f"{root}: experiments need a Git repository with a commit, and the command git",
            remedy="`git init && git add -A && git commit -m 'Begin'`; in .dvc/config, remove `no_scm`",
        ) from error


def _checkout(folder: Path, on_line: Callable[[str], None]) -> None:
    """Bring what the stages made into the clone, so that only what the overrides change has to run."""
    if (folder / "dvc.lock").exists():
        run_command(
            [sys.executable, "-m", "dvc", "checkout", "--quiet", "--allow-missing"],
            root=folder,
            subject="the results so far",
            on_line=on_line,
            remedy="`dvc checkout --allow-missing` on a terminal shows the same",
        )


def _write_params(folder: Path, overrides: Mapping[str, Any]) -> None:
    """Change the values in place: comments and order stay."""
    from dvc.utils.serialize import modify_yaml

    if not overrides:
        return
    with modify_yaml(str(folder / "params.yaml")) as values:
        _set(values, overrides)


def _set(values: Any, overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), Mapping):
            _set(values[key], value)
        else:
            values[key] = value


def _reference(root: Path, name: str) -> str | None:
    head = git(root, "rev-parse", "HEAD")
    reference = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    return reference if git(root, "for-each-ref", "--format=%(refname)", reference) else None


def _remember(root: Path, name: str, hashes: Mapping[str, str]) -> None:
    """Note which uncommitted files the experiment began with, so that later edits are not lost by applying it."""
    (root / FOLDER / f"{name}.json").write_text(json.dumps(hashes, sort_keys=True, indent=1), encoding="utf-8")


def _edited_since(root: Path, name: str, reference: str) -> list[str]:
    """Tracked files that hold neither what the experiment began with nor what it would bring."""
    try:
        began = json.loads((root / FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        began = {}
    brought = git(root, "diff", "--name-only", "-z", "--relative", reference).split("\0")
    dirty = set(git(root, "diff", "--name-only", "-z", "--relative", "HEAD").split("\0"))
    return [
        path
        for path in filter(None, brought)
        if path in dirty and Path(path).name != "dvc.lock" and began.get(path) != digest(root / path)
    ]
