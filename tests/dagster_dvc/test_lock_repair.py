import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dagster_project.dagster_dvc.lock_repair import mend, running


@pytest.fixture
def lock(reproduced: Path) -> Path:
    """A good dvc.lock, of which a copy is kept."""
    assert mend(reproduced) == []
    return reproduced / "dvc.lock"


def test_nothing_is_done_to_a_good_file(lock: Path) -> None:
    before = lock.read_bytes()
    assert mend(lock.parent) == []
    assert lock.read_bytes() == before
    assert [path for path in lock.parent.iterdir() if path.name.startswith("dvc.lock")] == [lock]


@pytest.mark.parametrize("cut", ["empty", "line", "hash", "entry"])
def test_a_broken_file_is_restored(lock: Path, cut: str) -> None:
    whole = lock.read_text()
    first_hash = whole.index("md5: ") + 10
    lengths = {"empty": 0, "line": whole.index("outs:") + 3, "hash": first_hash, "entry": whole.index("    deps:") + 9}
    lock.write_text(whole[: lengths[cut]] + ("\n" if cut in ("hash", "entry") else ""))
    said = mend(lock.parent)
    assert len(said) == 1 and "left broken by a process that was killed" in said[0]
    assert lock.read_text() == whole


def test_what_a_killed_process_cut_off_is_added_again(lock: Path, dvc: Callable[..., str]) -> None:
    content = yaml.safe_load(lock.read_text())
    del content["stages"]["join"]
    shortened = yaml.safe_dump(content, sort_keys=False)
    lock.write_text(shortened)
    assert mend(lock.parent) == [], "without a sign of a kill the user may have taken the entry out"
    assert lock.read_text() == shortened
    lock.write_text(yaml.safe_dump({**content, "stages": {"join": content["stages"]["count"]}}, sort_keys=False))
    said = mend(lock.parent, killed=True)
    assert "added again: count, part@a, part@b" in said[0]
    assert set(yaml.safe_load(lock.read_text())["stages"]) == {"count", "part@a", "part@b", "join"}


def test_an_entry_that_was_added_again_is_as_it_was(lock: Path, dvc: Callable[..., str]) -> None:
    content = yaml.safe_load(lock.read_text())
    del content["stages"]["count"]
    lock.write_text(yaml.safe_dump(content, sort_keys=False))
    assert "added again: count" in mend(lock.parent, killed=True)[0]
    assert "up to date" in dvc(lock.parent, "status")


def test_conflict_markers_of_git_are_left_to_the_user(lock: Path) -> None:
    text = f"<<<<<<< HEAD\n{lock.read_text()}=======\n>>>>>>> other\n"
    lock.write_text(text)
    assert mend(lock.parent) == []
    assert lock.read_text() == text


def test_without_a_copy_an_empty_file_is_removed_and_a_damaged_one_left(reproduced: Path) -> None:
    lock = reproduced / "dvc.lock"
    lock.write_text("stages: [")
    assert mend(reproduced) == []
    assert lock.read_text() == "stages: ["
    lock.write_text("")
    assert "was empty and is removed" in mend(reproduced)[0]
    assert not lock.exists()


def test_a_file_that_another_process_is_writing_is_left_alone(lock: Path) -> None:
    """DVC holds its lock while it writes; here this test does, and writes for a second."""
    whole = lock.read_bytes()
    descriptor = os.open(lock.parent / ".dvc/tmp/lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    lock.write_bytes(b"")
    said: list[list[str]] = []
    mender = threading.Thread(target=lambda: said.append(mend(lock.parent)))
    mender.start()
    time.sleep(0.5)
    assert lock.read_bytes() == b"" and not said
    lock.write_bytes(whole + b"# newer\n")
    os.close(descriptor)
    mender.join()
    assert said == [[]]
    assert lock.read_bytes() == whole + b"# newer\n"


def test_a_table_of_paths_in_use_that_was_cut_is_emptied(reproduced: Path, dvc: Callable[..., str]) -> None:
    table = reproduced / ".dvc/tmp/rwlock"
    table.write_text('{"read": {"a": [{"pi')
    assert "rwlock was left broken" in mend(reproduced)[0]
    assert "up to date" in dvc(reproduced, "repro")


def test_entries_of_dead_processes_whose_ids_are_used_again_are_removed(reproduced: Path) -> None:
    table = reproduced / ".dvc/tmp/rwlock"
    other = {"pid": os.getpid(), "cmd": "dvc repro"}
    table.write_text(json.dumps({"read": {"a": [other]}, "write": {"b": other}}))
    assert mend(reproduced) == [], "a process that lived when the table was written may hold the path"
    os.utime(table, (1.0, 1.0))
    assert "whose ids others have now" in mend(reproduced)[0]
    assert json.loads(table.read_text()) == {}


def test_one_at_a_time_and_a_killed_holder_leaves_a_mark(lock: Path) -> None:
    root = lock.parent
    program = (
        "import os, pathlib, sys, time\n"
        "from dagster_project.dagster_dvc.lock_repair import running\n"
        "with running(pathlib.Path(sys.argv[1]), 'part@a', patience_s=1, on_wait=print) as held:\n"
        "    assert held is not None; print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        waits: list[int] = []
        with running(root, "part@a", patience_s=0.3, on_wait=lambda: waits.append(1)) as held:
            assert held is None
        assert waits == [1]
        with running(root, "part@b", patience_s=0.3, on_wait=lambda: waits.append(1)) as held:
            assert held is not None
    finally:
        holder.kill()
        holder.communicate()
    content = yaml.safe_load(lock.read_text())
    del content["stages"]["count"]
    lock.write_text(yaml.safe_dump(content, sort_keys=False))
    assert "added again: count" in mend(root)[0], "the mark is the sign of a kill"
    with running(root, "part@a", patience_s=0.3, on_wait=lambda: waits.append(1)) as held:
        assert held is not None
    assert waits == [1]
