"""Puts assets, sources, sensor and executor together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from .assets import stage_assets
from .automation import automation_definitions
from .config_types import Schema
from .errors import BridgeError, PipelineError
from .executor import pipeline_executor
from .experiment_jobs import experiment_jobs
from .fallback import fallback_definitions
from .pipeline import Pipeline, find_project, read_pipeline
from .remote import remote_definitions
from .resources import DvcProject
from .state_sensor import dvc_state
from .translator import source_spec
from .workspace import all_sources, asset_key


def build_definitions(
    root: Path | None = None, *, fallback: Path | None = None, schema: Schema | None = None, preload: Sequence[str] = ()
) -> dg.Definitions:
    """Build everything from ``dvc.yaml``.

    If it cannot be used, the code location loads nevertheless: with an asset that says why, and with what ``dvc.lock``
    records. A stage with a mistake in ``meta`` has an asset that says so; the others work.

    Args:
        root: folder that holds ``dvc.yaml``; without it, :func:`.pipeline.find_project` searches.
        fallback: folder to take if the search finds none.
        schema: what ``params.yaml`` may hold; without it, overrides are typed by the values that stand there.
        preload: modules that a step worker finds loaded: a forked one costs about 1.2 s then, a spawned one 2.7 s.
    """
    try:
        root = root or find_project(fallback=fallback)
        pipeline = read_pipeline(root)
        require_distinct_keys(pipeline)
        assets = stage_assets(pipeline)
        experiments = experiment_jobs(pipeline, schema or Schema())
    except BridgeError as error:
        logging.getLogger(__name__).error("%s", error)
        return fallback_definitions(root, error)
    sources = [source_spec(source) for source in all_sources(pipeline).values()]
    everything = dg.define_asset_job(
        "pipeline", selection=dg.AssetSelection.all(), description="The whole pipeline: what `dvc repro` runs."
    )
    described = dg.Definitions(
        assets=[*assets, *sources],
        jobs=[everything, *experiments],
        sensors=[dvc_state],
        resources={"dvc": DvcProject(root=str(root))},
        executor=pipeline_executor(pipeline, preload),
    )
    automation = automation_definitions(pipeline, job=everything)
    return dg.Definitions.merge(described, automation, remote_definitions(pipeline))


def require_distinct_keys(pipeline: Pipeline) -> None:
    """Refuse names of stages that differ only in characters that Dagster does not allow.

    Raises:
        PipelineError: two stages, or a stage and an input, would be one asset.
    """
    seen: dict[tuple[str, ...], str] = {key: f"input {'/'.join(key)}" for key in all_sources(pipeline)}
    for stage in pipeline.stages:
        other = seen.setdefault(asset_key(stage), stage.name)
        if other != stage.name:
            raise PipelineError(
                f"dvc.yaml: {stage.name} and {other} would both be the asset {'/'.join(asset_key(stage))}",
                remedy="rename one of them",
            )
