"""The sensor beside runs, and why a stage is stale in the words of Dagster and of DVC."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleCause
from dagster._core.loader import LoadingContextForTest

from dagster_project.dagster_dvc import assets
from dagster_project.dagster_dvc.assemble import build_definitions
from dagster_project.dagster_dvc.busy import busy_stages
from dagster_project.dagster_dvc.errors import StageFailed
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.resources import DvcProject
from dagster_project.dagster_dvc.state_sensor import dvc_state
from dagster_project.dagster_dvc.sync import pending_events, report


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def told(reproduced: Path, instance: dg.DagsterInstance) -> Path:
    """A project after `dvc repro` and one tick."""
    report(instance, DvcProject(root=str(reproduced)))
    return reproduced


def causes(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str) -> list[StaleCause]:
    graph = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return list(resolver.get_stale_causes(dg.AssetKey(name)))


def tick(definitions: dg.Definitions, root: Path, instance: dg.DagsterInstance) -> list[Any]:
    """One evaluation of the sensor in a loaded code location."""
    repository = definitions.get_repository_def()
    resources = {"dvc": DvcProject(root=str(root))}
    with dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources) as context:
        result = dvc_state(context)
    events = list(result.asset_events) if isinstance(result, dg.SensorResult) else []
    for event in events:
        instance.report_runless_asset_event(event)
    return events


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_edit_is_a_cause_with_a_name_and_undoing_it_leaves_no_trace(
    told: Path, instance: dg.DagsterInstance
) -> None:
    definitions = build_definitions(told)
    edit(told / "params.yaml", "minimum: 1", "minimum: 2")
    source, observation = tick(definitions, told, instance)
    assert source.asset_key == dg.AssetKey(["params", "count_params"])
    assert "minimum" in source.metadata["value"].value and "count: parameter" in source.metadata["makes stale"].value
    assert isinstance(observation, dg.AssetObservation)
    assert "params.yaml:count: modified (was" in str(observation.description)
    (cause,) = causes(definitions, instance, "count")
    assert cause.dependency_asset_key == dg.AssetKey(["params", "count_params"])
    edit(told / "params.yaml", "minimum: 2", "minimum: 1")
    events = tick(definitions, told, instance)
    assert [type(event) for event in events] == [dg.AssetMaterialization, dg.AssetObservation]
    assert events[1].description == "as dvc.lock records it"
    assert causes(definitions, instance, "count") == []
    assert len(instance.fetch_materializations(dg.AssetKey("count"), limit=9).records) == 1
    assert tick(definitions, told, instance) == []


def test_an_output_changed_by_hand_is_the_stage_s_own_cause(told: Path, instance: dg.DagsterInstance) -> None:
    definitions = build_definitions(told)
    (told / "out/a.txt").unlink()
    made = {event.asset_key.to_user_string(): event for event in tick(definitions, told, instance)}
    assert made["part_a"].tags["dagster/code_version"] == "outputs deleted: out/a.txt"
    assert made["part_a"].metadata["why"].value == "- output out/a.txt: deleted"
    assert "dvc checkout part@a" in made["part_a"].metadata["mend"].value
    assert [cause.category.value for cause in causes(definitions, instance, "part_a")] == ["CODE"]
    assert causes(definitions, instance, "join")[0].dependency_asset_key == dg.AssetKey("part_a")
    assert causes(definitions, instance, "part_b") == []


def test_a_command_is_judged_without_a_reload(
    told: Path, instance: dg.DagsterInstance, dvc: Callable[..., str]
) -> None:
    definitions = build_definitions(told)  # stays as it is: nobody presses the button
    edit(told / "dvc.yaml", "| wc -l >", "| wc -c >")
    tick(definitions, told, instance)
    assert [cause.category.value for cause in causes(definitions, instance, "join")] == ["CODE"]
    dvc(told, "repro")
    tick(definitions, told, instance)
    assert causes(definitions, instance, "join") == []
    reloaded = build_definitions(told)
    tick(reloaded, told, instance)
    assert causes(reloaded, instance, "join") == []


def test_a_running_step_hides_its_own_stage_alone(
    told: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def edit_while_running(stage: str, **_: Any) -> None:
        edit(told / "params.yaml", "minimum: 2", "minimum: 3")
        (told / "out/b.txt").unlink()
        seen.extend(event.asset_key.to_user_string() for event in pending_events(instance, project))
        raise StageFailed("enough", remedy="none", exit_code=1)

    project = DvcProject(root=str(told))
    edit(told / "params.yaml", "minimum: 1", "minimum: 2")
    monkeypatch.setattr(assets, "run_stage", edit_while_running)
    job = build_definitions(told).resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=[dg.AssetKey("count")])
    assert "count" not in seen and {"part_b", "params/count_params"} <= set(seen)
    assert "count" in {event.asset_key.to_user_string() for event in pending_events(instance, project)}


def test_a_dvc_process_hides_what_it_writes_as_long_as_it_lives(told: Path, instance: dg.DagsterInstance) -> None:
    pipeline, path = read_pipeline(told), told / ".dvc/tmp/rwlock"
    holder = {"cmd": "dvc repro", "pid": os.getpid()}
    path.write_text(json.dumps({"write": {str(told / "out/a.txt"): holder}}))
    assert busy_stages(instance, pipeline) == {"part@a"}
    path.write_text(json.dumps({"write": {str(told / "out/a.txt"): holder | {"pid": 2**22 + 1}}}))
    assert busy_stages(instance, pipeline) == set()
    path.write_text("{")
    assert busy_stages(instance, pipeline) == set()
