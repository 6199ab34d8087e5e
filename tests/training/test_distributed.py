"""Two processes make the step of one: the same result, whole checkpoints, any number of processes afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bert_ops.errors import InputError
from bert_ops.io import read_json
from bert_ops.training.distributed import from_environment
from bert_ops.training.run_log import deterministic, read_log

pytestmark = pytest.mark.slow

#: Gradients are summed in another order; 24 steps of AdamW in float32 carry the difference on.
TOLERANCE = 2e-4


class Launcher:
    """Runs the pretraining stage on some processes."""

    def __init__(self, params: dict, tokens: Path, tokenizer: Path, root: Path) -> None:
        self.tokens, self.tokenizer, self.root = tokens, tokenizer, root
        self.params = yaml.safe_load(yaml.safe_dump(params))
        self.params["pretrain"] |= {"precision": "float32", "steps": 24, "evaluate_every_steps": 12}
        self.params["pretrain"]["model"] |= {"hidden_dropout": 0.1, "attention_dropout": 0.1}
        self.params["pretrain"]["averaging"] = {"decay": 0.9}

    def command(self, name: str, *, processes: int, **changes) -> list[str]:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        value = {**self.params, "pretrain": {**self.params["pretrain"], **changes}}
        (folder / "params.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
        start = [sys.executable, "-m"]
        if processes > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        return [
            *start, "bert_ops", "pretrain", "--params", str(folder / "params.yaml"),
            "--tokens", str(self.tokens), "--tokenizer", str(self.tokenizer), "--out", str(folder / "model"),
            "--metrics", str(folder / "metrics.json"), "--history", str(folder / "history.tsv"),
            "--results", str(folder / "results.json"), "--run-log", str(folder / "log.jsonl"),
            "--speed-page", str(folder / "speed.html"), "--checkpoints", str(self.root / "checkpoints" / name),
        ]  # fmt: skip

    def run(self, name: str, *, processes: int, **changes) -> Path:
        done = subprocess.run(
            self.command(name, processes=processes, **changes),
            capture_output=True, text=True, check=False, env=environment(), timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return self.root / name


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def launcher(params, tokens_folder, tokenizer_folder, tmp_path_factory) -> Launcher:
    return Launcher(params, tokens_folder, tokenizer_folder, tmp_path_factory.mktemp("distributed"))


@pytest.fixture(scope="module")
def alone(launcher: Launcher) -> Path:
    return launcher.run("alone", processes=1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_close(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=TOLERANCE), (name, (tensor - theirs[name]).abs().max())


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_train_what_one_trains(launcher: Launcher, alone: Path, sharded: bool) -> None:
    two = launcher.run(f"two-{sharded}", processes=2, sharded=sharded)
    assert_close(alone, two)
    one_log, two_log = (deterministic(read_log(folder / "log.jsonl")) for folder in (alone, two))
    steps = [[record["step"] for record in log if record["event"] == "step"] for log in (one_log, two_log)]
    assert steps[0] == steps[1]
    one, other = (read_json(folder / "results.json", made_by="pretrain") for folder in (alone, two))
    assert one["tokens_seen"] == other["tokens_seen"]
    assert one["mlm_loss"] == pytest.approx(other["mlm_loss"], rel=1e-4)


@pytest.mark.parametrize(("first", "then", "sharded"), [(2, 1, False), (1, 2, True)])
def test_a_run_goes_on_with_another_number_of_processes(
    launcher: Launcher, alone: Path, first: int, then: int, sharded: bool
) -> None:
    name = f"changed-{first}-{then}"
    checkpoints = {**launcher.params["pretrain"]["checkpoints"], "every_s": 1e-6}
    command = launcher.command(name, processes=first, sharded=sharded, checkpoints=checkpoints)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True)
    folder = launcher.root / "checkpoints" / name
    while process.poll() is None and not list(folder.glob("*/step-0000001[0-9]")):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = launcher.run(name, processes=then, sharded=sharded, checkpoints=checkpoints)
    assert [record["step"] for record in read_log(done / "log.jsonl") if record["event"] == "resume"][0] >= 10
    assert_close(alone, done)


def test_a_batch_that_the_processes_cannot_share_is_refused(launcher: Launcher) -> None:
    batch = {**launcher.params["pretrain"]["batch"], "tokens": 192 * 3}
    done = subprocess.run(
        launcher.command("odd", processes=2, batch=batch),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode != 0
    assert "batch.tokens 576 is no multiple of 384 (2 × 192 tokens a pass)" in done.stderr


def test_divided_weights_refuse_what_they_cannot_do(launcher: Launcher) -> None:
    batch = {**launcher.params["pretrain"]["batch"], "micro_tokens": "auto"}
    command = launcher.command("auto", processes=2, batch=batch, sharded=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode != 0
    assert "`pretrain.batch.micro_tokens` is auto and pretrain.sharded is true" in done.stderr


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="RANK is ''"), from_environment(sharded=False):
        pass
