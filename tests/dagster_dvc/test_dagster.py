"""The bridge as Dagster sees it: materialize, checks, staleness, sensor. Dagster runs in this process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.state_sensor import dvc_state
from dagster_project.dagster_dvc.sync import pending_events, report


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def materialize(
    root: Path, instance: dg.DagsterInstance, *, only: list[str] | None = None, tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    job = build_definitions(root).resolve_implicit_global_asset_job_def()
    selection = [dg.AssetKey.from_user_string(name) for name in only] if only else None
    return job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=selection, tags=tags)


def statuses(root: Path, instance: dg.DagsterInstance) -> dict[str, str]:
    """What the UI shows of each stage: FRESH, STALE or MISSING."""
    graph = build_definitions(root).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    keys = graph.executable_asset_keys
    return {key.to_user_string(): resolver.get_status(key).value for key in keys}


def runs(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    found = {}
    for event in result.get_asset_materialization_events():
        assert event.asset_key is not None
        materialization = event.step_materialization_data.materialization
        found[event.asset_key.to_user_string()] = str(materialization.metadata["run"].value)
    return found


FRESH = {"count": "FRESH", "part_a": "FRESH", "part_b": "FRESH", "join": "FRESH"}


def test_materialize_all_runs_through_dvc_and_then_finds_nothing_to_do(
    project: Path, instance: dg.DagsterInstance, dvc: Callable[..., str]
) -> None:
    first = materialize(project, instance)
    assert first.success
    assert set(runs(first).values()) == {"executed"} and len(runs(first)) == 4
    assert (project / "out/all.txt").read_text().strip() == "4"
    assert "up to date" in dvc(project, "status")
    report(instance, DvcProject(root=str(project)))
    assert statuses(project, instance) == FRESH
    second = materialize(project, instance)
    assert set(runs(second).values()) == {"unchanged"}
    assert statuses(project, instance) == FRESH
    assert pending_events(instance, DvcProject(root=str(project))) == []
    forced = materialize(project, instance, only=["count"], tags={"dvc/force": "true"})
    assert runs(forced) == {"count": "executed"}


def test_metrics_and_checks_are_shown(reproduced: Path, instance: dg.DagsterInstance) -> None:
    result = materialize(reproduced, instance, only=["count"])
    event = next(iter(result.get_asset_materialization_events()))
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["lines"].value == 1
    assert metadata["deep.share"].value == 0.5
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["enough"].passed
    assert not checks["even"].passed and checks["even"].severity == dg.AssetCheckSeverity.WARN


def test_a_failing_stage_shows_its_checks_and_stops_what_follows(
    reproduced: Path, instance: dg.DagsterInstance
) -> None:
    (reproduced / "data/raw/one.txt").write_text("")
    result = materialize(reproduced, instance)
    assert not result.success
    assert runs(result) == {}
    enough = next(check for check in result.get_asset_check_evaluations() if check.check_name == "enough")
    assert not enough.passed and enough.severity == dg.AssetCheckSeverity.ERROR
    assert "min_lines" in str(enough.metadata["failing"].value)
    failure = result.failure_data_for_node("count")
    assert failure is not None and "too few lines" in str(failure.user_failure_data)


def test_what_ran_outside_is_reported_once(reproduced: Path, instance: dg.DagsterInstance) -> None:
    project = DvcProject(root=str(reproduced))
    assert statuses(reproduced, instance) == dict.fromkeys(FRESH, "MISSING")
    assert report(instance, project) == 9
    assert statuses(reproduced, instance) == FRESH
    assert report(instance, project) == 0


def test_sensor_follows_edits_and_repro(
    reproduced: Path, instance: dg.DagsterInstance, dvc: Callable[..., str]
) -> None:
    project = DvcProject(root=str(reproduced))

    def tick() -> int:
        with dg.build_sensor_context(instance=instance, resources={"dvc": project}) as context:
            result = dvc_state(context)
        if isinstance(result, dg.SkipReason):
            return 0
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
        return len(result.asset_events)

    assert tick() > 0
    assert tick() == 0
    params = reproduced / "params.yaml"
    params.write_text(params.read_text().replace("x: 2", "x: 3"))
    assert tick() == 2  # the section, and why part_b is stale
    # As `dvc status` has it: what follows part_b is stale only once part_b has a new version.
    assert statuses(reproduced, instance) == {**FRESH, "part_b": "STALE"}
    dvc(reproduced, "repro")
    assert tick() > 0
    assert statuses(reproduced, instance) == FRESH
    whole = (reproduced / "dvc.lock").read_bytes()
    (reproduced / "dvc.lock").write_text("stages: [")
    assert tick() == 0
    assert (reproduced / "dvc.lock").read_bytes() == whole
    (reproduced / "dvc.lock").write_text("stages: [")
    shutil.rmtree(reproduced / ".dvc/tmp/dagster_dvc")  # no copy is left to restore it from
    with dg.build_sensor_context(instance=instance, resources={"dvc": project}) as context:
        skipped = dvc_state(context)
    assert isinstance(skipped, dg.SkipReason) and "dvc.lock" in str(skipped.skip_message)


def test_a_broken_dvc_yaml_still_loads_and_says_why(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  a: {cmd: [\n")
    spec = next(iter(build_definitions(project).resolve_all_asset_specs()))
    assert spec.key.to_user_string() == "dvc_yaml_cannot_be_read"
    assert "line" in (spec.description or "")


def test_a_new_stage_is_a_new_asset(project: Path) -> None:
    with (project / "dvc.yaml").open("a") as file:
        file.write("  last: {cmd: cp out/all.txt out/last.txt, deps: [out/all.txt], outs: [out/last.txt]}\n")
    keys = {spec.key.to_user_string() for spec in build_definitions(project).resolve_all_asset_specs()}
    assert "last" in keys


def test_two_stages_that_would_be_one_asset_are_refused(project: Path) -> None:
    with (project / "dvc.yaml").open("a") as file:
        file.write("  part_a: {cmd: echo 1 > out/x.txt, outs: [out/x.txt]}\n")
    spec = next(iter(build_definitions(project).resolve_all_asset_specs()))
    assert "part_a and part@a" in (spec.description or "") or "part@a and part_a" in (spec.description or "")
