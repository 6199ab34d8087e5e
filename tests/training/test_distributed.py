"""Two processes make the step of one: the same result, whole checkpoints, any number of processes afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bert_ops.errors import InputError
from bert_ops.io import read_json
from bert_ops.pretrain import fitting
from bert_ops.pretrain.params import PretrainParams
from bert_ops.training.distributed import Sharded, from_environment
from bert_ops.training.run_log import deterministic, read_log

pytestmark = pytest.mark.slow

#: Gradients are summed in another order; 24 steps of AdamW in float32 carry the difference on.
TOLERANCE = 2e-4


#: A trainer whose processes die without a word after step 9.
DYING = """
import os, sys
from bert_ops.__main__ import main
from bert_ops.training.loop import Trainer

checkpoint_if_due = Trainer._checkpoint_if_due

def die(self, **arguments):
    checkpoint_if_due(self, **arguments)
    if self.run.step == 9:
        self.plan.store.flush()
        self.workers.barrier()
        os._exit(9)

Trainer._checkpoint_if_due = die
sys.exit(main(sys.argv[1:]))
"""


class Launcher:
    """Runs the pretraining stage on some processes."""

    def __init__(self, params: dict, tokens: Path, tokenizer: Path, root: Path) -> None:
        self.tokens, self.tokenizer, self.root = tokens, tokenizer, root
        self.params = yaml.safe_load(yaml.safe_dump(params))
        self.params["pretrain"] |= {"precision": "float32", "steps": 24, "evaluate_every_steps": 12}
        self.params["pretrain"]["model"] |= {"hidden_dropout": 0.1, "attention_dropout": 0.1}
        self.params["pretrain"]["averaging"] = {"decay": 0.9}

    def command(
        self, name: str, *, processes: int, program: tuple[str, ...] = ("-m", "bert_ops"), **changes
    ) -> list[str]:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        value = {**self.params, "pretrain": {**self.params["pretrain"], **changes}}
        (folder / "params.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        return [
            *start, *program, "pretrain", "--params", str(folder / "params.yaml"),
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


@pytest.mark.parametrize(("first", "then"), [((2, True), (1, False)), ((1, False), (2, False))])
def test_a_run_goes_on_with_another_number_of_processes(launcher: Launcher, alone: Path, first, then) -> None:
    name = f"changed-{first[0]}-{then[0]}"
    checkpoints = {**launcher.params["pretrain"]["checkpoints"], "every_steps": 8}
    dying = launcher.root / "dying.py"
    dying.write_text(DYING, encoding="utf-8")
    command = launcher.command(
        name, processes=first[0], program=(str(dying),), sharded=first[1], checkpoints=checkpoints
    )
    killed = subprocess.run(command, capture_output=True, check=False, env=environment(), timeout=240)
    assert killed.returncode != 0
    done = launcher.run(name, processes=then[0], sharded=then[1], checkpoints=checkpoints)
    resumed = [record["step"] for record in read_log(done / "log.jsonl") if record["event"] == "resume"]
    assert resumed == [8]
    assert_close(alone, done)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"batch": {"tokens": 384, "micro_tokens": "auto", "growth": {"kind": "constant"}}},
            "batch.micro_tokens` is auto",
        ),
        ({"precision": "float16"}, "precision` is float16"),
        (
            {
                "batch": {
                    "tokens": 384,
                    "micro_tokens": 192,
                    "growth": {
                        "kind": "noise_scale",
                        "min_tokens": 384,
                        "every_steps": 5,
                        "smoothing": 0.9,
                        "factor": 1.0,
                        "rate_scaling": "none",
                    },
                }
            },
            "batch.growth` is noise_scale",
        ),
    ],
)
def test_divided_weights_refuse_what_they_cannot_do(params: dict, change: dict, message: str) -> None:
    section = PretrainParams.model_validate({**params["pretrain"], **change, "sharded": True})
    with pytest.raises(InputError, match=message):
        fitting.check_sharding(section, Sharded(torch.device("cpu"), rank=0, world=2))


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="RANK is ''"), from_environment(sharded=False):
        pass
