"""What runs by itself: the sensor that keeps Dagster's picture equal to DVC's."""

import dagster as dg

from .errors import BridgeError
from .resources import DvcProject
from .sync import pending_events

SYNC_INTERVAL_S = 10
_ACTIVE = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


@dg.sensor(
    name="dvc_state",
    minimum_interval_seconds=SYNC_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports what changed outside Dagster: stages that `dvc repro` ran, edited params, code and inputs.",
)
def dvc_state(context: dg.SensorEvaluationContext, dvc: DvcProject) -> dg.SensorResult | dg.SkipReason:
    """Report pending events; while a run is active its stages report themselves."""
    active = context.instance.get_runs_count(dg.RunsFilter(statuses=_ACTIVE)) > 0
    try:
        events = pending_events(context.instance, dvc, stages=not active)
    except BridgeError as error:
        return dg.SkipReason(str(error))
    if not events:
        return dg.SkipReason("Dagster and dvc.lock agree")
    return dg.SensorResult(asset_events=events)
