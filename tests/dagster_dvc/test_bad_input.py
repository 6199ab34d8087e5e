"""What a user may break: the code location loads with what can be shown, and each message says how to mend it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from test_sharing import git

from dagster_project.dagster_dvc.__main__ import main
from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.state_sensor import dvc_state
from dagster_project.dagster_dvc.sync import report


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_project.dagster_dvc.lock_file._LOCK_PAUSE_S", 0.0)


def specs(root: Path) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in build_definitions(root).resolve_all_asset_specs()}


def skipped(root: Path, instance: dg.DagsterInstance) -> str:
    """Message with which the sensor skips."""
    with dg.build_sensor_context(instance=instance, resources={"dvc": DvcProject(root=str(root))}) as context:
        result = dvc_state(context)
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


@pytest.fixture
def sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """`python -m dagster_project.dagster_dvc sync` in this process; it must end with 2 and a message."""

    def run(root: Path) -> str:
        (tmp_path / "home").mkdir()
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("DVC_PROJECT", str(root))
        monkeypatch.setattr(sys, "argv", ["dagster_dvc", "sync"])
        assert main() == 2
        return capsys.readouterr().err

    return run


def failure(root: Path, instance: dg.DagsterInstance, name: str) -> str:
    """What a failed materialization of one asset says."""
    job = build_definitions(root).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, raise_on_error=False, asset_selection=[dg.AssetKey(name)], tags={"dvc/force": "true"}
    )
    assert not result.success
    return str(result.failure_data_for_node(name).user_failure_data.description)  # type: ignore[union-attr]


CYCLE = "stages:\n  a: {cmd: x, outs: [b], deps: [c]}\n  b: {cmd: y, outs: [c], deps: [b]}\n"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("dvc.yaml", "stages:\n  a: {cmd: [\n", "line 3"),
        ("dvc.yaml", "", "dvc.yaml"),
        ("dvc.yaml", "stages: 1\n", "dvc.yaml"),
        ("dvc.yaml", CYCLE, "in a circle"),
        ("dvc.yaml", "stages:\n  a: {cmd: 'echo ${nothing}'}\n", "nothing"),
        ("params.yaml", "parts: [\n", "params.yaml"),
    ],
    ids=["not YAML", "empty", "no stages", "circle", "unknown template", "params not YAML"],
)
def test_a_pipeline_that_cannot_be_used(
    reproduced: Path, sync: Callable[[Path], str], instance: dg.DagsterInstance, file: str, text: str, words: str
) -> None:
    (reproduced / file).write_text(text)
    shown = specs(reproduced)
    assert set(shown) >= {"dvc_yaml_cannot_be_read", "count", "part_a", "part_b", "join"}
    message = shown["dvc_yaml_cannot_be_read"].description or ""
    assert words in message and "Remedy: " in message and "reload" in message
    assert {dep.asset_key.to_user_string() for dep in shown["join"].deps} == {"part_a", "part_b"}
    assert "out/all.txt" in str(shown["join"].metadata["made"])
    said = skipped(reproduced, instance)
    assert words in said and "remedy: " in said
    assert words in sync(reproduced)


@pytest.mark.parametrize("text", ["other: 1\n", "stages: [", "<<<<<<< HEAD\n"], ids=["foreign", "cut", "conflict"])
def test_a_broken_lock(reproduced: Path, sync: Callable[[Path], str], instance: dg.DagsterInstance, text: str) -> None:
    (reproduced / "dvc.lock").write_text(text)
    assert "count" in specs(reproduced)
    said = skipped(reproduced, instance)
    assert "dvc.lock" in said and "git checkout dvc.lock" in said
    assert "git checkout dvc.lock" in sync(reproduced)


def test_an_empty_lock_without_a_copy(
    reproduced: Path, sync: Callable[[Path], str], instance: dg.DagsterInstance
) -> None:
    """The command line explains it; the sensor mends it, which leaves what stands there without a record."""
    (reproduced / "dvc.lock").write_text("")
    said = sync(reproduced)
    assert "dvc.lock is empty" in said and "git checkout dvc.lock" in said
    with dg.build_sensor_context(instance=instance, resources={"dvc": DvcProject(root=str(reproduced))}) as context:
        result = dvc_state(context)
    assert isinstance(result, dg.SensorResult)
    made = [e for e in result.asset_events if isinstance(e, dg.AssetMaterialization)]
    join = next(event for event in made if event.asset_key == dg.AssetKey("join"))
    assert (join.tags or {})["dagster/code_version"] == "no entry in dvc.lock"


def test_a_broken_pipeline_and_a_broken_lock(reproduced: Path) -> None:
    (reproduced / "dvc.yaml").write_text("stages: [")
    (reproduced / "dvc.lock").write_text("stages: [")
    assert set(specs(reproduced)) == {"dvc_yaml_cannot_be_read", "dvc_lock_cannot_be_read"}


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ("{grup: first}", "grup"),
        ("5", "meta"),
        ("{group: 'not allowed!'}", "not allowed!"),
        ("{checks: [{name: x}]}", "checks"),
        ("{kinds: 7}", "kinds"),
        ("{owners: [nobody@]}", "owner"),
    ],
)
def test_a_mistake_in_the_meta_of_one_stage(
    reproduced: Path, instance: dg.DagsterInstance, meta: str, words: str
) -> None:
    text = (reproduced / "dvc.yaml").read_text()
    (reproduced / "dvc.yaml").write_text(text + f"    meta: {meta}\n")  # the last stage is `join`
    shown = specs(reproduced)
    assert set(shown) >= {"count", "part_a", "part_b", "join"}
    assert "Remedy: " in (shown["join"].description or "") and words in (shown["join"].description or "")
    assert "Remedy: " not in (shown["count"].description or "")
    said = failure(reproduced, instance, "join")
    assert "stage join" in said and "remedy: " in said
    job = build_definitions(reproduced).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("part_a")]).success


@pytest.mark.slow
def test_a_lost_input_and_a_missing_parameter(reproduced: Path, instance: dg.DagsterInstance) -> None:
    (reproduced / "out/a.txt").unlink()
    said = failure(reproduced, instance, "join")
    assert "out/a.txt" in said and "dvc checkout" in said and "dvc pull" in said
    text = (reproduced / "dvc.yaml").read_text()
    (reproduced / "dvc.yaml").write_text(text.replace("params: [count]", "params: [count, nope.x]"))
    said = failure(reproduced, instance, "count")
    assert "nope.x" in said and "add them" in said
    report(instance, DvcProject(root=str(reproduced)))
    assert "parameter params.yaml:nope.x: deleted" in why(instance, "count")


def test_a_second_parameter_file_that_is_broken(reproduced: Path, instance: dg.DagsterInstance) -> None:
    text = (reproduced / "dvc.yaml").read_text()
    (reproduced / "dvc.yaml").write_text(text + "    params: [other.yaml: [x]]\n")  # the last stage is `join`
    (reproduced / "other.yaml").write_text("x: [\n")
    assert "join" in specs(reproduced)
    assert "other.yaml" in skipped(reproduced, instance)
    said = failure(reproduced, instance, "join")
    assert "other.yaml" in said and "remedy: " in said


@pytest.mark.slow
def test_a_lost_cache_entry_is_named_and_materializing_mends_it(reproduced: Path, instance: dg.DagsterInstance) -> None:
    (reproduced / "out/all.txt").unlink()
    shutil.rmtree(reproduced / ".dvc/cache/files")
    report(instance, DvcProject(root=str(reproduced)))
    assert "output out/all.txt: not in cache" in why(instance, "join")
    assert "dvc pull join" in why(instance, "join") and "materialize" in why(instance, "join")
    job = build_definitions(reproduced).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("join")]).success
    assert (reproduced / "out/all.txt").exists()
    assert why(instance, "join") == ""


@pytest.mark.slow
def test_no_repository(
    reproduced: Path, sync: Callable[[Path], str], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Without Git, and without a word to DVC about it; then without DVC's own folder."""
    config = reproduced / ".dvc/config"
    config.write_text(config.read_text().replace("no_scm = true", ""))
    assert "count" in specs(reproduced)
    assert "git init" in skipped(reproduced, instance) and "core.no_scm" in skipped(reproduced, instance)
    assert "core.no_scm" in failure(reproduced, instance, "join")
    assert "core.no_scm" in sync(reproduced)
    shutil.rmtree(reproduced / ".dvc")
    assert "count" in specs(reproduced)
    assert "dvc init" in skipped(reproduced, instance)


def test_no_git_program(reproduced: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Git repository on a machine without `git`: DVC reads it by itself."""
    git(reproduced, "init", "--quiet")
    config = reproduced / ".dvc/config"
    config.write_text(config.read_text().replace("no_scm = true", ""))
    monkeypatch.setenv("PATH", str(reproduced))
    assert shutil.which("git") is None
    assert report(instance, DvcProject(root=str(reproduced))) == 9


def why(instance: dg.DagsterInstance, name: str) -> str:
    """What the latest event of an asset says of why it is stale, and how to mend it."""
    event = instance.get_latest_materialization_event(dg.AssetKey(name))
    assert event is not None and event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    return "\n".join(str(metadata[key].value) for key in ("why", "mend") if key in metadata)
