"""SIGTERM and Ctrl-C at the command line: a checkpoint, the shell's exit code, and the same end after another start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from toy_runs import told

from bert_ops.io import folder_sha256
from bert_ops.training.run_log import LOG_NAME, read_log

pytestmark = pytest.mark.slow


def command(folder: Path, params: Path, tokens: Path, tokenizer: Path) -> list[str]:
    folder.mkdir()
    return [
        sys.executable, "-m", "bert_ops", "pretrain", "--params", str(params), "--tokens", str(tokens),
        "--tokenizer", str(tokenizer), "--out", "model", "--metrics", "metrics.json", "--history", "history.tsv",
        "--results", "results.json", "--run-log", LOG_NAME, "--speed-page", "speed.html",
        "--checkpoints", "checkpoints",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def slow_steps(params: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few steps of many passes each: a signal comes in the midst of one."""
    section = {
        **params["pretrain"],
        "steps": 4,
        "batch": {"tokens": 2880, "micro_tokens": 48, "growth": {"kind": "constant"}},
        "embedding_init": {**params["pretrain"]["embedding_init"], "kind": "normal"},
        "schedule": {**params["pretrain"]["schedule"], "warmup_steps": 1},
        "evaluate_every_steps": 2,
        "log_every_steps": 1,
    }
    path = tmp_path_factory.mktemp("slow") / "params.yaml"
    path.write_text(yaml.safe_dump({**params, "pretrain": section}, allow_unicode=True), encoding="utf-8")
    return path


def lines(folder: Path, event: str) -> list[dict]:
    return [
        record for log in folder.glob("checkpoints/*/log.jsonl") for record in read_log(log) if record["event"] == event
    ]


@pytest.fixture(scope="module")
def whole(slow_steps, tokens_folder, tokenizer_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stop") / "whole"
    argv = command(folder, slow_steps, tokens_folder, tokenizer_folder)
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_stops_in_the_midst_of_a_step_and_goes_on_from_there(
    slow_steps, tokens_folder, tokenizer_folder, whole: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "stopped"
    argv = command(folder, slow_steps, tokens_folder, tokenizer_folder)
    process = subprocess.Popen(
        argv, cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    while process.poll() is None and not lines(folder, "step"):
        time.sleep(0.01)
    process.send_signal(number)
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    sys.stdout.write(f"\n{number.name}: the process ended after {time.monotonic() - began:.2f} s\n")
    (stop,) = lines(folder, "stop")
    assert stop["reason"] == number.name
    assert "Traceback" not in said
    assert f"stopped by {number.name} at step {stop['step']}; its checkpoint is written" in said
    assert "run the same command again to go on from there" in said
    assert not (folder / "model").exists()
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {stop['step']} of 4" in done.stderr
    assert folder_sha256(folder / "model") == folder_sha256(whole / "model")
    for name in ("history.tsv", "results.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert told(folder) == told(whole)
