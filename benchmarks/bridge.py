"""What the bridge costs: a pipeline in which nothing changed, through `dvc repro` and through Dagster, interleaved.

Run it in a project that is up to date (`make run`); it changes nothing there. Prints medians with their spread, and the
ratios that DESIGN asks for: a memoised asset at most 1.5 s, a memoised pipeline at most 3 times `dvc repro`'s own no-op
time plus Dagster's launch, a no-op `dvc repro` under 2 s, the UI usable within 15 s.

    python benchmarks/bridge.py [--rounds 5] [--force report] [--ui]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dagster_project.dagster_dvc.pipeline import find_project, read_pipeline

PLAIN = "import dagster as dg\n\n\n@dg.asset\ndef nothing() -> None: ...\n\n\ndefs = dg.Definitions(assets=[nothing])\n"
QUERY = '{"query": "{ assetNodes { assetKey { path } } }"}'


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default: %(default)s)")
    parser.add_argument("--force", default="report", help="stage to force in the mixed run (default: %(default)s)")
    parser.add_argument("--ui", action="store_true", help="measure how long `make ui` takes as well (port 3210)")
    arguments = parser.parse_args()
    root = find_project()
    count = len(read_pipeline(root).stages)
    require_up_to_date(root)
    times: dict[str, list[float]] = {}
    with dagster_home(root) as environment, tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.py"
        plain.write_text(PLAIN)
        commands = {
            "dvc repro, nothing to do": ["dvc", "repro", "--quiet"],
            "Dagster's launch: one empty asset": ["dg", "launch", "--assets", "*", "-f", str(plain)],
            f"Dagster, {count} assets, nothing to do": ["dg", "launch", "--assets", "*"],
        }
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                times.setdefault(name, []).append(timed(command, root, environment))
            for seconds in memoised_steps(root, environment, forced=arguments.force):
                times.setdefault("a memoised asset in a run with work to do", []).append(seconds)
        if arguments.ui:
            times["make ui, until it lists the assets"] = [until_usable(root, environment)]
    show(times, count)


def show(times: dict[str, list[float]], count: int) -> None:
    """Print the table and the ratios."""
    width = max(map(len, times))
    for name, values in times.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:{width}}  {middle:6.2f} s  ({low:.2f} to {high:.2f}, {len(values)} measurements)")
    noop, launch, whole, *_ = (statistics.median(values) for values in times.values())
    print(f"\nmemoised pipeline beyond the launch: {whole - launch:.2f} s, {(whole - launch) / noop:.2f} x dvc repro")
    print(f"a memoised asset in it: {(whole - launch) / count:.2f} s")


def timed(command: list[str], root: Path, environment: dict[str, str]) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


def memoised_steps(root: Path, environment: dict[str, str], *, forced: str) -> list[float]:
    """Seconds from the start of a step's worker to its end, for each step that finds nothing to do."""
    config = json.dumps({"ops": {forced: {"config": {"force": True}}}})
    timed(["dg", "launch", "--assets", "*", "--config-json", config], root, environment)
    script = (
        "import dagster as dg, json\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    run = instance.get_runs(limit=1)[0]\n"
        "    logs = [(e.dagster_event, e.step_key, e.timestamp) for e in instance.all_logs(run.run_id)]\n"
        "rows = [(event.event_type_value, step, moment) for event, step, moment in logs if event is not None]\n"
        "print(json.dumps(rows))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    starts: dict[str, float] = {}
    found = []
    for kind, step, moment in json.loads(done.stdout.splitlines()[-1]):
        if kind == "STEP_WORKER_STARTING":
            starts[step] = moment
        elif kind == "STEP_SUCCESS" and step != forced:
            found.append(moment - starts[step])
    return found


def until_usable(root: Path, environment: dict[str, str]) -> float:
    """Seconds from `make ui` until the server lists the assets."""
    port = free_port()
    start = time.perf_counter()
    process = subprocess.Popen(
        ["make", "ui", f"PORT={port}", f"FILES_PORT={free_port()}", f"DAGSTER_HOME={environment['DAGSTER_HOME']}"],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while process.poll() is None:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/graphql", QUERY.encode(), {"Content-Type": "application/json"}
            )
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
                if len(json.load(answer)["data"]["assetNodes"]) > 1:
                    return time.perf_counter() - start
            time.sleep(0.1)
        sys.exit("make ui ended by itself")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=30)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def dagster_home(root: Path) -> Iterator[dict[str, str]]:
    """An environment with a Dagster instance of its own, so that the project's history is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(root / "dagster_project/dagster.yaml", Path(folder) / "dagster.yaml")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        yield {**os.environ, "PATH": path, "DAGSTER_HOME": folder, "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1"}


def require_up_to_date(root: Path) -> None:
    """Stop if anything would run."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=root, capture_output=True, text=True, check=False
    )
    if done.stdout.strip() != "{}":
        sys.exit(f"{root} is not up to date: `dvc repro` first\n{done.stdout[:500]}{done.stderr[:500]}")


if __name__ == "__main__":
    main()
