"""The log: whole lines whatever happens, and a resumed run's log is that of one that was never interrupted."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bert_ops.errors import InputError
from bert_ops.training import run_log
from bert_ops.training.log_lines import encode, parse
from bert_ops.training.run_log import Cut, RunLog, deterministic, read_log


@pytest.fixture
def clock(monkeypatch):
    """Time that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(run_log.time, "time", lambda: now[0])
    return now


def step(log: RunLog, number: int, **figures) -> None:
    rng = random.Random(number)
    log.write("step", step=number, loss=rng.random(), tokens_per_second=time.perf_counter(), **figures)


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path, clock) -> None:
    log = RunLog(tmp_path / "deep" / "log.jsonl")
    log.write("start", model={"parameters": 5, "name": "迷你"}, threads=None)
    log.write("step", step=1, loss=torch.tensor(0.5), norm=np.float32(2.0), where=Path("a/b"), list=(1, 2.5))
    lines = log.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "event": "start",
        "time": 1000.0,
        "model": {"parameters": 5, "name": "迷你"},
        "threads": None,
    }
    assert json.loads(lines[1]) == {
        "event": "step",
        "time": 1000.0,
        "step": 1,
        "loss": 0.5,
        "norm": 2.0,
        "where": "a/b",
        "list": [1, 2.5],
    }
    assert list(read_log(log.path)) == [json.loads(line) for line in lines]


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.write("skip", step=1, loss=math.nan, norms=[math.inf, -math.inf, 1.0])
    assert "NaN" in log.path.read_text() and json.loads(log.path.read_text(), parse_constant=pytest.fail)
    (record,) = read_log(log.path)
    assert math.isnan(record["loss"]) and record["norms"] == [math.inf, -math.inf, 1.0]


@given(st.floats(allow_nan=False))
def test_floats_come_back_bit_for_bit(value: float) -> None:
    record = parse(encode({"event": "step", "time": 0.0, "loss": value}).encode())
    assert record is not None and record["loss"] == value


def test_ranks_above_zero_write_nothing() -> None:
    log = RunLog(None)
    log.write("step", step=1)
    assert log.position() == 0 and log.truncate(0) == Cut(steps=0, seconds=0.0)
    log.close()


def test_what_no_log_can_hold_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        RunLog(tmp_path / "log.jsonl").write("step", loss=object())


def test_a_resumed_log_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = RunLog(tmp_path / "whole.jsonl")
    whole.write("start", machine={"threads": 2}, params={"seed": 1})
    for number in range(1, 31):
        step(whole, number)

    broken = RunLog(tmp_path / "broken.jsonl")
    broken.write("start", machine={"threads": 64}, params={"seed": 1})
    for number in range(1, 11):
        step(broken, number)
    position = broken.position()
    for number in range(11, 18):
        step(broken, number)
    del broken  # killed

    for attempt, last in (("first", 14), ("second", 30)):
        again = RunLog(tmp_path / "broken.jsonl")
        cut = again.truncate(position)
        again.write("resume", step=10, lost_steps=cut.steps, attempt=attempt)
        for number in range(11, last + 1):
            step(again, number)
        again.write("checkpoint", step=last, seconds=0.1)

    assert deterministic(read_log(again.path)) == deterministic(read_log(whole.path))
    assert len(deterministic(read_log(whole.path))) == 31
    resumes = [r for r in read_log(again.path) if r["event"] == "resume"]
    assert [(r["attempt"], r["lost_steps"]) for r in resumes] == [("first", 7), ("second", 4)], "the story is kept"


def test_a_run_that_begins_anew_begins_an_empty_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    step(log, 1)
    log.write("resume", step=0)
    log.truncate(0)
    assert log.path.read_bytes() == b"" and log.position() == 0


def test_what_a_cut_costs_is_told(tmp_path: Path, clock) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    for number in range(1, 11):
        step(log, number)
        clock[0] += 2.0
        if number == 4:
            position = log.position()
    clock[0] += 1000.0  # the machine was off
    # Steps 5 to 10 are done again; they took from the line of step 4 (second 6) to that of step 10 (second 18).
    assert RunLog(log.path).truncate(position) == Cut(steps=6, seconds=12.0)


def test_a_torn_last_line_is_cut_and_not_read(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    step(log, 1)
    whole = log.path.read_bytes()
    step(log, 2)
    content = log.path.read_bytes()
    for size in range(len(whole), len(content)):
        log.path.write_bytes(content[:size])
        found = [record["step"] for record in read_log(log.path)]
        # Without its line break the last line may be whole; a writer cuts it all the same.
        assert found == ([1, 2] if size == len(content) - 1 else [1])
        again = RunLog(log.path)
        assert log.path.read_bytes() == whole and again.position() == len(whole)


def test_a_line_longer_than_a_read_is_found(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    step(log, 1)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"event": "' + b"x" * 200_000)
    assert RunLog(log.path).position() == len(whole)


@pytest.mark.parametrize("where", ["beyond", "within"])
def test_a_position_that_does_not_fit_keeps_whole_lines_and_says_so(tmp_path: Path, capsys, where: str) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    step(log, 1)
    first = log.position()
    step(log, 2)
    end = log.position()
    RunLog(log.path).truncate(end + 500 if where == "beyond" else end - 3)
    assert "lines of some steps are missing" in capsys.readouterr().err
    assert [r["step"] for r in read_log(log.path)] == ([1, 2] if where == "beyond" else [1])
    assert log.path.stat().st_size == (end if where == "beyond" else first)


def test_a_full_disk_costs_lines_and_not_the_run(tmp_path: Path, capsys, monkeypatch) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    step(log, 1)
    real = os.pwrite

    def half(file: int, line: bytes, offset: int) -> int:
        real(file, line[: len(line) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_log.os, "pwrite", half)
    step(log, 2)
    step(log, 3)
    monkeypatch.setattr(run_log.os, "pwrite", lambda file, line, offset: real(file, line[:5], offset))
    step(log, 4)
    monkeypatch.setattr(run_log.os, "pwrite", real)
    step(log, 5)
    assert [r["step"] for r in read_log(log.path)] == [1, 5]
    assert log.lost_lines == 3
    assert capsys.readouterr().err.count("training goes on") == 1


def test_a_folder_that_cannot_be_written_costs_the_log_and_not_the_run(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    log = RunLog(tmp_path / "file" / "log.jsonl")
    step(log, 1)
    assert log.position() == 0 and log.truncate(7) == Cut(steps=0, seconds=0.0)
    assert "cannot be written, training goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"event": "step", "time": 1}\nhello\n', 2),
        (b"a,b\n1,2\n", 1),
        (b'{"loss": 3}\n', 1),
        (b'{"event": 3, "time": 1}\n', 1),
        (b'{"event": "step"}\n', 1),
        (b"[1]\n", 1),
        (b"\xff\xfe\x00\n", 1),
        (b"\n", 1),
        (b"[" * 100_000 + b"\n", 1),
    ],
)
def test_what_is_no_log_is_refused_by_line(tmp_path: Path, content: bytes, line: int) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=f"line {line} is no record of a training run"):
        list(read_log(tmp_path / "x.jsonl"))


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        list(read_log(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        list(read_log(tmp_path))


@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    try:
        for record in read_log(path):
            assert isinstance(record["event"], str)
    except InputError as error:
        assert "line" in str(error)


KILLED = """
import sys
from pathlib import Path
from bert_ops.training.run_log import RunLog
log = RunLog(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    log.write("step", step=number, text="x" * (number % 5000))
"""


def test_a_log_whose_writer_is_killed_is_whole(tmp_path: Path) -> None:
    """kill -9 at moments of no choosing: every line but a torn last one is there, in order."""
    rng = random.Random(5)
    for attempt in range(5):
        path = tmp_path / f"{attempt}.jsonl"
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(0.02 + 0.05 * rng.random())
            process.send_signal(signal.SIGKILL)
        numbers = [record["step"] for record in read_log(path)]
        assert numbers == list(range(1, len(numbers) + 1)) and numbers
        log = RunLog(path)
        log.write("step", step=len(numbers) + 1)
        assert sum(1 for _ in read_log(path)) in {len(numbers), len(numbers) + 1}
