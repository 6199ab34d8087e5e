"""A run of fine-tuning that is cut short goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tasks

from bert_ops.errors import InputError
from bert_ops.finetune import stage
from bert_ops.finetune.runs import folds, interval
from bert_ops.io import folder_sha256
from bert_ops.training.loop import Trainer
from bert_ops.training.run_log import deterministic, read_log


class Cut(Exception):
    """The process dies."""


@pytest.fixture
def make(tmp_path: Path, params: dict, pretrained_folder: Path) -> Callable[..., argparse.Namespace]:
    def make(name: str, layers: dict[str, Any] | None = None, **changes: Any) -> argparse.Namespace:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        tasks.frame_of("one").to_parquet(tmp_path / "examples.parquet")
        often = params["finetune"]["checkpoints"] | {"every_steps": 4}
        settings = {"epochs": 2, "evaluations_per_epoch": 3, "average_decay": 0.9, "token_masking": 0.2}
        changed = settings | {"checkpoints": often, "hidden_dropout": 0.1} | changes
        changed["layers"] = params["finetune"]["layers"] | (layers or {})
        return argparse.Namespace(
            params=tasks.write_params(folder, params, "one", **changed),
            task="one",
            init=pretrained_folder,
            examples=tmp_path / "examples.parquet",
            out=folder / "model",
            history=folder / "history.tsv",
            metrics=folder / "metrics.json",
            run_log=folder / "log.jsonl",
            checkpoints=folder / "checkpoints",
        )

    return make


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Die at the n-th step from now on; returns the list of steps that were made."""
    plain = Trainer._step

    def cut(after: int) -> list[int]:
        made: list[int] = []

        def step(trainer: Any) -> Any:
            if len(made) == after:
                raise Cut
            made.append(trainer.run.step)
            return plain(trainer)

        monkeypatch.setattr(Trainer, "_step", step)
        return made

    return cut


LAYERS = {
    "train": "all",
    "top": None,
    "freeze_embeddings": False,
    "rate_decay": 1.0,
    "unfreeze_over": 0.0,
    "reinitialized": 0,
    "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.1, "modules": ["query", "up"]},
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch": {"examples": 16, "layout": "packed"}, "label_smoothing": 0.1, "keep": "metric"},
        {"layers": LAYERS | {"train": "lora"}},
        {"layers": LAYERS | {"unfreeze_over": 0.8}},
    ],
    ids=["plain", "packed", "lora", "unfreezing"],
)
def test_a_run_that_died_twice_ends_with_the_same_bytes(
    changes: dict[str, Any], make: Callable[..., argparse.Namespace], cut: Callable[[int], list[int]]
) -> None:
    whole = make("whole", **changes)
    everything = cut(-1)
    stage.run(whole)
    died = make("died", **changes)
    for after in (7, 9):
        made = cut(after)
        with pytest.raises(Cut):
            stage.run(died)
        assert not died.out.exists()
    made = cut(-1)
    stage.run(died)
    assert 0 < len(made) < len(everything) == 24 and made[-1] == 23
    assert folder_sha256(died.out) == folder_sha256(whole.out)
    assert died.history.read_text() == whole.history.read_text()
    assert deterministic(read_log(died.run_log)) == deterministic(read_log(whole.run_log))
    assert [path for path in died.checkpoints.rglob("*") if path.is_file()] == []


def test_other_parameters_begin_anew(make: Callable[..., argparse.Namespace], cut: Callable[[int], list[int]]) -> None:
    options = make("run")
    cut(9)
    with pytest.raises(Cut):
        stage.run(options)
    options.params = make("run", classifier_dropout=0.3).params
    assert cut(-1) == []
    made = cut(-1)
    stage.run(options)
    assert made == list(range(24))


class TestRepeats:
    def test_seeds_say_how_far_the_score_depends_on_chance(
        self, make: Callable[..., argparse.Namespace], cut: Callable[[int], list[int]]
    ) -> None:
        single = make("single")
        stage.run(single)
        several = make("several", runs={"kind": "seeds", "count": 3})
        made = cut(50)  # the third run is cut
        with pytest.raises(Cut):
            stage.run(several)
        made = cut(-1)
        stage.run(several)
        assert len(made) < 24 + 24  # not the whole of three runs: the end of the first, and the third
        runs = json.loads(several.metrics.read_text())["runs"]
        assert (runs["kind"], runs["metric"], len(runs["scores"])) == ("seeds", "accuracy", 3)
        assert runs["mean"] == pytest.approx(sum(runs["scores"]) / 3)
        assert runs["ci95"][0] <= runs["mean"] <= runs["ci95"][1]
        assert folder_sha256(several.out) == folder_sha256(single.out)  # the luckiest is not chosen

    def test_folds_hold_every_example_out_once(self, make: Callable[..., argparse.Namespace]) -> None:
        options = make("folds", runs={"kind": "folds", "count": 3}, epochs=1, evaluations_per_epoch=1)
        stage.run(options)
        runs = json.loads(options.metrics.read_text())["runs"]
        assert (runs["kind"], len(runs["scores"])) == ("folds", 3)

    def test_clusters_stay_together_and_the_test_split_out(
        self, tmp_path: Path, params: dict, pretrained_folder: Path
    ) -> None:
        frame = tasks.frame_of("one")
        frame["cluster"] = [f"{number // 3}" for number in range(len(frame))]
        data, _, _ = tasks.setting(tmp_path, params, "one", pretrained_folder, frame=frame)
        parts = folds(data, count=4, seed=1)
        held = [name for part in parts for name in part.splits["validation"].example_ids]
        wanted = frame.loc[frame["split"] != "test", "example_id"]
        assert sorted(held) == sorted(wanted)
        for part in parts:
            train, validation = part.splits["train"], part.splits["validation"]
            assert not set(train.clusters) & set(validation.clusters)
            assert sorted(train.example_ids + validation.example_ids) == sorted(wanted)
            assert part.splits["test"].example_ids == data.splits["test"].example_ids
            assert validation.items.example.tolist() == list(range(len(validation)))

    def test_more_folds_than_clusters_are_refused(self, tmp_path: Path, params: dict, pretrained_folder: Path) -> None:
        data, _, _ = tasks.setting(
            tmp_path, params, "one", pretrained_folder, frame=tasks.frame_of("one").assign(cluster="a")
        )
        with pytest.raises(InputError, match="2 folds of 1 distinct examples"):
            folds(data, count=2, seed=1)

    def test_the_interval_is_students(self) -> None:
        found = interval([0.8, 0.9, 1.0])
        assert found["mean"] == pytest.approx(0.9) and found["deviation"] == pytest.approx(0.1)
        assert found["ci95"] == pytest.approx([0.9 - 4.3027 * 0.1 / 3**0.5, 0.9 + 4.3027 * 0.1 / 3**0.5], abs=1e-4)


def test_training_ends_when_its_patience_does(make: Callable[..., argparse.Namespace]) -> None:
    flat = {"kind": "constant", "warmup_share": 0.0, "final_share": 1.0}
    rate = {"kind": "sgd", "learning_rate": 1e-9, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    options = make(
        "patient", epochs=40, early_stopping={"patience": 2}, optimizer=rate, schedule=flat, keep="metric",
        average_decay=0.0, token_masking=0.0,
    )  # fmt: skip
    stage.run(options)
    metrics = json.loads(options.metrics.read_text())
    assert metrics["steps"] == metrics["best_step"] + 2 * 4 < 100


def test_patience_begins_when_all_layers_have_joined(make: Callable[..., argparse.Namespace]) -> None:
    """Until then the loss may well stand still, which says nothing of the layers that are to come."""
    flat = {"kind": "constant", "warmup_share": 0.0, "final_share": 1.0}
    rate = {"kind": "sgd", "learning_rate": 1e-9, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}
    options = make(
        "joining", epochs=8, early_stopping={"patience": 1}, optimizer=rate, schedule=flat, keep="metric",
        average_decay=0.0, token_masking=0.0, layers={"unfreeze_over": 0.5},
    )  # fmt: skip
    stage.run(options)
    metrics = json.loads(options.metrics.read_text())
    assert metrics["best_step"] < metrics["steps"] / 2 < metrics["steps"] < 8 * 16


def test_what_it_cost_is_said_and_kept(make: Callable[..., argparse.Namespace], capsys) -> None:
    options = make("frugal", epochs=1, layers={"train": "head"})
    stage.run(options)
    metrics = json.loads(options.metrics.read_text())
    assert 0 < metrics["trained_share"] == metrics["trained_parameters"] / metrics["parameters"] < 0.5
    assert metrics["memory_mib"] > 0 and metrics["seconds"] > 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{metrics['trained_parameters']:,} parameters ({metrics['trained_share']:.2%}) trained in" in last
    assert f"up to {metrics['memory_mib']:,.0f} MiB of memory" in last


def test_a_small_training_split_is_trained_on_for_the_least_number_of_steps(
    make: Callable[..., argparse.Namespace],
) -> None:
    options = make("few", epochs=1, min_steps=30, evaluations_per_epoch=1)
    stage.run(options)
    metrics = json.loads(options.metrics.read_text())
    assert metrics["steps"] == 30
    rows = options.history.read_text().splitlines()
    assert len(rows) == 1 + 2 and rows[-1].split("\t")[:2] == ["30", "2.5"]
