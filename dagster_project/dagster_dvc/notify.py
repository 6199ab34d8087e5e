"""Tells a log file and a webhook how runs ended. A message that cannot be delivered breaks and stops nothing."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from .settings import Notify

_TIMEOUT_S = 5.0
_PAUSES_S = (0.0, 0.5, 1.0)
#: For all tries of one message: a tick may carry five messages and is given up by Dagster after 60 s.
_BUDGET_S = 10.0
_INTERVAL_S = 10
_ERROR_CHARACTERS = 2000
_STATUS = {
    "success": dg.DagsterRunStatus.SUCCESS,
    "failure": dg.DagsterRunStatus.FAILURE,
    "canceled": dg.DagsterRunStatus.CANCELED,
}


def notification_sensors(settings: Notify, *, root: Path) -> list[dg.SensorDefinition]:
    """Build one run status sensor for each end of a run; those that ``events`` does not list are off."""
    return [_sensor(settings, event, root=root) for event in _STATUS]


def _sensor(settings: Notify, event: str, *, root: Path) -> dg.SensorDefinition:
    on = settings.enabled and event in settings.events
    where = " and ".join(
        text
        for text in (settings.log and f"`{settings.log}`", settings.webhook_from and f"`${settings.webhook_from}`")
        if text
    )

    @dg.run_status_sensor(
        run_status=_STATUS[event],
        name=f"notify_{event}",
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        description=f"Tells {where} of each run of this code location that ends with {event}.",
    )
    def evaluate(context: dg.RunStatusSensorContext) -> None:
        # Whatever happens here, Dagster moves on to the next run and the tick keeps its place.
        try:
            problems = deliver(message(context, event, settings), settings, root=root)
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        for problem in problems:
            context.log.warning(f"run {context.dagster_run.run_id}: not notified: {problem}")

    return evaluate


def message(context: dg.RunStatusSensorContext, event: str, settings: Notify) -> dict[str, Any]:
    """What is told of a run; ``text`` is the line that chat programs show."""
    run = context.dagster_run
    failures = [
        entry.event_log_entry.dagster_event
        for entry in context.instance.get_records_for_run(
            run_id=run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
        ).records
    ]
    failed = sorted({failure.step_key for failure in failures if failure is not None and failure.step_key})
    errors = [_explain(failure.step_failure_data) for failure in failures if failure is not None]
    address = os.environ.get(settings.link_from, "").rstrip("/") if settings.link_from else ""
    error = "\n".join(errors) or (context.dagster_event.message if event != "success" else None)
    told: dict[str, Any] = {
        "time": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "run_id": run.run_id,
        "job": run.job_name,
        "status": event,
        "trigger": run.tags.get("dvc/trigger") or run.tags.get("dagster/schedule_name") or "by hand",
        "error": error[:_ERROR_CHARACTERS] if error else None,
        "failed_assets": failed,
        "link": f"{address}/runs/{run.run_id}" if address else None,
    }
    what = f" ({', '.join(failed)})" if failed else ""
    told["text"] = f"{run.job_name}: {event}{what} {told['link'] or run.run_id}"
    return told


def deliver(told: Mapping[str, Any], settings: Notify, *, root: Path) -> list[str]:
    """Write and send a message; return what went wrong, without the webhook's address, which is a secret."""
    problems = []
    line = json.dumps(told, ensure_ascii=False)
    if settings.log is not None:
        path = root / settings.log
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    if settings.webhook_from is not None:
        address = os.environ.get(settings.webhook_from, "")
        if not address.startswith(("http://", "https://")):
            problems.append(f"the environment variable {settings.webhook_from} holds no http(s) address")
        elif problem := post(address, line):
            problems.append(f"webhook of {settings.webhook_from}: {problem}")
    return problems


def post(address: str, body: str) -> str | None:
    """Send JSON by POST, up to three times; return the last problem, or nothing if it arrived.

    A refusal (HTTP 4xx, but for 408 and 429) is not repeated.
    """
    deadline = time.monotonic() + _BUDGET_S
    problem = "no time left"
    for pause in _PAUSES_S:
        time.sleep(pause)
        left = deadline - time.monotonic()
        if left <= 0:
            break
        headers = {"Content-Type": "application/json"}
        try:  # S310: the caller lets only http and https through
            request = urllib.request.Request(address, data=body.encode(), headers=headers, method="POST")  # noqa: S310
            with urllib.request.urlopen(request, timeout=min(_TIMEOUT_S, left)):  # noqa: S310
                return None
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}"
            error.close()
            if error.code < 500 and error.code not in {408, 429}:
                break
        except OSError as error:  # URLError, timeouts, resets
            problem = str(getattr(error, "reason", error))
        except (ValueError, http.client.HTTPException) as error:
            # Messages of an address that is none repeat it.
            problem = f"not an address, or not HTTP ({type(error).__name__})"
    return problem


def _explain(failure: Any) -> str:
    """The stage's own message if the bridge raised it, else the exception's."""
    described = getattr(failure.user_failure_data, "description", None)
    return described or (failure.error.message.strip() if failure.error else "no message")
