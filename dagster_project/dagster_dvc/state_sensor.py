"""What runs by itself: the sensor that keeps Dagster's picture equal to DVC's."""

from collections.abc import Mapping

import dagster as dg

from .errors import BridgeError
from .lock_repair import mend
from .resources import DvcProject
from .sync import pending_events

SYNC_INTERVAL_S = 10


@dg.sensor(
    name="dvc_state",
    minimum_interval_seconds=SYNC_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports what changed outside Dagster: stages that `dvc repro` ran, edited params, code and inputs.",
)
def dvc_state(context: dg.SensorEvaluationContext, dvc: DvcProject) -> dg.SensorResult | dg.SkipReason:
    """Report pending events; a stage that is being made just now reports itself."""
    for sentence in mend(dvc.folder):
        context.log.warning(sentence)
    try:
        events = pending_events(context.instance, dvc, shown=_shown(context))
    except BridgeError as error:
        return dg.SkipReason(str(error))
    if not events:
        return dg.SkipReason("Dagster and DVC agree")
    return dg.SensorResult(asset_events=events)


def _shown(context: dg.SensorEvaluationContext) -> Mapping[dg.AssetKey, str | None]:
    """Code versions as the code location was loaded: Dagster compares with these until it is reloaded."""
    if context.repository_def is None:
        return {}
    graph = context.repository_def.asset_graph
    return {key: graph.get(key).code_version for key in graph.executable_asset_keys}
