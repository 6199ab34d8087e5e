"""Puts assets, sources, sensor and executor together."""

from __future__ import annotations

import logging
from pathlib import Path

import dagster as dg

from dagster_project.assets import stage_assets
from dagster_project.automation import dvc_state
from dagster_project.dvc_pipeline import Pipeline, find_project, read_pipeline
from dagster_project.errors import BridgeError, PipelineError
from dagster_project.resources import DvcProject
from dagster_project.translator import source_spec
from dagster_project.workspace import all_sources, asset_key

#: A forked step worker finds the modules loaded and costs about 1.2 s; a spawned one 2.7 s.
_EXECUTOR = dg.multiprocess_executor.configured(
    {"max_concurrent": 4, "start_method": {"forkserver": {"preload_modules": ["dagster_project.definitions"]}}}
)


def build_definitions(root: Path | None = None) -> dg.Definitions:
    """Build everything from ``dvc.yaml``.

    If it cannot be read, the code location loads nevertheless, with one asset that says why.
    """
    try:
        root = root or find_project()
        pipeline = read_pipeline(root)
        require_distinct_keys(pipeline)
        assets = stage_assets(pipeline)
    except BridgeError as error:
        logging.getLogger("dagster_project").error("%s", error)
        return dg.Definitions(assets=[_message(error)])
    sources = [source_spec(source) for source in all_sources(pipeline).values()]
    everything = dg.define_asset_job(
        "pipeline", selection=dg.AssetSelection.all(), description="The whole pipeline: what `dvc repro` runs."
    )
    return dg.Definitions(
        assets=[*assets, *sources],
        jobs=[everything],
        sensors=[dvc_state],
        resources={"dvc": DvcProject(root=str(root))},
        executor=_EXECUTOR,
    )


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


def _message(error: BridgeError) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=dg.AssetKey(["dvc_yaml_cannot_be_read"]),
        group_name="pipeline",
        description=f"**{error.what}**\n\nRemedy: {error.remedy}. Then reload the code location.",
    )
