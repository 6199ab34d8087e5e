import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancelling_ends_grandchildren_too(project: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    prelude = f"import os, signal, time; {ignore if stubborn else 'pass'}"
    inner = f"{prelude}; print('pid', os.getpid(), flush=True); time.sleep(60)"
    use_script(monkeypatch, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])")
    pids: list[int] = []

    def cancel(line: str) -> None:
        if line.startswith("pid"):
            pids.append(int(line.split()[1]))
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_stage("any", root=project, force=False, on_line=cancel, on_message=print)
    assert time.monotonic() - start < 5
    assert pids and not _lives(pids[0])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip().startswith("Z")


def test_the_stage_finds_this_python_first() -> None:
    environment = runner.stage_environment({"EXTRA": "1"})
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["PYTHONUNBUFFERED"] == environment["EXTRA"] == "1"
