"""The run launcher that notices runs whose process is gone. tests/deploy/test_postgres.py cuts the power for real."""

import os
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.launcher.base import WorkerStatus

from dagster_project.dagster_dvc.launcher import WatchedRunLauncher


@dg.job
def work() -> None:
    """A job that is never run here."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    launcher = {"module": "dagster_project.dagster_dvc.launcher", "class": "WatchedRunLauncher"}
    with dg.instance_for_test(overrides={"run_launcher": launcher}) as made:
        yield made


def judged(instance: dg.DagsterInstance, pid: int | None, **tags: str) -> WorkerStatus:
    """What the launcher says of a run whose start this process reported."""
    run = instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED, tags=tags)
    if pid is not None:
        event = DagsterEvent(event_type_value=DagsterEventType.RUN_START.value, job_name="work", pid=pid)
        instance.report_dagster_event(event, run.run_id)
    assert isinstance(instance.run_launcher, WatchedRunLauncher)
    return instance.run_launcher.check_run_worker_health(run).status


def test_a_run_whose_process_lives_is_left_alone(instance: dg.DagsterInstance) -> None:
    assert instance.run_launcher.supports_check_run_worker_health
    assert judged(instance, os.getpid()) is WorkerStatus.RUNNING
    assert judged(instance, None) is WorkerStatus.RUNNING, "it has not reported its start yet"


def test_a_run_whose_process_is_gone_is_dead(instance: dg.DagsterInstance) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert judged(instance, gone.pid) is WorkerStatus.NOT_FOUND
    nobody = '{"host": "localhost", "port": 1}'  # its server does not answer either
    assert judged(instance, gone.pid, **{".dagster/grpc_info": nobody}) is WorkerStatus.NOT_FOUND


def test_another_process_with_its_number_does_not_stand_for_it(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED)
    event = DagsterEvent(event_type_value=DagsterEventType.RUN_START.value, job_name="work", pid=os.getpid())
    long_ago = 1.0
    instance.report_dagster_event(event, run.run_id, timestamp=long_ago)
    assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.NOT_FOUND
