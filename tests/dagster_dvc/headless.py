"""A Dagster daemon of a project in a temporary folder, as a server would run it: no UI, no person."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorTick

ROOT = Path(__file__).resolve().parents[2]
#: Wide: the tests share the machine with others. Nothing asserts how long something takes.
PATIENCE_S = 900.0
DEFINITIONS = """\
from pathlib import Path
from dagster_project.dagster_dvc import build_definitions
defs = build_definitions(Path(__file__).resolve().parent)
"""


def environment(project: Path, **more: str) -> dict[str, str]:
    """Environment of a service: nothing of the person who runs the tests."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(project.parent),
        "PYTHONPATH": f"{project}:{ROOT}",
        "DAGSTER_HOME": str(project / ".dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ},
        **more,
    }


def prepare(project: Path, settings: Path = ROOT / "dagster_project/dagster.yaml") -> Path:
    """Give a project a module of definitions and a home for Dagster."""
    home = project / ".dagster"
    home.mkdir(exist_ok=True)
    shutil.copy(settings, home / "dagster.yaml")
    (project / "headless_definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    return home


@contextmanager
def daemon(project: Path, *, module: str = "headless_definitions", **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running daemon with a code server of its own; its output goes to ``daemon.log`` beside the project."""
    with (project.parent / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "dagster-daemon", "run", "-m", module, "-d", str(project)],
            cwd=project,
            env=environment(project, **more),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon as a service manager does, and what is left of its group after some seconds."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], bool], what: str, *, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something holds; fail with the end of the daemon's log if the daemon ends or patience does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        alive, text = process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        if not alive or "Error loading repository location" in text or time.monotonic() > deadline:
            raise AssertionError(f"{'no' if alive else 'the daemon ended before'} {what}\n{text[-6000:]}")
        time.sleep(0.5)


def ticks(instance: dg.DagsterInstance, sensor: str) -> Sequence[InstigatorTick]:
    """Finished looks of a sensor, the latest first."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.instigator_name == sensor:
            found = instance.get_ticks(state.instigator_origin_id, state.selector_id)
            return [tick for tick in found if tick.status.value != "STARTED"]
    return []


def runs(instance: dg.DagsterInstance, trigger: str) -> list[dg.DagsterRun]:
    """Runs that a schedule or sensor of the bridge asked for, the latest first."""
    return list(instance.get_runs(dg.RunsFilter(tags={"dvc/trigger": trigger})))


def how(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str]:
    """Of each asset that a run materialized: executed, unchanged, …"""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    found = {}
    for record in records:
        event = record.event_log_entry.dagster_event
        assert event is not None and event.asset_key is not None
        made = event.step_materialization_data.materialization
        found[event.asset_key.to_user_string()] = str(made.metadata["run"].value)
    return found
