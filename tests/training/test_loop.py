"""The loop: learns, clips, keeps the best, and resumes bit for bit where it was killed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from bert_ops.errors import ArtifactError, InputError
from bert_ops.seeding import derive
from bert_ops.training import checkpoint
from bert_ops.training.averaging import WeightAverage
from bert_ops.training.device import prepare
from bert_ops.training.loop import Loss, Plan, train
from bert_ops.training.optimizer import adamw, learning_rate_share
from bert_ops.training.params import AdamWParams

OPTIMIZER = AdamWParams(kind="adamw", learning_rate=0.05, weight_decay=0.01, beta1=0.9, beta2=0.98, epsilon=1e-6)


def batches(step: int) -> Iterator[torch.Tensor]:
    for number in count(step):
        generator = torch.Generator().manual_seed(derive(1, number))
        yield torch.randn(16, 4, generator=generator)


def loss(model: nn.Module, x: torch.Tensor) -> Loss:
    # Dropout makes the result depend on torch's generator, which a checkpoint must therefore hold.
    error = (model(nn.functional.dropout(x, 0.05, training=model.training))[:, 0] - x.sum(1)).pow(2).mean()
    return Loss(total=error, tokens=x.shape[0])


def plan(**changes) -> Plan:
    fixed = next(batches(10_000))
    values = {
        "what": "testing",
        "total_steps": 40,
        "batches": batches,
        "loss": loss,
        "learning_rate": lambda step: 0.05 * learning_rate_share(step, total=40, warmup=5, kind="linear", final=0.0),
        "evaluate": lambda model: {
            "validation_loss": float((model(fixed)[:, 0] - fixed.sum(1)).pow(2).mean().detach())
        },
        "evaluate_at": frozenset(range(10, 40, 10)),
        "best": "validation_loss",
        "clip_norm": 1.0,
        "precision": "float32",
    }
    return Plan(**{**values, **changes})


def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
    prepare(threads=1, seed=7)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, adamw(model, OPTIMIZER)


def digest(model: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()


def test_the_loss_falls_and_the_history_is_complete() -> None:
    model, optimizer = fresh()
    untrained = plan().evaluate(model.eval())["validation_loss"]
    run = train(plan(), model, optimizer)
    assert [row["step"] for row in run.history] == [10, 20, 30, 40]
    assert run.history[-1]["validation_loss"] < 0.5 * untrained
    assert run.tokens == 40 * 16


def test_the_same_seed_gives_the_same_weights() -> None:
    results = []
    for _ in range(2):
        model, optimizer = fresh()
        train(plan(), model, optimizer)
        results.append(digest(model))
    assert results[0] == results[1]


def test_the_best_weights_are_kept() -> None:
    scores = iter([3.0, 1.0, 2.0, 5.0])
    kept: list[list[float]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        kept.append(digest(model))
        return {"validation_loss": next(scores)}

    model, optimizer = fresh()
    run = train(plan(evaluate=evaluate), model, optimizer)
    assert (run.best_step, run.best_score) == (20, 1.0)
    assert digest(model) == kept[1] != kept[3]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_resuming_gives_bit_identical_weights_and_history(tmp_path: Path, average: float) -> None:
    model, optimizer = fresh()
    whole = train(plan(average_decay=average), model, optimizer)
    expected = digest(model)

    class Interrupted(Exception):
        pass

    for stop in (1, 13, 27, 39):
        folder = tmp_path / str(stop)

        def stopping(step: int, stop: int = stop) -> Iterator[torch.Tensor]:
            for number, batch in enumerate(batches(step), start=step):
                if number == stop:
                    raise Interrupted
                yield batch

        model, optimizer = fresh()
        saving = plan(checkpoint_folder=folder, checkpoint_every_s=0.0, average_decay=average)
        with pytest.raises(Interrupted):
            train(replace(saving, batches=stopping), model, optimizer)
        torch.manual_seed(99)
        model, optimizer = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), None
        run = train(saving, model, adamw(model, OPTIMIZER))
        assert run.tokens_here == (40 - stop) * 16
        assert digest(model) == expected
        assert run.history == whole.history
        assert run.best_step == whole.best_step


def test_the_average_is_what_is_measured_and_kept() -> None:
    measured: list[list[float]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        measured.append(digest(model))
        return {"validation_loss": -float(len(measured))}

    model, optimizer = fresh()
    train(plan(evaluate=evaluate, average_decay=0.9), model, optimizer)
    averaged = digest(model)
    model, optimizer = fresh()
    train(plan(best=None), model, optimizer)
    assert averaged == measured[-1] != digest(model)
    model, optimizer = fresh()
    train(plan(best=None, average_decay=0.9), model, optimizer)
    assert averaged == digest(model)


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 3.0)
    average.update(model, step=1)  # keeps min(0.5, 2 / 11)
    assert average.tensors["weight"].item() == pytest.approx(1 * 2 / 11 + 3 * 9 / 11)
    average.update(model, step=100)
    assert average.tensors["weight"].item() == pytest.approx(0.5 * (1 * 2 / 11 + 3 * 9 / 11) + 1.5)
    with average.applied(model):
        assert model.weight.item() == pytest.approx(average.tensors["weight"].item())
    assert model.weight.item() == 3.0


def test_a_step_without_a_finite_gradient_is_skipped_and_counted() -> None:
    def sometimes(model: nn.Module, x: torch.Tensor) -> Loss:
        bad = loss(model, x)
        factor = math.nan if float(x[0, 0]) > 1.5 else 1.0
        return replace(bad, total=bad.total * factor)

    model, optimizer = fresh()
    run = train(plan(loss=sometimes), model, optimizer)
    assert 0 < run.skipped_steps < 10
    assert all(math.isfinite(value) for value in digest(model))


def test_a_run_that_diverged_says_so() -> None:
    def never(model: nn.Module, x: torch.Tensor) -> Loss:
        bad = loss(model, x)
        return replace(bad, total=bad.total * math.inf)

    model, optimizer = fresh()
    with pytest.raises(InputError, match="not finite for 20 steps"):
        train(plan(loss=never), model, optimizer)


class TestCheckpoints:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        model, optimizer = fresh()
        for step in (5, 6, 7):
            train(plan(total_steps=step, evaluate_at=frozenset()), model, optimizer)
            tensors = checkpoint.pack(model, optimizer, None)
            checkpoint.save(tmp_path, checkpoint.Checkpoint(step=step, tensors=tensors, state={"history": []}))
        return tmp_path

    def test_the_last_two_are_kept(self, folder: Path) -> None:
        assert [path.name for path in checkpoint.steps(folder)] == ["step-00000006", "step-00000007"]

    @pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    def test_a_damaged_one_falls_back_to_the_one_before(self, folder: Path, name: str, damage: str, capsys) -> None:
        path = folder / "step-00000007" / name
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 4
            path.write_bytes(content)
        elif damage == "truncate":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
        found = checkpoint.newest(folder)
        assert found is not None and found.step == 6
        assert "damaged checkpoint" in capsys.readouterr().err

    def test_all_damaged_means_none(self, folder: Path) -> None:
        for path in checkpoint.steps(folder):
            (path / "state.json").write_text("{}")
        assert checkpoint.newest(folder) is None

    def test_no_pickle_is_written(self, folder: Path) -> None:
        assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".safetensors", ".json"}

    def test_a_second_trainer_is_told_who_holds_the_folder(self, tmp_path: Path) -> None:
        with (
            checkpoint.lock(tmp_path),
            pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
            checkpoint.lock(tmp_path),
        ):
            pass
        with checkpoint.lock(tmp_path):
            pass

    def test_a_full_disk_costs_the_checkpoint_and_not_the_run(self, tmp_path: Path, monkeypatch, capsys) -> None:
        def full(*_args, **_kwargs) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "save_file", full)
        model, optimizer = fresh()
        run = train(plan(checkpoint_folder=tmp_path, checkpoint_every_s=0.0), model, optimizer)
        assert run.step == 40
        assert "disk is full" in capsys.readouterr().err
        assert checkpoint.steps(tmp_path) == []


def test_killed_at_random_moments_training_ends_as_if_it_had_not_been(
    tmp_path: Path, params_file: Path, tokens_folder: Path, tokenizer_folder: Path, pretrained_folder: Path
) -> None:
    """SIGKILL the real stage a few times, then let it finish: same bytes as the run that was never killed."""
    import yaml

    params = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    params["pretrain"]["checkpoint_every_s"] = 1e-6
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    command = [
        sys.executable, "-m", "bert_ops", "pretrain", "--params", str(tmp_path / "params.yaml"),
        "--tokens", str(tokens_folder), "--tokenizer", str(tokenizer_folder), "--out", str(tmp_path / "model"),
        "--metrics", str(tmp_path / "m.json"), "--history", str(tmp_path / "h.tsv"),
        "--results", str(tmp_path / "r.json"), "--speed-page", str(tmp_path / "s.html"),
        "--checkpoints", str(tmp_path / "checkpoints"),
    ]  # fmt: skip
    for wanted in (3, 16):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            steps = [int(p.name[5:]) for p in tmp_path.glob("checkpoints/*/step-*")]
            if steps and max(steps) >= wanted:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "model").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stderr
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (pretrained_folder / name).read_bytes()
    assert not list(tmp_path.glob("checkpoints/*/step-*"))


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_schedules_rise_to_the_peak_and_fall_to_the_end(kind: str) -> None:
    shares = [learning_rate_share(s, total=100, warmup=10, kind=kind, final=0.1) for s in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == pytest.approx(1.0)
    assert all(0 <= share <= 1 for share in shares)
    if kind == "constant":
        assert shares[-1] == 1.0
    else:
        assert shares[-1] == pytest.approx(0.1, abs=0.02)
        assert all(a >= b for a, b in pairwise(shares[10:]))


def test_a_warmup_that_never_ends_is_refused() -> None:
    with pytest.raises(InputError, match="warmup takes 10 steps and training ends after 10"):
        learning_rate_share(0, total=10, warmup=10, kind="linear", final=0.0)


def test_biases_and_norms_do_not_decay() -> None:
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    decayed, plain = adamw(model, OPTIMIZER).param_groups
    assert [p.ndim for p in decayed["params"]] == [2, 2] and decayed["weight_decay"] == 0.01
    assert [p.ndim for p in plain["params"]] == [1, 1, 1] and plain["weight_decay"] == 0.0


def test_a_missing_checksum_file_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        checkpoint.read(tmp_path)
