"""Jobs for the launchpad: run the pipeline with other parameters, and bring such a result into the workspace."""

# No `from __future__ import annotations` here: Dagster reads the annotations of resources as objects.
import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from . import experiments
from .checks import all_metrics
from .config_types import Schema, read_params
from .errors import BridgeError
from .markdown import table
from .pipeline import Pipeline
from .pipes import pipes_environment
from .resources import DvcProject
from .sync import report
from .translator import flatten

_EXPERIMENT_TEXT = """Run the pipeline, or the stages in `targets`, with other parameters, as a DVC experiment.

The workspace stays as it is. `dvc exp show` lists the result beside others; the job `apply_experiment` brings it in."""
_APPLY_TEXT = "Bring parameters and results of an experiment into the workspace: `dvc exp apply`."


def experiment_jobs(pipeline: Pipeline, schema: Schema) -> list[dg.JobDefinition]:
    """Build the jobs ``experiment`` and ``apply_experiment``; their config is checked in the launchpad.

    Raises:
        OverrideError: ``params.yaml`` cannot be read.
    """
    sections = tuple(dict.fromkeys(p.key.split(".")[0] for s in pipeline.stages for p in s.parameters if p.key))
    params = schema.fields(read_params(pipeline.root), sections)
    names = [*dict.fromkeys([stage.parts[0] for stage in pipeline.stages] + [stage.name for stage in pipeline.stages])]
    return [_experiment_job(schema, params, names), _apply_job()]


def _experiment_job(schema: Schema, params: Mapping[str, dg.Field], stages: list[str]) -> dg.JobDefinition:
    target = dg.Enum("stage", [dg.EnumValue(name) for name in stages])
    shape = dg.Shape(params)  # type: ignore[no-untyped-call]
    fields = {
        "params": dg.Field(shape, is_required=False, description="what differs from params.yaml"),
        "targets": dg.Field([target], default_value=[], description="stages, with all that they need; none means all"),
        "name": dg.Field(str, default_value="", description="of the experiment; made of the run's id if empty"),
        "force": dg.Field(bool, default_value=False, description="run the targets even if nothing changed for them"),
    }

    @dg.op(name="run_experiment", config_schema=fields, description=_EXPERIMENT_TEXT)
    def run_experiment(context: dg.OpExecutionContext, dvc: DvcProject) -> None:
        config = context.op_config
        name = config["name"] or f"dagster-{context.run_id[:8]}"
        before = all_metrics(dvc.folder, dvc.pipeline())
        try:
            made = experiments.run(
                dvc.folder,
                name=name,
                overrides=config.get("params", {}),
                targets=tuple(config["targets"]),
                schema=schema,
                force=config["force"],
                on_line=context.log.info,
                pipes=lambda messages: pipes_environment(context, messages),
            )
        except BridgeError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        context.add_output_metadata(
            {
                "experiment": name,
                "parameters": dg.MetadataValue.md(changed_table(made.changed)),
                "metrics": dg.MetadataValue.md(metrics_table(before, made.metrics)),
                "commit": made.revision,
            }
        )
        context.log.info(f"Ran {name}; the job `apply_experiment`, or `dvc exp apply {name}`, brings it in")

    return _job("experiment", _EXPERIMENT_TEXT, fields, run_experiment)


def _apply_job() -> dg.JobDefinition:
    fields = {
        "name": dg.Field(str, description="of the experiment, as `dvc exp show` lists it"),
        "force": dg.Field(bool, default_value=False, description="overwrite files that were edited since it began"),
    }

    @dg.op(name="bring_in_experiment", config_schema=fields, description=_APPLY_TEXT)
    def apply_experiment(context: dg.OpExecutionContext, dvc: DvcProject) -> None:
        config = context.op_config
        try:
            experiments.apply(dvc.folder, name=config["name"], force=config["force"], on_line=context.log.info)
            count = report(context.instance, dvc)
        except BridgeError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        context.log.info(f"{count} assets have new versions")

    return _job("apply_experiment", _APPLY_TEXT, fields, apply_experiment)


def _job(name: str, about: str, fields: Mapping[str, dg.Field], op: dg.OpDefinition) -> dg.JobDefinition:
    """A job of one op whose config is the job's own: the launchpad then shows no `ops: … config:` around it."""
    mapping = dg.ConfigMapping(
        config_fn=lambda config: {"ops": {op.name: {"config": config}}},
        config_schema=dict(fields),
        receive_processed_config_values=False,
    )

    @dg.job(name=name, description=about, config=mapping)
    def one_op() -> None:
        op()

    return one_op


def changed_table(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Markdown table of changed parameters."""
    rows = [{"parameter": key, "workspace": before, "experiment": after} for key, (before, after) in changed.items()]
    return table(rows) if rows else "none"


def metrics_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Markdown table of the metrics that differ between workspace and experiment."""
    rows = []
    for path, content in after.items():
        old, new = (flatten(c) for c in (before.get(path), content))
        for key, value in new.items():
            was, now = _plain(old.get(key)), _plain(value)
            if was != now:
                rows.append({"metric": f"{path}: {key}", "workspace": was, "experiment": now})
    return table(rows) if rows else "no metric differs"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(getattr(value, "value", value), default=str))
