"""The benchmark of fine-tuning: that its quick run measures both sides and prints every key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PEERS = {"trainer", "best"}
KEYS = {"examples_per_second", "accuracy", "accuracy_trainer", "load_before"}


@pytest.mark.slow
def test_a_quick_run_prints_every_key(tmp_path: Path, corpus: Path, pretrained_folder: Path, params_file: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "finetuning.py", "--quick", "--peers", "dynamic", "best"]
    command += ["--init", pretrained_folder, "--examples", corpus / "examples" / "sentiment.parquet"]
    command += ["--params", params_file]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    ratios = {f"ratio_{peer}" for peer in PEERS}
    assert told.keys() == KEYS | ratios | {f"{name}_spread" for name in ratios}
    assert told["examples_per_second"].keys() == {"ours", "dynamic", "best"}
    assert all(told[name] > 0 for name in ratios)
    assert len(told["accuracy"]) == len(told["accuracy_trainer"]) == 1
    assert all(0 <= told[name][0] <= 1 for name in ("accuracy", "accuracy_trainer"))
