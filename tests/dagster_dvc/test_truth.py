"""Two-way truth: after any sequence of edits and runs, Dagster calls stale exactly what ``dvc status`` lists.

BRIDGE_TRUTH_STEPS and BRIDGE_TRUTH_SEEDS ("1,2,3") make a long campaign of it.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from truth_walk import Walk, run_in_process

from dagster_project.dagster_dvc import assets

STEPS = int(os.environ.get("BRIDGE_TRUTH_STEPS", "30"))
SEEDS = [int(seed) for seed in os.environ.get("BRIDGE_TRUTH_SEEDS", "1").split(",")]


@pytest.fixture(name="walk")
def make_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Walk]]:
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)  # DVC names stages relative to the working folder
    monkeypatch.setattr(assets, "run_stage", run_in_process)
    for name in ("dvc", "dvc_data", "dvc_objects"):
        # DVC's handlers write to the stream that was standard error when another test ran a command of it.
        monkeypatch.setattr(logging.getLogger(name), "handlers", [logging.NullHandler()])
    with contextlib.ExitStack() as stack:
        yield lambda seed: Walk(root, stack.enter_context(dg.DagsterInstance.ephemeral()), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_dagster_and_dvc_tell_the_same_story(walk: Callable[[int], Walk], seed: int) -> None:
    made = walk(seed)
    made.compare()
    for _ in range(STEPS):
        made.step()
