"""Overrides in the launchpad: typed, checked before anything starts, run beside the workspace, applied on demand."""

import fcntl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from pydantic import BaseModel, ConfigDict, Field

from dagster_project.dagster_dvc import Schema, build_definitions, experiments
from dagster_project.dagster_dvc.errors import ExperimentError, OverrideError, StageFailed

pytestmark = pytest.mark.slow

OVERRIDES = {"parts": {"b": {"x": 7}}}


class Part(BaseModel):
    x: int = Field(ge=0)


class Count(BaseModel):
    minimum: int
    rate: float = Field(gt=0, description="a share")


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: Count
    parts: dict[str, Part]


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def versioned(reproduced: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project in a Git repository, with uncommitted edits and an untracked file, as people have them."""
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "Test")
        monkeypatch.setenv(f"{name}_EMAIL", "test@example.org")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (reproduced / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (reproduced / ".gitignore").write_text("/out\n/metrics\n__pycache__/\n")
    (reproduced / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    git(reproduced, "init", "--quiet")
    git(reproduced, "add", "--all", ".")
    git(reproduced, "reset", "--quiet", "dvc.lock")
    git(reproduced, "commit", "--quiet", "--message", "Begin")
    (reproduced / "data/raw/two.txt").write_text("untracked\n")
    code = reproduced / "code/count.py"
    code.write_text(code.read_text() + "# uncommitted\n")
    return reproduced


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {".git", ".dvc", "__pycache__"} & set(path.relative_to(root).parts)
    }


def run(root: Path, overrides: dict = OVERRIDES, *, name: str = "first", **options: object) -> experiments.Experiment:
    settings = {"targets": (), "schema": Schema(model=Params), "on_line": lambda _: None, **options}
    return experiments.run(root, name=name, overrides=overrides, **settings)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def launch(root: Path, instance: dg.DagsterInstance, job: str, config: dict) -> dg.ExecuteInProcessResult:
    definition = build_definitions(root, schema=Schema(model=Params)).resolve_job_def(job)
    return definition.execute_in_process(run_config=config, instance=instance, raise_on_error=False)


def test_an_experiment_leaves_the_workspace_as_it_was(versioned: Path, dvc: Callable[..., str]) -> None:
    before, status = contents(versioned), git(versioned, "status", "--short")
    lines: list[str] = []
    made = run(versioned, on_line=lines.append)
    assert contents(versioned) == before
    assert git(versioned, "status", "--short") == status
    assert git(versioned, "stash", "list") == ""
    assert dict(made.changed) == {"parts.b.x": (2, 7)}
    assert "parts.b.x: 2 -> 7" in lines
    # the untracked file and the uncommitted code took part; what the override does not touch did not run twice
    assert made.metrics["metrics/count.json"]["lines"] == 2
    assert any("Running stage 'part@b'" in line for line in lines)
    assert "first" in dvc(versioned, "exp", "list")
    assert list((versioned / ".dvc/tmp/dagster").glob("*.lock")) == []


def test_unchanged_stages_come_from_the_cache(versioned: Path, dvc: Callable[..., str]) -> None:
    dvc(versioned, "repro")
    lines: list[str] = []
    run(versioned, on_line=lines.append)
    assert [line.split("'")[1] for line in lines if line.startswith("Running stage")] == ["part@b", "join"]


def test_the_result_can_be_applied(versioned: Path, dvc: Callable[..., str], instance: dg.DagsterInstance) -> None:
    run(versioned)
    assert launch(versioned, instance, "apply_experiment", {"name": "first"}).success
    assert "b: {x: 7}" in (versioned / "params.yaml").read_text()
    assert (versioned / "out/b.txt").read_text().startswith("b 7")
    assert "# uncommitted" in (versioned / "code/count.py").read_text()
    assert (versioned / "data/raw/two.txt").exists()
    assert "up to date" in dvc(versioned, "status")


def test_applying_does_not_overwrite_later_edits(versioned: Path) -> None:
    run(versioned)
    code = versioned / "code/count.py"
    code.write_text(code.read_text() + "# later\n")
    with pytest.raises(ExperimentError, match=r"code/count\.py"):
        experiments.apply(versioned, name="first", on_line=lambda _: None)
    assert "# later" in code.read_text()
    assert "x: 7" not in (versioned / "params.yaml").read_text()
    experiments.apply(versioned, name="first", force=True, on_line=lambda _: None)
    assert "# later" not in code.read_text()


def test_the_job_shows_what_changed(versioned: Path, instance: dg.DagsterInstance) -> None:
    config = {"params": {"count": {"rate": 0.5}}, "targets": ["count"], "name": "half", "force": True}
    result = launch(versioned, instance, "experiment", config)
    assert result.success
    event = next(e for e in result.all_events if e.event_type_value == "STEP_OUTPUT")
    metadata = event.event_specific_data.metadata
    assert "| count.rate | 1e-05 | 0.5 |" in str(metadata["parameters"].value)
    assert "| metrics/count.json: lines | 1 | 2 |" in str(metadata["metrics"].value)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"params": {"count": {"rate": "fast"}}}, "rate"),
        ({"params": {"count": {"speed": 1}}}, "speed"),
        ({"params": {"counting": {}}}, "counting"),
        ({"targets": ["nowhere"]}, "nowhere"),
    ],
)
def test_the_launchpad_refuses_what_the_schema_does_not_know(project: Path, config: dict, named: str) -> None:
    job = build_definitions(project, schema=Schema(model=Params)).resolve_job_def("experiment")
    with pytest.raises(dg.DagsterInvalidConfigError, match=named):
        dg.validate_run_config(job, config)


def test_types_come_from_the_values_where_there_is_no_schema(project: Path) -> None:
    job = build_definitions(project).resolve_job_def("experiment")
    assert dg.validate_run_config(job, {"params": {"parts": {"a": {"x": 3}}}})
    with pytest.raises(dg.DagsterInvalidConfigError, match="three"):
        dg.validate_run_config(job, {"params": {"parts": {"a": {"x": "three"}}}})


def test_ranges_are_checked_before_anything_starts(versioned: Path) -> None:
    lines: list[str] = []
    with pytest.raises(OverrideError, match=r"count\.rate.*greater than 0"):
        run(versioned, {"count": {"rate": -1.0}}, on_line=lines.append)
    assert lines == []


def test_a_failing_stage_leaves_nothing_behind(versioned: Path) -> None:
    before = contents(versioned)
    for path in (versioned / "data/raw").iterdir():
        path.write_text("")
    with pytest.raises(StageFailed, match="too few lines"):
        run(versioned, {"count": {"rate": 0.5}})
    assert experiments.names(versioned) == []
    assert [p for p in (versioned / ".dvc/tmp/dagster").iterdir() if p.suffix != ".json"] == []
    assert {k: v for k, v in contents(versioned).items() if not k.startswith("data/raw")} == {
        k: v for k, v in before.items() if not k.startswith("data/raw")
    }


def test_names_that_are_taken_or_unknown_are_refused(versioned: Path) -> None:
    run(versioned)
    with pytest.raises(ExperimentError, match="already"):
        run(versioned, {"parts": {"a": {"x": 9}}})
    with pytest.raises(ExperimentError, match="cannot name"):
        run(versioned, name="../up")
    with pytest.raises(ExperimentError, match="no experiment other"):
        experiments.apply(versioned, name="other", on_line=lambda _: None)
    with pytest.raises(ExperimentError, match="no stage nowhere"):
        run(versioned, name="second", targets=("nowhere",))


def test_what_a_killed_experiment_left_is_removed_and_a_living_one_is_not(versioned: Path) -> None:
    folder = versioned / ".dvc/tmp/dagster"
    for name in ("dead", "living"):
        (folder / name / "models").mkdir(parents=True)
        (folder / f"{name}.lock").touch()
    with (folder / "living.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(versioned)
    assert not (folder / "dead").exists() and not (folder / "dead.lock").exists()
    assert (folder / "living/models").is_dir()


def test_without_git_the_message_says_so(reproduced: Path) -> None:
    with pytest.raises(ExperimentError, match="Git repository"):
        run(reproduced)


def test_the_code_location_loads(project: Path) -> None:
    dg.Definitions.validate_loadable(build_definitions(project))
