import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from dagster_project.dagster_dvc import runner
from dagster_project.dagster_dvc.errors import StageFailed
from dagster_project.dagster_dvc.runner import EXECUTED, RESTORED, UNCHANGED, Outcome, run_stage


def run(stage: str, root: Path, *, force: bool = False, lines: list[str] | None = None) -> Outcome:
    return run_stage(
        stage, root=root, force=force, on_line=(lines if lines is not None else []).append, on_message=print
    )


def use_script(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replace the DVC command by a Python script."""
    monkeypatch.setattr(runner, "stage_command", lambda stage, force: [sys.executable, "-c", script])


def test_executed_unchanged_restored_and_forced_are_told_apart(project: Path) -> None:
    lines: list[str] = []
    assert run("count", project, lines=lines).how == EXECUTED
    assert "counting" in lines
    assert run("count", project).how == UNCHANGED
    (project / "dvc.lock").unlink()
    assert run("count", project).how == RESTORED
    assert run("count", project, force=True).how == EXECUTED


def test_a_failure_names_stage_command_code_and_last_lines(project: Path) -> None:
    (project / "data/raw/one.txt").write_text("")
    with pytest.raises(StageFailed) as caught:
        run("count", project)
    message = str(caught.value)
    assert "stage count: `dvc --wait-for-lock repro --single-item count` ended with exit code" in message
    assert "too few lines" in message
    assert "remedy" in message


def test_a_missing_dependency_is_reported_by_name(project: Path) -> None:
    with pytest.raises(StageFailed, match=r"out/b\.txt|out/a\.txt"):
        run("join", project)


def test_messages_arrive_while_the_stage_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_script(
        monkeypatch,
        "import json, os, sys, time\n"
        "with open(os.environ['BOX'], 'a') as box:\n"
        "    for done in (1, 2):\n"
        "        text = json.dumps({'method': 'report_custom_message', 'params': {'payload': {'done': done}}})\n"
        "        box.write(text[:9]); box.flush(); time.sleep(0.15)\n"
        "        box.write(text[9:] + '\\n'); box.flush(); time.sleep(0.3)\n"
        "print('finished')\n",
    )
    seen: list[Any] = []

    def on_message(message: Mapping[str, Any]) -> None:
        seen.append(message["done"])

    run_stage(
        "any",
        root=project,
        force=False,
        on_line=seen.append,
        on_message=on_message,
        pipes=lambda path: {"BOX": str(path)},
    )
    assert seen == [1, 2, "finished"]


def test_progress_bars_and_colours_are_left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_script(monkeypatch, r"print('\x1b[31mred\x1b[0m\r 10%|██████      | 1/9\rlast', end='')")
    lines: list[str] = []
    run("any", project, lines=lines)
    assert lines == ["red", "last"]


def test_a_busy_stage_is_tried_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_script(
        monkeypatch,
        "import pathlib, sys\n"
        "p = pathlib.Path('tries'); n = len(p.read_text()) if p.exists() else 0\n"
        "p.write_text('x' * (n + 1))\n"
        "if n < 1: print(\"ERROR: 'out' is busy, it is being blocked by:\"); sys.exit(255)\n",
    )
    lines: list[str] = []
    run("any", project, lines=lines)
    assert (project / "tries").read_text() == "xx"
    assert "another process holds files of stage any: waiting" in lines


def test_another_255_is_a_failure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_script(monkeypatch, "import sys; print('ERROR: no'); sys.exit(255)")
    with pytest.raises(StageFailed, match="exit code 255"):
        run("any", project)


SPAWN = """
import os, signal, subprocess, sys, time
if {stubborn}:
    signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session={escaped})
print('pids', os.getpid(), inner.pid, flush=True)
time.sleep(0.1)
{then}
"""


def run_and_watch(root: Path, act: Callable[[list[int]], None]) -> list[int]:
    """Run the script of SPAWN; `act` is called with the processes that it reports; return these."""
    pids: list[int] = []

    def on_line(line: str) -> None:
        if line.startswith("pids"):
            pids.extend(int(text) for text in line.split()[1:])
            act(pids)

    try:
        run_stage("any", root=root, force=False, on_line=on_line, on_message=print)
    finally:
        assert len(pids) == 2
    return pids


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("stubborn", [False, True])
def test_cancelling_ends_all_descendants(
    project: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool, escaped: bool
) -> None:
    use_script(monkeypatch, SPAWN.format(stubborn=stubborn, escaped=escaped, then="time.sleep(600)"))
    seen: list[int] = []

    def cancel(pids: list[int]) -> None:
        seen.extend(pids)
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_and_watch(project, cancel)
    assert time.monotonic() - start < 300  # two seconds, on a machine that does nothing else; it would sleep for 600
    assert not [pid for pid in seen if lives(pid)]


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "was killed by signal 15"),
        ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", "was killed by signal 9"),
        ("sys.exit(3)", "ended with exit code 3"),
    ],
    ids=["killed", "terminated", "supervisor killed", "failed"],
)
def test_whoever_dies_nothing_is_left_and_the_cause_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, then: str, message: str
) -> None:
    use_script(monkeypatch, SPAWN.format(stubborn="SIGTERM" not in then, escaped=False, then=then))
    seen: list[int] = []
    with pytest.raises(StageFailed, match=message):
        run_and_watch(project, seen.extend)
    assert len(seen) == 2 and not [pid for pid in seen if lives(pid)]


def test_what_a_stage_that_succeeded_left_in_the_background_is_its_own_business(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_script(monkeypatch, SPAWN.format(stubborn=False, escaped=False, then=""))
    pids = run_and_watch(project, print)
    try:
        assert lives(pids[1])
    finally:
        os.kill(pids[1], signal.SIGKILL)


def test_a_program_that_does_not_exist_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "stage_command", lambda stage, force: ["no-such-program"])
    with pytest.raises(StageFailed, match="no-such-program cannot be started"):
        run("any", project)


def lives(pid: int) -> bool:
    """Tell whether a process runs; what only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_stage_finds_this_python_first() -> None:
    environment = runner.stage_environment({"EXTRA": "1"})
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["PYTHONUNBUFFERED"] == environment["EXTRA"] == "1"
