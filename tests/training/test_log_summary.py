"""`bert-ops log`: the figures of planted logs, the words for people, what is refused, and following a live run."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bert_ops.errors import InputError
from bert_ops.training import log_figures, log_summary
from bert_ops.training.log_figures import summarise
from bert_ops.training.log_lines import Record, encode
from bert_ops.training.log_wording import one_line, render, spark
from bert_ops.training.run_log import LOG_NAME, RunLog

ROOT = Path(__file__).resolve().parents[2]


def step(number: int, *, time: float, **changes) -> Record:
    mlm, nsp = 2.0 + 6.0 * math.exp(-number / 300), 0.5
    values = {
        "event": "step",
        "time": time,
        "step": number,
        "tokens": number * 1000,
        "loss": mlm + nsp,
        "mlm_loss": mlm,
        "nsp_loss": nsp,
        "learning_rate": min(number / 100, 1.0) * 1e-3,
        "gradient_norm": 1.0,
        "clip_share": 0.25,
        "batch_tokens": 1000,
        "noise_scale": None,
        "skipped": 0,
        "tokens_per_second": 5000.0,
        "utilisation": 0.4,
        "memory_mib": 300.0,
    }
    return {**values, **changes}


def planted(steps: int = 100, **changes) -> list[Record]:
    """A run of ``steps`` lines, one every 10 steps and 2 seconds."""
    start = {
        "event": "start",
        "time": 100.0,
        "steps": 2000,
        "model": {"preset": "mini", "parameters": 11_000_000, "flops_per_token": 2.5e7},
    }
    return [start, *(step(10 * n, time=100.0 + 2 * n, **changes) for n in range(1, steps + 1))]


def text_of(records: list[Record], *, now: float = 305.0) -> str:
    return "\n".join(render(Path("log.jsonl"), summarise(records, now=now)))


def test_progress_and_losses() -> None:
    figures = summarise(planted(), now=305.0)
    assert figures["progress"] == {
        "step": 1000,
        "total_steps": 2000,
        "tokens": 1_000_000,
        "lines": 100,
        "seconds": 200.0,
        "seconds_left": 200.0,
    }
    losses = figures["losses"]
    assert list(losses) == ["loss", "mlm_loss", "nsp_loss"]
    assert losses["mlm_loss"]["start"] == pytest.approx(2.0 + 6.0 * math.exp(-30 / 300), rel=1e-2)
    assert losses["mlm_loss"]["now"] == pytest.approx(2.0 + 6.0 * math.exp(-980 / 300), rel=1e-2)
    assert losses["nsp_loss"]["now"] == 0.5
    assert len(losses["loss"]["curve"]) <= 60
    text = text_of(planted())
    assert "step 1,000 of 2,000 (50%), 1,000,000 tokens in 3 min 20 s, about 3 min 20 s left" in text
    assert "MLM loss" in text and "NSP loss" in text
    assert "mini, 11,000,000 parameters, 25.0 MFLOP a token" in text


def test_a_lone_objective_is_not_listed_twice() -> None:
    records = planted()
    for record in records:
        record.pop("nsp_loss", None)
    assert list(summarise(records, now=0.0)["losses"]) == ["loss"]


def test_time_in_which_nothing_ran_is_no_training_time() -> None:
    records = planted(50)
    records += [{"event": "resume", "time": 5000.0, "step": 480, "lost_steps": 20, "lost_seconds": 4.0}]
    records += [step(500 + 10 * n, time=5000.0 + 2 * n) for n in range(1, 11)]
    figures = summarise(records, now=5021.0)
    assert figures["progress"]["seconds"] == 100.0 + 20.0
    assert figures["interruptions"] == {"resumes": 1, "steps": [480], "lost_steps": 20, "lost_seconds": 4.0}
    # The pause is no part of the pace either.
    assert figures["progress"]["seconds_left"] == pytest.approx(1400 * 0.2)
    assert "Resumed       once: 20 steps done again, 4 s lost" in text_of(records)


def test_drops_of_throughput_cost_what_they_took() -> None:
    records = planted()
    for record in records[31:41]:
        record["tokens_per_second"] = 1000.0
    speed = summarise(records, now=0.0)["throughput"]
    assert speed["tokens_per_second"] == 5000.0 and speed["drops"] == 10
    # Ten lines took five times as long as the others: 140 units of time, of which 40 are lost.
    assert speed["drop_time_share"] == pytest.approx(40 / 140)
    assert speed["drop_steps"] == [310, 320, 330, 340, 350]
    assert "below half of that 10 times (step 310, 320, 330, 340, 350): cost 28.6% of the time" in text_of(records)
    assert "5,000 tokens/s (median), 40% of the GEMM peak, 300 MiB" in text_of(records)


def test_quantiles_of_the_gradient_norm() -> None:
    records = planted()
    rng = random.Random(0)
    norms = list(range(1, 101))
    rng.shuffle(norms)
    for record, norm in zip(records[1:], norms, strict=True):
        record["gradient_norm"] = float(norm)
    gradient = summarise(records, now=0.0)["gradient"]
    assert gradient["median"] == 50.5 and gradient["max"] == 100.0
    assert gradient["p90"] == pytest.approx(90.1) and gradient["p99"] == pytest.approx(99.01)
    assert gradient["clip_share"] == 0.25
    assert log_figures.quantile([], 0.5) is None and log_figures.quantile([3.0], 0.9) == 3.0


def test_a_bound_is_suggested_from_enough_norms() -> None:
    assert log_figures.suggested_bound([1.0] * 5) is None
    bound = log_figures.suggested_bound([1.0 + 0.01 * n for n in range(200)])
    assert bound is not None and 1.0 <= bound <= 10.0
    assert f"its norms suggest clipping.norm {bound:.3g}" in text_of(
        [{**r, "gradient_norm": 1.0 + 0.01 * n} if "gradient_norm" in r else r for n, r in enumerate(planted(200), -1)]
    )


def test_spikes_stand_out_from_their_neighbours() -> None:
    records = planted()
    rng = random.Random(1)
    for record in records[1:]:
        record["loss"] += rng.gauss(0, 0.02)
    assert summarise(records, now=0.0)["stability"]["spikes"] == []
    records[60]["loss"] += 2.0
    (spike,) = summarise(records, now=0.0)["stability"]["spikes"]
    assert spike["step"] == 600 and spike["loss"] == records[60]["loss"]
    assert "Spike         step 600: loss" in text_of(records)


def test_a_steep_start_is_no_spike() -> None:
    records = planted(300)
    for number, record in enumerate(records[1:]):
        record["loss"] = 2.0 + 8.0 * math.exp(-number / 2)
    assert summarise(records, now=0.0)["stability"]["spikes"] == []


def test_skips_rollbacks_and_stop() -> None:
    records = planted(50)
    records.append({"event": "skip", "time": 201, "step": 501, "loss": math.nan, "gradient_norm": 1, "reason": "bad"})
    records.append({"event": "rollback", "time": 202, "step": 510, "to_step": 400, "rate_scale": 0.5, "reason": "bad"})
    records.append({"event": "stop", "time": 203, "step": 511, "reason": "SIGTERM"})
    text = text_of(records)
    assert "Skipped steps 1" in text and "step 501: bad (loss nan)" in text
    assert "Rolled back   at step 510 to 400, rate × 0.5" in text
    assert "State         stopped 1 min 42 s ago: SIGTERM" in text
    assert "Skipped steps none" in text_of(planted())


@pytest.mark.parametrize(
    ("event", "now", "words"),
    [
        (None, 310.0, "running, last sign of life 10 s ago"),
        (None, 900.0, "no sign of life for 10 min 0 s: killed?"),
        ("finish", 360.0, "finished 1 min 0 s ago"),
    ],
)
def test_the_state_of_a_run(event, now: float, words: str) -> None:
    records = planted()
    if event:
        records.append({"event": event, "time": 300.0, "step": 1000})
    assert words in text_of(records, now=now)


def test_a_slow_run_is_not_taken_for_dead() -> None:
    """A line every hundred seconds: five minutes of silence are nothing."""
    records = [{**record, "time": 100.0 + 50 * (record["time"] - 100.0)} for record in planted()]
    assert "running" in text_of(records, now=records[-1]["time"] + 300.0)


def test_evaluations_checkpoints_and_batch() -> None:
    records = planted(50)
    losses = [(3.0, 3.1), (2.0, 2.2), (1.8, 2.4)]
    for n, (train, validation) in enumerate(losses):
        row = {"event": "evaluation", "time": 200.0 + n, "step": 100 * (n + 1), "tokens": 1}
        records.append({**row, "train_mlm_loss": train, "validation_mlm_loss": validation})
    records.append({"event": "checkpoint", "time": 210.0, "step": 500, "stall_seconds": 1.1, "bytes": 2**21})
    records.append({"event": "micro_batch", "time": 210.0, "step": 500, "passes": 2, "reason": "memory"})
    records += [step(510, time=212.0, batch_tokens=4000, noise_scale=5500.0)]
    figures = summarise(records, now=0.0)
    assert figures["evaluations"]["best"] == {"validation_mlm_loss": {"value": 2.2, "step": 200}}
    assert figures["evaluations"]["gap"]["mlm_loss"] == pytest.approx(0.6)
    assert figures["checkpoints"]["stall_share"] == pytest.approx(1.1 / 112)
    text = text_of(records)
    assert "MLM loss 2.4000, best 2.2000 at step 200, 0.6000 above that of the training sample" in text
    assert "1, last at step 500, 2.0 MiB; training waited 1.1 s (1.0% of the time)" in text
    assert "4,000 tokens, 1,000 at the start; noise scale 5,500 tokens; a unit is read in 2 passes" in text


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_first_lines_are_enough_for_a_summary(count: int) -> None:
    assert "Run log.jsonl" in text_of(planted()[:count])
    assert "Run log.jsonl" in text_of([{"event": "odd", "time": 1.0}])
    assert json.loads(log_summary.encode_figures(summarise(planted()[:count], now=0.0)))


def test_a_log_full_of_nan_has_a_summary() -> None:
    records = planted(40, loss=math.nan, mlm_loss=math.nan, gradient_norm=math.inf)
    assert "NSP loss" in text_of(records)
    assert json.loads(log_summary.encode_figures(summarise(records, now=0.0)))


def test_a_noise_scale_beyond_the_batch_is_said() -> None:
    records = planted(20, noise_scale=math.inf)
    assert "noise scale beyond what batches of this size can tell" in text_of(records)
    assert json.loads(log_summary.encode_figures(summarise(records, now=0.0)))["batch"]["noise_scale"] == "Infinity"


def test_a_curve_as_blocks() -> None:
    assert spark([0.0, 0.5, 1.0]) == "▁▅█"
    assert spark([1.0, 1.0]) == "▁▁" and spark([]) == ""


def test_single_records_for_people() -> None:
    line = one_line(step(1200, time=0.0))
    assert "step 1,200 · loss" in line and "mlm loss" in line and "5,000 tokens/s" in line and "40% of peak" in line
    assert one_line({"event": "skip", "time": 0.0, "step": 3, "reason": "bad"}).endswith("skip: step 3 · reason bad")


# ---------------------------------------------------------------- the command


def write(path: Path, records: list[Record]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(encode(record) + "\n" for record in records), encoding="utf-8")
    return path


def command(*words: str) -> None:
    parser = argparse.ArgumentParser()
    log_summary.add_arguments(parser)
    log_summary.run(parser.parse_args(words))


def test_the_newest_log_of_the_project_is_found(tmp_path: Path, capsys) -> None:
    old = write(tmp_path / "reports/pretrain" / LOG_NAME, planted(10))
    new = write(tmp_path / ".bert_ops/checkpoints/pretrain/abc" / LOG_NAME, planted(20))
    os.utime(old, (1, 1))
    command("--root", str(tmp_path))
    assert f"Run {new}" in capsys.readouterr().out
    os.utime(old, None)
    os.utime(new, (1, 1))
    command("--root", str(tmp_path), "--json")
    out = json.loads(capsys.readouterr().out)
    assert out["log"] == str(old) and out["progress"]["step"] == 100


@pytest.mark.parametrize("where", ["", LOG_NAME, "step-00000100"])
def test_a_run_is_named_by_log_folder_or_checkpoint(tmp_path: Path, capsys, where: str) -> None:
    log = write(tmp_path / "run" / LOG_NAME, planted(10))
    (tmp_path / "run" / "step-00000100").mkdir()
    command(str(tmp_path / "run" / where))
    assert f"Run {log}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("", "is empty"), ("hello\n", "line 1 is no record"), ('{"event": "st', "is empty")],
)
@pytest.mark.parametrize("option", [(), ("--json",), ("--follow",)])
def test_what_is_no_log_is_refused(tmp_path: Path, content, words: str, option) -> None:
    if content is not None:
        (tmp_path / "x").write_text(content)
    with pytest.raises(InputError, match=words):
        command(str(tmp_path / "x"), *option)


def test_no_log_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no log\.jsonl"):
        command("--root", str(tmp_path))
    with pytest.raises(InputError, match=r"there is no log\.jsonl"):
        command(str(tmp_path))


def test_a_live_run_is_followed_over_a_cut_to_its_end(tmp_path: Path, monkeypatch) -> None:
    log = RunLog(tmp_path / LOG_NAME)
    log.write("start", steps=30)
    log.write("step", step=1)
    position = log.position()

    def resume() -> None:
        RunLog(log.path).truncate(position)

    def torn() -> None:
        with log.path.open("ab") as handle:
            handle.write(b'{"event": "step", "ti')

    # What happens between two looks, in turn.
    script = [
        lambda: log.write("step", step=2),
        torn,
        lambda: log.write("step", step=3),
        resume,
        lambda: RunLog(log.path).write("step", step=4),
        lambda: None,
        lambda: RunLog(log.path).write("finish", step=30),
    ]
    monkeypatch.setattr(log_summary.time, "sleep", lambda _: script.pop(0)())
    with log.path.open("rb") as handle:
        rest = handle.read().rpartition(b"\n")[2]
        assert [record["step"] for record in log_summary.follow(handle, rest)] == [2, 3, 4, 30]
    assert script == []


def test_following_ends_when_the_runs_folder_is_removed(tmp_path: Path) -> None:
    log = RunLog(tmp_path / LOG_NAME)
    log.write("start", steps=30)
    with log.path.open("rb") as handle:
        log.write("step", step=1)
        log.path.unlink()
        assert [record["event"] for record in log_summary.follow(handle, poll_s=0.001)] == ["start", "step"]


def test_the_command_follows_a_run_of_another_process(tmp_path: Path) -> None:
    log = RunLog(tmp_path / LOG_NAME)
    log.write("start", steps=3)
    code = (
        "import argparse\nfrom bert_ops.training import log_summary\n"
        "p = argparse.ArgumentParser()\nlog_summary.add_arguments(p)\nlog_summary.run(p.parse_args())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), "--follow"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert next(lines).startswith("Run ")
        log.write("step", step=1, loss=2.0, learning_rate=0.1, gradient_norm=1.0, tokens_per_second=5, batch_tokens=8)
        assert any("step 1 · loss 2.0000" in line for line in lines)
        log.write("finish", step=3)
        assert any("finish" in line for line in lines)
        assert process.wait(20) == 0


def test_a_look_at_a_log_does_not_wait_for_torch() -> None:
    """Torch takes seconds to import while a run has all cores."""
    code = "import sys; import bert_ops.training.log_summary; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
