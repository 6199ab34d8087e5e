"""Kill -9 of ``bert-ops pretrain`` at random moments, with damage in between: TRAINER_KILLS sets how many."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from toy_runs import told

from bert_ops.io import folder_sha256, read_json
from bert_ops.training import checkpoint_files as files
from bert_ops.training.run_log import LOG_NAME, read_log

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TRAINER_KILLS", "6"))
SEED = int(os.environ.get("TRAINER_KILLS_SEED", "0"))

#: Training with everything that has a memory: dropout, averages, a batch that grows, a guard that sees spikes
#: everywhere, so that steps are left out and the run goes back, and a checkpoint whenever the last one is written.
CHANGES = {
    "steps": 60,
    "precision": "bfloat16",
    "batch": {
        "tokens": 384,
        "micro_tokens": 96,
        "growth": {"kind": "ramp", "start_tokens": 96, "steps": 30, "rate_scaling": "sqrt"},
    },
    "optimizer": {
        "kind": "adamw", "learning_rate": 0.1, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6,
    },
    "averaging": {"decay": 0.9},
    "stability": {
        "spike_deviations": 1.5, "window": 10, "max_skips_in_a_row": 2, "rate_factor": 0.7, "max_rollbacks": 99,
    },
    "log_every_steps": 3,
    "checkpoints": {"every_s": 1e-9, "every_steps": 5, "keep_last": 3, "keep_best": 1, "milestone_steps": 25},
}  # fmt: skip


@dataclass
class Campaign:
    """Runs the command in a folder, again and again, and kills it."""

    command: list[str]
    folder: Path
    rng: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    said: str = ""
    damaged: str = ""

    def checkpoints(self) -> list[Path]:
        return [path for run in self.folder.glob("checkpoints/*") for path in files.folders(run)]

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "stderr.txt").open("wb") as err:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(self.command, stderr=err, cwd=self.folder, env=environment)

    def end(self, process: subprocess.Popen[bytes]) -> int:
        code = process.wait(timeout=300)
        self.said = (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
        self.check_fallback()
        return code

    def kill(self, longest: float) -> bool:
        """Start the command and kill it at a random moment; whether it was killed, and did not end before."""
        before = {path.name for path in self.checkpoints()}
        process = self.start()
        when = self.rng.choice(["whenever", "in training", "in writing", "in writing"])
        if when == "whenever":
            until = time.monotonic() + self.rng.uniform(0, longest)
            wait(process, lambda: time.monotonic() > until)
        else:
            wait(process, lambda: bool({path.name for path in self.checkpoints()} - before))
            time.sleep(self.rng.uniform(0, 0.5))
            if when == "in writing":
                wait(process, self.is_writing)
                time.sleep(self.rng.uniform(0, 0.004))
        number = signal.SIGTERM if self.rng.random() < 0.1 else signal.SIGKILL
        process.send_signal(number)
        code = self.end(process)
        assert code in {0, -number, 128 + number}, self.said
        if code == 0:
            return False
        self.happened[f"killed {when}" if number == signal.SIGKILL else "stopped"] += 1
        self.happened["left a checkpoint half-written"] += self.is_writing()
        return True

    def is_writing(self) -> bool:
        return any(self.folder.glob("checkpoints/*/.step-*.tmp"))

    def damage(self) -> None:
        """Now and then, do to the newest checkpoint what a broken disk does."""
        found = self.checkpoints()
        kind = self.rng.choice(["flip", "truncate", "remove", "append", "tear the log", *["nothing"] * 5])
        if not found or kind == "nothing" or found[-1].name == self.damaged:
            return
        path = found[-1] / self.rng.choice([files.TENSORS, files.STATE, files.MANIFEST])
        content = bytearray(path.read_bytes())
        place = self.rng.randrange(len(content))
        if kind == "flip":
            content[place] ^= 1 << self.rng.randrange(8)
            path.write_bytes(content)
        elif kind == "truncate":
            os.truncate(path, place)
        elif kind == "remove":
            path.unlink()
        elif kind == "append":
            path.write_bytes(content + b"\0")
        else:
            with (found[-1].parent / LOG_NAME).open("ab") as log:
                log.write(b'{"event": "step", "time": 17')
        if kind != "tear the log":
            self.damaged = found[-1].name
        self.happened[kind] += 1

    def check_fallback(self) -> None:
        """Who came as far as to look at a damaged checkpoint has to say so, and not to use it."""
        looked = "resuming at step" in self.said or "begins anew" in self.said
        if self.damaged and looked:
            assert f"damaged checkpoint {self.damaged}" in self.said, self.said
            self.happened["fell back"] += 1
            self.damaged = ""

    def compare(self, whole: Path) -> None:
        """Compare all of a run that has ended with one that nothing happened to, and make room for another."""
        self.happened["ended as if nothing had been"] += 1
        assert folder_sha256(self.folder / "model") == folder_sha256(whole / "model")
        for name in ("history.tsv", "results.json"):
            assert (self.folder / name).read_bytes() == (whole / name).read_bytes(), name
        assert told(self.folder) == told(whole)
        for milestone in (whole / "checkpoints").glob("*/milestones/*"):
            again = next(self.folder.glob(f"checkpoints/*/milestones/{milestone.name}"))
            assert (again / files.TENSORS).read_bytes() == (milestone / files.TENSORS).read_bytes()
        assert not self.checkpoints() and not self.is_writing()
        resumed = [record for record in read_log(self.folder / LOG_NAME) if record["event"] == "resume"]
        self.happened["resumed"] += len(resumed)
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.damaged = ""


def wait(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Until the condition holds or the process ends."""
    while process.poll() is None and not condition():
        time.sleep(0.0005)


@pytest.fixture
def campaign(params: dict, tokens_folder: Path, tokenizer_folder: Path, tmp_path: Path) -> Campaign:
    section = {**params["pretrain"], **CHANGES}
    section["model"] = {**section["model"], "hidden_dropout": 0.1, "attention_dropout": 0.1}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**params, "pretrain": section}, allow_unicode=True), encoding="utf-8")
    command = [
        sys.executable, "-m", "bert_ops", "pretrain", "--params", str(path), "--tokens", str(tokens_folder),
        "--tokenizer", str(tokenizer_folder), "--out", "model", "--metrics", "metrics.json", "--history",
        "history.tsv", "--results", "results.json", "--run-log", LOG_NAME, "--speed-page", "speed.html",
        "--checkpoints", "checkpoints",
    ]  # fmt: skip
    (tmp_path / "killed").mkdir()
    return Campaign(command, tmp_path / "killed", random.Random(SEED))


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(campaign: Campaign, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    done = subprocess.run(campaign.command, capture_output=True, text=True, check=False, cwd=whole)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    # What is to come out the same has to hold what could differ.
    assert read_json(whole / "results.json", made_by="pretrain")["rollbacks"] >= 1
    assert len(list(whole.glob("checkpoints/*/milestones/*"))) == 2
    kills = 0
    while kills < KILLS:
        if campaign.kill(1.2 * took):
            kills += 1
            campaign.damage()
        else:
            campaign.compare(whole)
    assert campaign.end(campaign.start()) == 0, campaign.said
    campaign.compare(whole)
    assert campaign.happened["resumed"] > 0
    sys.stdout.write(f"\n{kills} kills: {dict(sorted(campaign.happened.items()))}\n")
