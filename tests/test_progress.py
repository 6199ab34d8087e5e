"""Progress lines, on a terminal and in a log."""

import io
import subprocess
import sys

import pytest

from bert_ops import progress
from bert_ops.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_log_gets_whole_lines_now_and_then(clock):
    stream = io.StringIO()
    bar = Progress("training", total=100, unit="steps", stream=stream, every_s=10.0)
    for done in range(101):
        bar.update(done, loss=1.5)
        clock[0] += 1.0
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("training: 0/100 steps (0%) · loss 1.5")
    assert lines[-1] == "training: 100/100 steps (100%) · loss 1.5"
    assert len(lines) == 11, "one line each 10 s, the last one always"
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_terminal_gets_one_line_that_is_rewritten(clock):
    stream = Terminal()
    bar = Progress("training", total=4, unit="steps", stream=stream)
    for done in range(5):
        bar.update(done)
        clock[0] += 1.0
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\r\x1b[2K") == 5


def test_estimate_is_worked_out_from_this_processs_pace(clock):
    stream = io.StringIO()
    bar = Progress("training", total=1000, unit="steps", stream=stream, every_s=0.0)
    bar.update(900)  # resumed: the first 900 were made elsewhere, in no time
    assert "left" not in stream.getvalue()
    clock[0] += 10.0
    bar.update(910)
    assert stream.getvalue().splitlines()[-1].endswith("1 min 30 s left")


def test_figures_are_shown_short_and_large_counts_readable(clock):
    stream = io.StringIO()
    Progress("reading", total=2_000_000, unit="texts", stream=stream).update(
        1_000_000, rate=12345.678, loss=float("nan"), note="warm"
    )
    assert stream.getvalue() == "reading: 1,000,000/2,000,000 texts (50%) · rate 12,346 · loss nan · note warm\n"


def test_nothing_to_do_is_no_error(clock):
    stream = io.StringIO()
    Progress("reading", total=0, unit="texts", stream=stream).update(0)
    assert "0/0" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (float("nan"), "unknown time"),
        (float("inf"), "unknown time"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said


def test_dagster_is_not_imported_unless_it_launched_the_process():
    code = (
        "import sys; from bert_ops.progress import Progress, dagster_session\n"
        "with dagster_session(): Progress('x', total=1, unit='y').update(1)\n"
        "assert not any(name.startswith('dagster') for name in sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "x: 1/1 y (100%)\n"


@pytest.mark.parametrize("total", [10, None])
def test_further_figures_go_to_dagster_and_not_to_the_line(clock, monkeypatch, total):
    sent = []
    monkeypatch.setattr(progress, "report_to_dagster", sent.append)
    stream = io.StringIO()
    bar = Progress("training", total=total, unit="steps", stream=stream, every_s=1.0)
    bar.update(1, also={}, loss=2.0)
    clock[0] += 2.0
    bar.update(2, also={"done": 9, "mlm_loss": 1.5, "noise_scale": None, "row": {"a": 1}}, loss=2.0)
    assert "mlm_loss" not in stream.getvalue()
    assert sent[-1]["mlm_loss"] == 1.5 and sent[-1]["done"] == 2 and sent[-1]["loss"] == 2.0
    assert "noise_scale" not in sent[-1] and "row" not in sent[-1]


def test_dagster_gets_about_a_hundred_reports_of_a_long_run(clock, monkeypatch):
    sent = []
    monkeypatch.setattr(progress, "report_to_dagster", lambda payload: sent.append(payload["done"]))
    bar = Progress("training", total=36_000, unit="steps", stream=io.StringIO())
    for done in range(36_001):
        bar.update(done)
        clock[0] += 1.0
    assert 90 <= len(sent) <= 110 and sent[-1] == 36_000
    assert sent[3] < 2000, "the first come soon"


def test_dagster_gets_every_line_of_a_short_run(clock, monkeypatch):
    sent = []
    monkeypatch.setattr(progress, "report_to_dagster", lambda payload: sent.append(payload["done"]))
    bar = Progress("training", total=600, unit="steps", stream=io.StringIO())
    for done in range(601):
        bar.update(done)
        clock[0] += 1.0
    assert sent == list(range(0, 601, 10))
