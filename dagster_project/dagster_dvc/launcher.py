"""A run launcher that notices when a run's process died together with the server that started it.

Dagster's own launcher starts runs inside the code server, which reports those that die under it, but nobody reports
those that die with it: after a reboot they would count as started until ``max_runtime_seconds`` is over, hold their
places in queue and pools, and keep the sensors waiting. With this launcher in ``dagster.yaml``, run monitoring marks
them as failed, and ``run_retries`` may start them again::

    run_launcher:
      module: dagster_project.dagster_dvc.launcher
      class: WatchedRunLauncher

Daemon and code server must see each other's processes: one machine, not one container each.
"""

# No `from __future__ import annotations` here: Dagster reads the class when it loads dagster.yaml.
import dagster as dg
import psutil
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster_shared.serdes import deserialize_value

_QUESTION_S = 10


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher, with an answer to the question whether a run's process lives."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Look for the process that reported the start, then ask the server; a run that neither knows is dead.

        Neither alone will do: a server that was reloaded forgets the runs of its predecessor, which still go on.
        """
        if self._process_lives(run) or self._server_knows(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process has ended without a word")

    def _process_lives(self, run: dg.DagsterRun) -> bool:
        started = self._instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_START).records
        if not started:
            return True  # it is being started; start_timeout_seconds is the limit for that
        entry = started[-1].event_log_entry
        pid = entry.dagster_event.pid if entry.dagster_event else None
        try:
            process = psutil.Process(pid or 0)
            # One that was born after the report has got the number of one that is gone.
            return bool(process.create_time() <= entry.timestamp and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def _server_knows(self, run: dg.DagsterRun) -> bool:
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return False
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_QUESTION_S)
        except DagsterUserCodeUnreachableError:
            return False
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel
