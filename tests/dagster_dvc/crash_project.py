"""A project whose middle stage takes its time in two processes, a driver that runs it through Dagster, and a killer.

Every process that a test starts carries a mark in its environment, so that whatever is left over is found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from dagster_project.dagster_dvc.assets import stage_assets
from dagster_project.dagster_dvc.pipeline import read_pipeline
from dagster_project.dagster_dvc.resources import DvcProject

ROOT = Path(__file__).resolve().parents[2]
MARK = "CRASH_PROJECT_MARK"
#: Only what runs under the supervisor has Pipes' variables.
UNDER_SUPERVISOR = "DAGSTER_PIPES_CONTEXT"
FILLER = 400


def command_of(process: psutil.Process) -> str:
    """The command line of a process; empty if it has ended since."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


DVC_YAML = """\
stages:
  first:
    cmd: mkdir -p out && echo first > out/first.txt
    params: [filler]
    outs: [out/first.txt]
  slow:
    cmd: python code/slow.py out/first.txt out/slow && echo done
    deps: [out/first.txt, code/slow.py]
    params: [round, chunks, pause_s]
    outs: [out/slow]
    meta: {pool: cores}
  other:
    cmd: python code/slow.py out/first.txt out/other
    deps: [out/first.txt, code/slow.py]
    params: [round, chunks, pause_s]
    outs: [out/other]
  last:
    cmd: cat out/slow/* out/first.txt > out/last.txt
    deps: [out/slow]
    outs: [out/last.txt]
"""
#: Parent and child write in turns; a lock that both hold makes a second run beside an orphan fail. It does not end
#: while the file ``gate`` exists.
SLOW_PY = """\
import fcntl, os, pathlib, signal, subprocess, sys, time
source, out = map(pathlib.Path, sys.argv[1:])
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
import re
settings = dict(re.findall(r"^(round|chunks|pause_s): (.*)$", pathlib.Path("params.yaml").read_text(), re.M))
pathlib.Path("held").mkdir(exist_ok=True)
guard = os.open(f"held/{out.name}", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("an orphan still writes " + str(out))
out.mkdir(parents=True, exist_ok=True)
print("pid", os.getpid(), flush=True)
text = f"{source.read_text().strip()} {settings['round']}\\n"
chunks, pause_s = int(settings["chunks"]), float(settings["pause_s"])
program = (
    "import os, signal, sys, time\\n"
    "if os.environ.get('STUBBORN'):\\n"
    "    signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
    "with open(sys.argv[1], 'w') as file:\\n"
    "    for number in range(int(sys.argv[2])):\\n"
    "        file.write(f'child {number} ' + sys.argv[4]); file.flush(); time.sleep(float(sys.argv[3]))\\n"
)
child = subprocess.Popen(
    [sys.executable, "-c", program, str(out / "child.txt"), str(chunks), str(pause_s), text], pass_fds=[guard]
)
with open(out / "parent.txt", "w") as file:
    for number in range(chunks):
        file.write(f"parent {number} {text}")
        file.flush()
        time.sleep(pause_s)
code = child.wait()
while os.path.exists("gate"):
    time.sleep(0.02)
sys.exit(code)
"""


def make_project(root: Path, *, chunks: int = 8, pause_s: float = 0.1) -> Path:
    """Write the project into an empty folder."""
    for folder in (".dvc", "code"):
        (root / folder).mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "code/slow.py").write_text(SLOW_PY)
    write_params(root, 0, chunks=chunks, pause_s=pause_s)
    return root


def write_params(root: Path, number: int, *, chunks: int = 8, pause_s: float = 0.1) -> None:
    """Set the round, which changes every stage; the filler makes dvc.lock large, and its rewriting slow."""
    filler = "".join(f"  key_{index}: value of this key {index}\n" for index in range(FILLER))
    (root / "params.yaml").write_text(f"round: {number}\nchunks: {chunks}\npause_s: {pause_s}\nfiller:\n{filler}")


def expected(number: int, *, chunks: int = 8) -> str:
    """Content of out/last.txt in a round."""
    child = "".join(f"child {index} first {number}\n" for index in range(chunks))
    parent = "".join(f"parent {index} first {number}\n" for index in range(chunks))
    return f"{child}{parent}first\n"


def definitions() -> dg.Definitions:
    """Definitions of the project that DVC_PROJECT names."""
    root = Path(os.environ["DVC_PROJECT"])
    start = {"forkserver": {"preload_modules": ["crash_project"]}}
    return dg.Definitions(
        assets=stage_assets(read_pipeline(root)),
        resources={"dvc": DvcProject(root=str(root))},
        jobs=[dg.define_asset_job("everything")],
        executor=dg.multiprocess_executor.configured({"max_concurrent": 4, "start_method": start}),
    )


def crash_job() -> dg.JobDefinition:
    """The job of all assets."""
    return definitions().resolve_job_def("everything")


def drive() -> None:
    """Execute the job once for each line of standard input; answer in a line of JSON."""
    instance = dg.DagsterInstance.get()
    instance.get_runs(limit=1)
    instance.all_asset_keys()
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    for line in sys.stdin:
        names = json.loads(line)
        selection = [dg.AssetKey([name]) for name in names] if names else None
        with dg.execute_job(
            dg.reconstructable(crash_job), instance=instance, asset_selection=selection, raise_on_error=False
        ) as result:
            made = {
                event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata["run"].value
                for event in result.filter_events(lambda e: e.is_step_materialization)
                if event.asset_key
            }
            failures = [
                str(event.step_failure_data.user_failure_data or event.step_failure_data.error)
                for event in result.filter_events(lambda e: e.is_step_failure)
            ]
            answer = {"success": result.success, "made": made, "failures": failures, "run_id": result.run_id}
        sys.stdout.write(f"\nANSWER {json.dumps(answer)}\n")
        sys.stdout.flush()


def environment(root: Path, mark: str, **more: str) -> dict[str, str]:
    """Environment of a user in the project; nothing of the caller's settings gets in."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(root.parent),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "DVC_PROJECT": str(root),
        "DVC_NO_ANALYTICS": "1",
        "DAGSTER_DISABLE_TELEMETRY": "1",
        MARK: mark,
        **{name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ},
        **more,
    }


@dataclass
class Crew:
    """A project and everything that a test starts in it."""

    root: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """Start a command whose output can be read."""
        home = self.root.parent / "dagster_home"
        home.mkdir(exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=environment(self.root, self.mark, DAGSTER_HOME=str(home), **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def driver(self, **more: str) -> subprocess.Popen[str]:
        """Start a driver and wait until it has made the instance: two cannot do that at once."""
        process = self.start(sys.executable, "-c", "import crash_project; crash_project.drive()", **more)
        assert process.stdout is not None
        log: list[str] = []
        while not log or log[-1] not in ("", "READY\n"):
            log.append(process.stdout.readline())
        assert log[-1], "".join(log)
        return process

    def dvc(self, *arguments: str) -> subprocess.Popen[str]:
        """Start DVC as a user on a terminal does."""
        return self.start(sys.executable, "-m", "dvc", *arguments)

    def processes(self, having: str = MARK) -> Iterator[psutil.Process]:
        """Marked processes that live, and that have a further environment variable."""
        for process in psutil.process_iter():
            try:
                variables = process.environ()
                if variables.get(MARK) == self.mark and having in variables and process.status() != "zombie":
                    yield process
            except psutil.Error:
                continue

    def close(self) -> None:
        """Kill everything that is left."""
        for _ in range(50):
            left = list(self.processes())
            if not left:
                break
            for process in left:
                try:
                    process.kill()
                except psutil.Error:
                    continue
            time.sleep(0.05)
        for process in self.started:
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


def ask(driver: subprocess.Popen[str], names: list[str] | None = None) -> None:
    """Tell a driver to materialize assets; all without names."""
    assert driver.stdin is not None
    driver.stdin.write(f"{json.dumps(names)}\n")
    driver.stdin.flush()


def answer(driver: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a driver's answer; the log that came before it is in ``log``."""
    assert driver.stdout is not None
    log: list[str] = []
    for line in driver.stdout:
        if line.startswith("ANSWER "):
            return {**json.loads(line.removeprefix("ANSWER ")), "log": "".join(log)}
        log.append(line)
    raise AssertionError("the driver ended:\n" + "".join(log[-50:]))


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read a process's output up to a line that holds these words; return what was read."""
    assert process.stdout is not None
    log = ""
    for line in process.stdout:
        log += line
        if words in line:
            return log
    raise AssertionError(f"no {words!r} in:\n{log}")


def wait_for(condition: Callable[[], Any], *, seconds: float = 240.0, pause_s: float = 0.02) -> Any:
    """Wait until a condition gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(pause_s)
    return found


def changed(root: Path) -> dict[str, Any]:
    """What ``dvc status`` reports, by stage."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return dict(repo.status())


def is_clean(root: Path) -> bool:
    """Tell whether ``dvc status`` has nothing to report."""
    return not changed(root)
