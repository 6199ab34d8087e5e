"""What starts runs by itself: the schedule and the sensors that section ``automation`` of ``params.yaml`` describes.

All ask for the same job. Dagster stores what a sensor remembers, so that it goes on after a restart where it was.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from .assets import FORCE_TAG
from .errors import BridgeError, SettingsError
from .new_rows import new_rows
from .notify import notification_sensors
from .pipeline import Pipeline
from .settings import Drift, NewFiles, NewRows, Schedule, read_settings
from .triggers import Decision, Memory, drift, new_files

#: Run tags that tell what started a run, and on which data.
TRIGGER_TAG, DATA_TAG = "dvc/trigger", "dvc/data"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ON, _OFF = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED

S = TypeVar("S", NewFiles, NewRows, Drift)
Job = Any  # what dg.define_asset_job returns, which has no public name


def automation_definitions(pipeline: Pipeline, *, job: Job) -> dg.Definitions:
    """Build schedule, sensors and notifications.

    If the section cannot be used, nothing runs by itself, and an asset says why.

    Args:
        pipeline: whose project's ``params.yaml`` is read.
        job: what a schedule or sensor starts; it must run all stages.
    """
    try:
        settings = read_settings(pipeline)
    except SettingsError as error:
        logging.getLogger(__name__).error("%s", error)
        return dg.Definitions(assets=[_message(error)])
    sensors: list[dg.SensorDefinition] = []
    root = pipeline.root
    if settings.new_files is not None:
        text = f"Starts a run when `{settings.new_files.folder}` holds something that no stage has run on."
        sensors.append(_sensor("new_files", settings.new_files, new_files, text, root=root, job=job))
    if settings.new_rows is not None:
        text = f"Starts a run that forces `{settings.new_rows.stage}` when the table `{settings.new_rows.table}` grows."
        sensors.append(_sensor("new_rows", settings.new_rows, new_rows, text, root=root, job=job))
    if settings.drift is not None:
        text = f"Starts a run when `{settings.drift.key}` in `{settings.drift.file}` is `{settings.drift.value}`."
        sensors.append(_sensor("drift", settings.drift, drift, text, root=root, job=job))
    if settings.notify is not None:
        sensors += notification_sensors(settings.notify, root=root)
    schedules = [_schedule(settings.schedule, job=job)] if settings.schedule is not None else []
    return dg.Definitions(schedules=schedules, sensors=sensors)


def _message(error: SettingsError) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=dg.AssetKey(["automation_cannot_be_used"]),
        group_name="pipeline",
        description=f"**{error.what}**\n\nRemedy: {error.remedy}. Until then nothing runs by itself.",
    )


def _schedule(settings: Schedule, *, job: Job) -> dg.ScheduleDefinition:
    @dg.schedule(
        name="retraining",
        job=job,
        cron_schedule=settings.cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if settings.enabled else dg.DefaultScheduleStatus.STOPPED,
        description=f"Runs the pipeline at `{settings.cron}` ({settings.timezone}); what has not changed is skipped.",
    )
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        # Only the same job: a run of some stages does not stand for the whole, and a step waits for its files.
        same = dg.RunsFilter(statuses=_UNFINISHED, job_name=job.name)
        if runs := context.instance.get_runs(same, limit=1):
            return dg.SkipReason(f"run {runs[0].run_id} of {job.name} is not finished")
        return dg.RunRequest(tags=_tags("schedule", stage=settings.stage))

    return evaluate


def _sensor(
    name: str,
    settings: S,
    decide: Callable[[Path, S, Memory], Decision],
    description: str,
    *,
    root: Path,
    job: Job,
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=settings.interval_s,
        default_status=_ON if settings.enabled else _OFF,
        description=f"{description} The run waits until others of this project have ended.",
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # Before anything is read: a run changes what would be compared.
        if run := unfinished_run(context):
            return dg.SkipReason(f"run {run} is not finished; its result decides what is new")
        memory = _memory(context.cursor)
        try:
            decision = decide(root, settings, memory)
        except BridgeError as error:
            context.log.warning(str(error))
            return dg.SkipReason(str(error))
        if decision.data is None:
            return dg.SensorResult(skip_reason=decision.reason, cursor=json.dumps(decision.memory))
        context.log.info(decision.reason)
        number = memory["requests"] + 1
        request = dg.RunRequest(
            # Dagster makes one run of a key, also if it was stopped between the run and the note of it. The number
            # lets data that were there before, and come back after others, be run on again.
            run_key=f"{memory['epoch']}-{number}-{decision.data}",
            tags=_tags(name, data=decision.data, stage=decision.stage),
        )
        return dg.SensorResult(run_requests=[request], cursor=json.dumps({**decision.memory, "requests": number}))

    return evaluate


def unfinished_run(context: dg.SensorEvaluationContext) -> str | None:
    """Id of a run of this code location, or of one without any (from a command line), that is queued or at work."""
    here = context.code_location_origin.location_name if context.code_location_origin else None
    for run in context.instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        origin = run.remote_job_origin
        where = origin.repository_origin.code_location_origin.location_name if origin else None
        if here is None or where is None or where == here:
            return run.run_id
    return None


def _tags(trigger: str, *, data: str | None = None, stage: str | None = None) -> Mapping[str, str]:
    tags = {TRIGGER_TAG: trigger, DATA_TAG: data, FORCE_TAG: stage}
    return {name: value for name, value in tags.items() if value is not None}


def _memory(cursor: str | None) -> dict[str, Any]:
    """What the last tick left; a cursor that somebody edited or reset in the UI starts afresh."""
    try:
        memory = json.loads(cursor) if cursor else None
    except ValueError:
        memory = None
    if isinstance(memory, dict) and {"epoch", "requests"} <= set(memory):
        return memory
    return {"epoch": uuid.uuid4().hex[:8], "requests": 0}
