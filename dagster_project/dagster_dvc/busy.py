"""Which stages something is running right now: they report themselves, and their outputs are not whole yet."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.execution.stats import StepEventStatus

from .pipeline import Pipeline, overlaps
from .translator import op_name

_ACTIVE = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def busy_stages(instance: dg.DagsterInstance, pipeline: Pipeline) -> set[str]:
    """Stages that a step of an active run, or a process of DVC, is making; no others, however long that takes."""
    steps = {
        step.step_key
        for run in instance.get_runs(RunsFilter(statuses=_ACTIVE))
        for step in instance.get_run_step_stats(run.run_id)
        if step.status is StepEventStatus.IN_PROGRESS
    }
    written = _written_paths(pipeline.root)
    return {
        stage.name
        for stage in pipeline.stages
        if op_name(stage) in steps or any(overlaps(o.path, path) for o in stage.outputs for path in written)
    }


def _written_paths(root: Path) -> list[str]:
    """Paths, relative to the project, that living processes of DVC have locked for writing."""
    import psutil

    try:
        held = json.loads((_dvc_folder(root) / "tmp" / "rwlock").read_text(encoding="utf-8")).get("write", {})
        living = [Path(path) for path, holder in held.items() if psutil.pid_exists(int(holder["pid"]))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # no lock file, or one that is being rewritten: the next tick sees it
    return [path.relative_to(root).as_posix() for path in living if path.is_relative_to(root)]


def _dvc_folder(root: Path) -> Path:
    return next((folder / ".dvc" for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), root / ".dvc")
