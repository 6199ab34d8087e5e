"""One asset a stage: materializing it runs the stage through DVC.

One step each, so that a failed check stops what follows and independent stages run side by side. A stage that DVC
finds unchanged is materialized again with the version that it has, and says so.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of `config` and resources as objects.
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.check import CheckError
from pydantic import Field

from .checks import check_results, read_metrics
from .errors import BridgeError, PipelineError
from .explain import explanation
from .lock_repair import mend
from .meta import wrong_meta
from .pipeline import Pipeline, Stage
from .pipes import pipes_environment
from .resources import DvcProject
from .runner import UNCHANGED, Outcome, run_stage
from .translator import asset_spec, check_specs, result_metadata, version_tags
from .workspace import StageState

#: Run tag that forces stages of a run: "true" for all, or their names, separated by commas.
FORCE_TAG = "dvc/force"


def is_forced(tags: Mapping[str, str], name: str) -> bool:
    """Tell whether the tags of a run force a stage."""
    value = tags.get(FORCE_TAG, "")
    return value == "true" or name in {part.strip() for part in value.split(",")}


class StageConfig(dg.Config):
    """What may be chosen in the launchpad."""

    force: bool = Field(default=False, description="run the stage even if DVC finds nothing changed")


def stage_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """Build the assets of all stages; that of a stage whose ``meta`` cannot be used says so, and fails."""
    return [_asset_or_message(pipeline, stage) for stage in pipeline.stages]


def _asset_or_message(pipeline: Pipeline, stage: Stage) -> dg.AssetsDefinition:
    try:
        return stage_asset(pipeline, stage)
    except PipelineError as error:
        wrong = error
    except (dg.DagsterError, CheckError, TypeError, ValueError, AttributeError, KeyError) as error:
        wrong = wrong_meta(stage, f"meta cannot be used: {' '.join(str(error).split())}")
    logging.getLogger(__name__).error("%s", wrong)
    plain = asset_spec(pipeline, replace(stage, meta={}))
    description = f"**{wrong.what}**\n\nRemedy: {wrong.remedy}. Then reload the code location.\n\n{plain.description}"

    @dg.asset(key=plain.key, deps=plain.deps, description=description, code_version=plain.code_version, kinds={"error"})
    def say_what_is_wrong() -> None:
        raise dg.Failure(description=str(wrong), allow_retries=False)

    return say_what_is_wrong


def stage_asset(pipeline: Pipeline, stage: Stage) -> dg.AssetsDefinition:
    """Build the asset of one stage."""
    spec = asset_spec(pipeline, stage)

    @dg.asset(
        key=spec.key,
        deps=spec.deps,
        description=spec.description,
        group_name=spec.group_name,
        kinds=set(spec.kinds),
        owners=spec.owners,
        tags={name: value for name, value in spec.tags.items() if not name.startswith("dagster/kind/")},
        code_version=spec.code_version,
        metadata=spec.metadata,
        check_specs=check_specs(stage),
        pool=stage.meta.get("pool"),
    )
    def run_through_dvc(context: dg.AssetExecutionContext, config: StageConfig, dvc: DvcProject) -> Iterator[Any]:
        forced = is_forced(context.run.tags, stage.name)
        yield from materialize(context, stage, dvc, force=config.force or forced)

    return run_through_dvc


def materialize(
    context: dg.AssetExecutionContext, stage: Stage, dvc: DvcProject, *, force: bool
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    """Run a stage and yield what Dagster is to know of it.

    A stage that fails after it wrote its report (a critical expectation) still has its checks shown.

    Raises:
        dagster.Failure: the stage failed, or its state cannot be read.
    """
    before = _modified(dvc.folder, stage)
    try:
        outcome, state = _run(context, stage, dvc, force=force)
    except BridgeError as error:
        fresh = {path: m for path, m in _modified(dvc.folder, stage).items() if m != before.get(path)}
        metrics = {path: content for path, content in read_metrics(dvc.folder, stage).items() if path in fresh}
        if metrics:
            yield from check_results(dvc.folder, stage, metrics)
        raise dg.Failure(description=str(error), allow_retries=False) from None
    try:
        yield _result(stage, dvc, outcome, state or dvc.snapshot(only=stage.name).stages[stage.name])
    except BridgeError as error:
        raise dg.Failure(description=str(error)) from None


def _run(
    context: dg.AssetExecutionContext, stage: Stage, dvc: DvcProject, *, force: bool
) -> tuple[Outcome, StageState | None]:
    """Run a stage if it has to; one that did not has the state that told so."""
    for sentence in mend(dvc.folder):
        context.log.warning(sentence)
    if not force and not (state := dvc.snapshot(only=stage.name).stages[stage.name]).why:
        # What `dvc status` finds unchanged, `dvc repro` skips: no need to spend the second that starting it takes.
        context.log.info(f"Stage '{stage.name}' didn't change, skipping")
        return Outcome(how=UNCHANGED, seconds=0.0), state
    try:
        outcome = run_stage(
            stage.name,
            root=dvc.folder,
            force=force,
            on_line=context.log.info,
            on_message=lambda message: _show_progress(context, message),
            pipes=lambda messages: pipes_environment(context, messages, [context.asset_key]),
            patience_s=dvc.patience_s,
        )
    except BaseException as error:
        if not isinstance(error, Exception):
            # Cancelled: nothing runs any more, and the next run need not wait until Dagster's daemon frees the place.
            context.instance.event_log_storage.free_concurrency_slot_for_step(
                context.run_id, context.get_step_execution_context().step.key
            )
        raise
    return outcome, None


def _result(stage: Stage, dvc: DvcProject, outcome: Outcome, state: StageState) -> dg.MaterializeResult[Any]:
    locked = dvc.lock().get(stage.name)
    metrics = read_metrics(dvc.folder, stage)
    metadata = result_metadata(dvc.folder, stage, locked, metrics, how=outcome.how) | explanation(stage, state)
    if outcome.how != UNCHANGED:
        metadata["seconds"] = dg.MetadataValue.float(round(outcome.seconds, 2))
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=list(check_results(dvc.folder, stage, metrics)),
        data_version=dg.DataVersion(state.data_version),
        tags={name: value for name, value in version_tags(state).items() if name != "dagster/data_version"},
    )


def _show_progress(context: dg.AssetExecutionContext, message: Mapping[str, Any]) -> None:
    """Show a progress message in the run while the stage runs, with its figures as metadata."""
    figures = {str(name): _shown(value) for name, value in message.items() if isinstance(value, int | float | str)}
    context.log_event(dg.AssetObservation(asset_key=context.asset_key, metadata=figures))


def _shown(value: float | str) -> float | str:
    """A whole number that GraphQL's 32 bits cannot hold becomes a float: the UI would leave it out of its plots."""
    return float(value) if isinstance(value, int) and abs(value) >= 2**31 else value


def _modified(root: Path, stage: Stage) -> dict[str, int]:
    """Modification times of the metrics files that exist, ns."""
    return {path: (root / path).stat().st_mtime_ns for path in stage.metrics if (root / path).exists()}
