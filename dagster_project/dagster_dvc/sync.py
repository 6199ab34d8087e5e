"""Tells Dagster what DVC did outside of it.

What ``dvc repro``, ``dvc checkout``, ``dvc pull`` or an editor changed is reported as runless materializations with
the versions of ``dvc.lock``. The sensor in :mod:`.state_sensor` reports the same events.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from .checks import check_results, read_metrics
from .pipeline import read_lock, read_pipeline
from .resources import DvcProject
from .translator import result_metadata, to_key, version_tags
from .workspace import asset_key, read_workspace, take_snapshot

#: Beginnings of the tags that hold versions; Dagster adds others of its own.
_VERSIONS = ("dagster/data_version", "dagster/code_version", "dagster/input_data_version/")

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


def pending_events(instance: dg.DagsterInstance, dvc: DvcProject, *, stages: bool = True) -> list[Event]:
    """List what the instance does not know yet.

    Args:
        instance: of Dagster.
        dvc: the project.
        stages: report stages too, not only sources; not while a run is reporting them itself.

    Raises:
        BridgeError: the project's state cannot be read.
    """
    pipeline = read_pipeline(dvc.folder)
    lock = read_lock(dvc.folder)
    snapshot = take_snapshot(pipeline, lock, read_workspace(pipeline))
    events: list[Event] = []
    for source, version in snapshot.sources.items():
        key, tags = to_key(source), {"dagster/data_version": version}
        if not _known(instance, key, tags):
            events.append(dg.AssetMaterialization(asset_key=key, tags=tags))
    for stage in pipeline.stages if stages else ():
        state = snapshot.stages.get(stage.name)
        if state is None:
            continue
        key, tags = to_key(asset_key(stage)), version_tags(state)
        if _known(instance, key, tags):
            continue
        metrics = read_metrics(dvc.folder, stage)
        metadata = result_metadata(dvc.folder, stage, lock[stage.name], metrics, how="outside Dagster")
        events.append(dg.AssetMaterialization(asset_key=key, metadata=metadata, tags=tags))
        events += [_evaluation(result) for result in check_results(stage, metrics)]
    return events


def report(instance: dg.DagsterInstance, dvc: DvcProject) -> int:
    """Report what is pending; return how many assets were brought up to date."""
    events = pending_events(instance, dvc)
    for event in events:
        instance.report_runless_asset_event(event)
    return sum(isinstance(event, dg.AssetMaterialization) for event in events)


def _known(instance: dg.DagsterInstance, key: dg.AssetKey, tags: Mapping[str, str]) -> bool:
    """Tell whether the latest materialization of an asset carries these versions and no others."""
    entry = instance.get_latest_materialization_event(key)
    if entry is None:
        return False
    known = {name: value for name, value in (entry.tags or {}).items() if name.startswith(_VERSIONS)}
    return known == {name: value for name, value in tags.items() if name.startswith(_VERSIONS)}


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
