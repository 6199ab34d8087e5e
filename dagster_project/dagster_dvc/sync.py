"""Tells Dagster what DVC did outside of it.

What ``dvc repro``, ``dvc checkout``, ``dvc pull`` or an editor changed is reported as runless materializations with
versions that make Dagster call stale what ``dvc status`` lists. Where only the reason changed, an observation says so,
because a materialization would be a point in the history of metrics. The sensor in :mod:`.state_sensor` reports the
same events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import dagster as dg

from .busy import busy_stages
from .checks import check_results, read_metrics
from .errors import PipelineError
from .explain import explanation, source_metadata
from .lock_file import LockedStage, read_lock
from .meta import without_wrong_meta
from .pipeline import Stage, read_pipeline
from .resources import DvcProject
from .translator import STATUS_TAG, result_metadata, to_key, version_tags
from .workspace import (
    NOTHING,
    Key,
    Snapshot,
    StageState,
    all_sources,
    asset_key,
    read_workspace,
    take_snapshot,
)

_INPUT = "dagster/input_data_version/"

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetObservation


def pending_events(
    instance: dg.DagsterInstance, dvc: DvcProject, *, shown: Mapping[dg.AssetKey, str | None] | None = None
) -> list[Event]:
    """List what the instance does not know yet.

    Stages that are being made just now are left to those who make them.

    Args:
        instance: of Dagster.
        dvc: the project.
        shown: code versions in the loaded code location; ``dvc.yaml`` may have changed since it was loaded.

    Raises:
        BridgeError: the project's state cannot be read.
    """
    pipeline = read_pipeline(dvc.folder)
    lock = read_lock(dvc.folder)
    busy = busy_stages(instance, pipeline)
    workspace = read_workspace(pipeline, lock)
    snapshot = _as_loaded(take_snapshot(pipeline, workspace), shown or {})
    sources = all_sources(pipeline)
    current: dict[Key, str] = {**snapshot.sources} | {
        asset_key(name): state.data_version for name, state in snapshot.stages.items()
    }
    told = _latest_tags(instance, [to_key(key) for key in current])
    events: list[Event] = []
    for key, version in snapshot.sources.items():
        if told.get(to_key(key), {}).get("dagster/data_version") != version:
            metadata = source_metadata(sources[key], workspace, snapshot)
            tags = {"dagster/data_version": version}
            events.append(dg.AssetMaterialization(asset_key=to_key(key), metadata=metadata, tags=tags))
    for stage in pipeline.stages:
        state, known = snapshot.stages[stage.name], told.get(to_key(asset_key(stage)))
        if stage.name in busy or (known is None and state.data_version == NOTHING):
            continue
        if known is None or not _agrees(known, state, current):
            events += _stage_events(dvc, stage, state, lock.get(stage.name))
        elif _told_status(instance, stage, known) != version_tags(state)[STATUS_TAG]:
            events.append(_observation(stage, state))
    return events


def report(instance: dg.DagsterInstance, dvc: DvcProject) -> int:
    """Report what is pending; return how many assets were brought up to date.

    Raises:
        BridgeError: the project's state cannot be read.
    """
    events = pending_events(instance, dvc)
    for event in events:
        instance.report_runless_asset_event(event)
    return sum(isinstance(event, dg.AssetMaterialization) for event in events)


def _as_loaded(snapshot: Snapshot, shown: Mapping[dg.AssetKey, str | None]) -> Snapshot:
    """Put the code versions that Dagster compares with in place of those that ``dvc.yaml`` gives now."""
    stages = {}
    for name, state in snapshot.stages.items():
        loaded = shown.get(to_key(asset_key(name)))
        stages[name] = replace(state, code_version=loaded) if loaded and not state.own else state
    return replace(snapshot, stages=stages)


def _latest_tags(instance: dg.DagsterInstance, keys: list[dg.AssetKey]) -> dict[dg.AssetKey, Mapping[str, str]]:
    """Tags of the latest materialization of each asset that has one."""
    found: dict[dg.AssetKey, Mapping[str, str]] = {}
    for record in instance.get_asset_records(keys):
        entry = record.asset_entry.last_materialization
        if entry is not None:
            found[record.asset_entry.asset_key] = entry.tags or {}
    return found


def _agrees(known: Mapping[str, str], state: StageState, current: Mapping[Key, str]) -> bool:
    """Tell whether Dagster, comparing a materialization with these tags, calls stale exactly what DVC does.

    An input that changed may have any version but the current one: an edit needs no new materialization.
    """
    inputs = {name.removeprefix(_INPUT): version for name, version in known.items() if name.startswith(_INPUT)}
    wanted = {to_key(key).to_user_string(): key for key in state.inputs}
    if known.get("dagster/data_version") != state.data_version or set(inputs) != set(wanted):
        return False
    for name, key in wanted.items():
        if key in state.changed_inputs:
            if inputs[name] == current[key]:
                return False
        elif inputs[name] != state.inputs[key]:
            return False
    return known.get("dagster/code_version") == state.code_version


def _stage_events(dvc: DvcProject, stage: Stage, state: StageState, locked: LockedStage | None) -> list[Event]:
    stage = without_wrong_meta(stage)
    metrics = read_metrics(dvc.folder, stage)
    metadata = result_metadata(dvc.folder, stage, locked, metrics, how="outside Dagster") | explanation(stage, state)
    tags = version_tags(state)
    made = dg.AssetMaterialization(asset_key=to_key(asset_key(stage)), metadata=metadata, tags=tags)
    try:
        return [made, *(_evaluation(result) for result in check_results(dvc.folder, stage, metrics))]
    except PipelineError:
        return [made]  # its asset carries the message


def _observation(stage: Stage, state: StageState) -> dg.AssetObservation:
    description = "; ".join(state.why) or "as dvc.lock records it"
    return dg.AssetObservation(
        asset_key=to_key(asset_key(stage)),
        description=description[:1000],
        metadata=explanation(stage, state),
        tags={STATUS_TAG: version_tags(state)[STATUS_TAG]},
    )


def _told_status(instance: dg.DagsterInstance, stage: Stage, known: Mapping[str, str]) -> str | None:
    """What the instance was told last of why a stage is stale."""
    key = to_key(asset_key(stage))
    observed = instance.fetch_observations(key, limit=1).records
    made = instance.fetch_materializations(key, limit=1).records
    if observed and made and observed[0].storage_id > made[0].storage_id:
        return (observed[0].event_log_entry.tags or {}).get(STATUS_TAG)
    return known.get(STATUS_TAG)


def _evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    assert result.asset_key is not None and result.check_name is not None
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=dict(result.metadata),
    )
