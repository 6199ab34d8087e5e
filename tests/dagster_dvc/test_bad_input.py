"""What a user may break: the code location loads with what can be shown, and each message says how to mend it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.dagster_dvc.__main__ import main
from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.state_sensor import dvc_state


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
