"""Sends data and models to a remote and fetches them: jobs ``push`` and ``pull``, and a push after each promotion.

A stage whose ``meta`` in ``dvc.yaml`` has ``push: true`` is one after which the remote is to hold everything: the
sensor ``push_promoted`` (off until somebody switches it on) starts ``push`` when its latest version passed all checks.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of `config` and resources as objects.
import re
import sys
from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from .errors import BridgeError, RemoteError, StageFailed
from .pipeline import Pipeline, Stage
from .resources import DvcProject
from .runner import run_command
from .translator import checks_of, to_key
from .workspace import asset_key

_INTERVAL_S = 30
#: DVC's words for a cause, and what to do about it; the first that is found is shown.
_REMEDIES = (
    (
        r"no remote specified|No remote provided|config file error: no remote",
        "name a remote: `dvc remote add --default store /path/or/s3://bucket`",
    ),
    (r"remote '.*' doesn't exist|remote '.*' not found", "`dvc remote list` shows the names; correct `remote`"),
    (
        r"is supported,? but requires|No module named '(s3fs|dvc_s3)'",
        "install what this kind of remote needs, such as `pip install dvc-s3`",
    ),
    (
        r"Could not connect|Connection refused|Cannot connect|Connect call failed|ConnectionError|timed out",
        "start or reach the remote's server (`dvc remote list` shows its address), then run the job again: "
        "what was already sent is not sent twice",
    ),
    (
        r"Unable to (locate|find) credentials|Access ?Denied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch",
        "give credentials that may use the bucket (`AWS_PROFILE`, `AWS_ACCESS_KEY_ID` or `dvc remote modify --local`)",
    ),
    (r"NoSuchBucket|bucket does not exist|Bucket '.*' does not exist", "create the bucket or correct the remote's url"),
    (
        r"without a confirmation",
        "files in the workspace would be lost: `dvc commit` keeps them, `dvc checkout --force` gives them up",
    ),
    (
        r"failed to pull data|Checkout failed|missing-files|Missing cache files|not found in remote",
        "somebody has to `dvc push` what dvc.lock names, from the place where it was made",
    ),
)


class TransferConfig(dg.Config):
    """What may be chosen in the launchpad."""

    remote: str = Field(default="", description="name of the remote; empty for the default one")
    jobs: int = Field(default=0, ge=0, description="number of parallel transfers; 0 leaves it to DVC")
    run_cache: bool = Field(default=True, description="also transfer the results of runs that dvc.lock does not name")


def remote_definitions(pipeline: Pipeline) -> dg.Definitions:
    """Build the jobs ``push`` and ``pull`` and, if a stage asks for it, the sensor ``push_promoted``."""
    promoted = [stage for stage in pipeline.stages if stage.meta.get("push") is True]
    sensors = [push_sensor(promoted)] if promoted else []
    return dg.Definitions(jobs=[push, pull], sensors=sensors)


def transfer_command(direction: str, config: TransferConfig) -> list[str]:
    """Command line of ``dvc push`` or ``dvc pull``."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", direction]
    command += ["--run-cache"] if config.run_cache else []
    command += ["--remote", config.remote] if config.remote else []
    return [*command, "--jobs", str(config.jobs)] if config.jobs else command


def transfer(context: dg.OpExecutionContext, direction: str, config: TransferConfig, dvc: DvcProject) -> None:
    """Run ``dvc push`` or ``dvc pull`` with its output live in the log.

    Raises:
        dagster.Failure: it failed; the message names cause and remedy.
    """
    try:
        lines = run_command(
            transfer_command(direction, config),
            root=dvc.folder,
            subject=f"dvc {direction}",
            remedy="correct what the last lines name, then run the job again",
            on_line=context.log.info,
            patience_s=dvc.patience_s,
        )
    except StageFailed as error:
        raise dg.Failure(description=str(explain(error)), allow_retries=False) from None
    except BridgeError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    summary = next((line for line in reversed(lines) if re.search(r"\d+ file|up to date", line)), "done")
    context.add_output_metadata({"result": summary, "remote": config.remote or "default"})


def explain(error: StageFailed) -> BridgeError:
    """Say what to do about the cause that DVC names."""
    remedy = next((remedy for words, remedy in _REMEDIES if re.search(words, error.what)), error.remedy)
    return RemoteError(error.what, remedy=remedy)


@dg.op(name="dvc_push", description="`dvc push`: sends what dvc.lock names to the remote.")
def push_op(context: dg.OpExecutionContext, config: TransferConfig, dvc: DvcProject) -> None:
    """Send."""
    transfer(context, "push", config, dvc)


@dg.op(name="dvc_pull", description="`dvc pull`: fetches what dvc.lock names from the remote into the workspace.")
def pull_op(context: dg.OpExecutionContext, config: TransferConfig, dvc: DvcProject) -> None:
    """Fetch."""
    transfer(context, "pull", config, dvc)


@dg.job(name="push", description="Sends data, models and reports that dvc.lock names to the remote (`dvc push`).")
def push() -> None:
    """Send."""
    push_op()


@dg.job(name="pull", description="Fetches data, models and reports that dvc.lock names from the remote (`dvc pull`).")
def pull() -> None:
    """Fetch."""
    pull_op()


def push_sensor(stages: Sequence[Stage]) -> dg.SensorDefinition:
    """Start ``push`` once for each version that one of these stages made and whose checks all passed."""
    names = ", ".join(stage.name for stage in stages)

    @dg.sensor(
        name="push_promoted",
        job=push,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Pushes to the remote after a successful promotion: {names}.",
    )
    def push_promoted(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        requests, reasons = [], []
        for stage in stages:
            version, reason = promoted_version(context.instance, stage)
            if version is None:
                reasons.append(f"{stage.name}: {reason}")
            else:
                # Dagster starts one run for a key, ever; a key that was used is skipped.
                requests.append(dg.RunRequest(run_key=f"push-{stage.name}-{version}", tags={"dvc/push": stage.name}))
        return dg.SensorResult(run_requests=requests, skip_reason="; ".join(reasons) if not requests else None)

    return push_promoted


def promoted_version(instance: dg.DagsterInstance, stage: Stage) -> tuple[str | None, str]:
    """Data version that a stage made last, if all its checks passed; else ``None`` and the reason."""
    key = to_key(asset_key(stage))
    event = instance.get_latest_materialization_event(key)
    materialization = event.asset_materialization if event else None
    if materialization is None:
        return None, "was never materialized"
    for check in checks_of(stage):
        check_key = dg.AssetCheckKey(asset_key=key, name=check.name)
        records = instance.event_log_storage.get_asset_check_execution_history(check_key, limit=1)
        evaluation = records[0].event.asset_check_evaluation if records and records[0].event else None
        if evaluation is None or not evaluation.passed:
            return None, f"check {check.name} did not pass"
    return str((materialization.tags or {}).get("dagster/data_version")), ""
