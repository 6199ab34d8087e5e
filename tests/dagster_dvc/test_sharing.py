"""A colleague fetches instead of training (docs/decisions/0002): two clones, a committed dvc.lock, a local remote."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.sync import report


def git(root: Path, *arguments: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "nobody@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    subprocess.run(["git", *arguments], cwd=root, env=environment, check=True, capture_output=True)


@pytest.fixture
def team(project: Path, tmp_path: Path, dvc: Callable[..., str]) -> Path:
    """A Git repository in which somebody ran the pipeline, pushed, and committed dvc.lock."""
    (project / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (project / ".dvc/.gitignore").write_text("/tmp\n/cache\n/config.local\n")
    (project / ".gitignore").write_text("/out\n/metrics\n")
    git(project, "init", "--quiet")
    dvc(project, "remote", "add", "--default", "store", str(tmp_path / "remote"))
    dvc(project, "repro")
    dvc(project, "push")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "Train")
    return project


def test_a_colleague_pulls_and_nothing_runs(team: Path, tmp_path: Path, dvc: Callable[..., str]) -> None:
    git(tmp_path, "clone", "--quiet", str(team), "colleague")
    colleague = tmp_path / "colleague"
    dvc(colleague, "pull")
    assert (colleague / "out/all.txt").read_bytes() == (team / "out/all.txt").read_bytes()
    said = dvc(colleague, "repro")
    assert "up to date" in said and "Running stage" not in said
    assert (colleague / "dvc.lock").read_bytes() == (team / "dvc.lock").read_bytes()


def test_dvc_refuses_an_ignored_lock(team: Path, dvc: Callable[..., str]) -> None:
    """The reason why .gitignore does not name dvc.lock although this repository commits none."""
    git(team, "rm", "--quiet", "--cached", "dvc.lock")
    with (team / ".gitignore").open("a") as file:
        file.write("dvc.lock\n")
    with pytest.raises(AssertionError, match="git-ignored"):
        dvc(team, "repro", "--force")


def test_the_old_model_comes_back_and_dagster_shows_it(team: Path, dvc: Callable[..., str]) -> None:
    """`git checkout OLD && dvc checkout`: the versions and the metrics of then, and nothing stale."""
    project = DvcProject(root=str(team))
    old_version, old_lines = _shown(team, project, instance := dg.DagsterInstance.ephemeral())
    (team / "data/raw/two.txt").write_text("more\n")
    dvc(team, "repro")
    git(team, "commit", "--quiet", "--all", "--message", "Train on more")
    git(team, "add", "data/raw")
    git(team, "commit", "--quiet", "--message", "Keep the rows")
    new_version, new_lines = _shown(team, project, instance)
    assert (old_lines, new_lines) == (1, 2) and new_version != old_version
    git(team, "checkout", "--quiet", "HEAD~2")
    dvc(team, "checkout")
    assert _shown(team, project, instance) == (old_version, old_lines)
    instance.dispose()


def _shown(root: Path, project: DvcProject, instance: dg.DagsterInstance) -> tuple[str, object]:
    """Data version and number of lines that Dagster shows of `count` after one tick, at which nothing is stale."""
    report(instance, project)
    graph = build_definitions(root).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    assert {resolver.get_status(key).value for key in graph.executable_asset_keys} == {"FRESH"}
    event = instance.get_latest_materialization_event(dg.AssetKey("count"))
    assert event is not None and event.asset_materialization is not None
    tags, metadata = event.asset_materialization.tags or {}, event.asset_materialization.metadata
    return tags["dagster/data_version"], metadata["lines"].value
