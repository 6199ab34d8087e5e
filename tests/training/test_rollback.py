"""The guard in the loop: planted NaN and spikes are left out, lead back to a checkpoint, and at last to a diagnosis."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy_runs as toy
from torch import nn

from bert_ops.errors import InputError
from bert_ops.training import checkpoint_files as files
from bert_ops.training.loop import Loss
from bert_ops.training.schedule import rates

NAN = math.nan

#: Units of steps 21, 22 and 23, which are three in a row.
THREE = dict.fromkeys(range(40, 46), NAN)


class Watched:
    """A loss with planted factors, which remembers what it read and with which weights; it may end the process."""

    def __init__(
        self, planted: dict[int, float], *, gradient_alone: bool = False, killed_at: int | None = None
    ) -> None:
        self.planted, self.gradient_alone, self.killed_at = planted, gradient_alone, killed_at
        self.seen: list[tuple[int, list[float]]] = []

    def __call__(self, model: nn.Module, unit: toy.Rows) -> Loss:
        if unit.unit == self.killed_at:
            raise Killed
        self.seen.append((unit.unit, toy.digest(model)))
        value = toy.loss(model, unit).sums["squared"]
        factor = self.planted.get(unit.unit, 1.0)
        if self.gradient_alone and math.isnan(factor):
            # The root of zero is zero; its slope is not finite.
            return Loss({"squared": value + sum((p * 0).abs().sqrt().sum() for p in model.parameters())})
        return Loss({"squared": value * factor})

    def weights(self, unit: int) -> list[float]:
        """Weights that the first pass over a unit was made with."""
        return next(weights for number, weights in self.seen if number == unit)


class Killed(Exception):
    """Stands in for kill -9."""


def run(folder: Path | None, loss: Callable[..., Loss], **changes: Any):
    return toy.trained(toy.plan(folder, loss=loss, **changes))


@pytest.mark.parametrize("gradient_alone", [False, True])
def test_a_step_that_is_no_number_is_left_out_and_counted(tmp_path: Path, gradient_alone: bool) -> None:
    """Weights, moments and average after it are those from before it; data and schedule go on."""
    loss, averages = Watched({20: NAN}, gradient_alone=gradient_alone), []

    def evaluate(model: nn.Module) -> dict[str, float]:
        averages.append(toy.digest(model))
        return toy.evaluate(model)

    changes = {"evaluate": evaluate, "evaluate_at": lambda step: step in {10, 11, 12}}
    model, outcome = run(tmp_path, loss, average_decay=0.9, **changes)
    assert outcome.skipped_steps == 1 and outcome.rollbacks == 0 and outcome.step == 40
    assert loss.weights(22) == loss.weights(20) != loss.weights(18)
    assert averages[0] == averages[1] != averages[2]
    assert [unit for unit, _ in loss.seen] == list(range(80))
    (skip,) = toy.events(tmp_path, "skip")
    assert skip["step"] == 11 and "not " in skip["reason"] and "finite" in skip["reason"]
    assert toy.events(tmp_path, "step")[-1]["skipped"] == 1
    assert all(map(math.isfinite, toy.digest(model)))
    assert outcome.history[-1]["validation_loss"] < 1.0


def test_a_spike_is_left_out(tmp_path: Path) -> None:
    loss = Watched({60: 1000.0, 61: 1000.0})
    _, outcome = run(tmp_path, loss, stability=toy.stability(spike_deviations=8.0))
    assert outcome.skipped_steps == 1
    assert loss.weights(62) == loss.weights(60)
    (skip,) = toy.events(tmp_path, "skip")
    assert skip["step"] == 31 and "deviations over the recent mean" in skip["reason"]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_some_in_a_row_lead_back_to_a_checkpoint_and_on_with_later_data(tmp_path: Path, precision: str, capsys) -> None:
    loss = Watched(THREE)
    model, outcome = run(tmp_path, loss, precision=precision, average_decay=0.5)
    assert (outcome.skipped_steps, outcome.rollbacks, outcome.step) == (3, 1, 40)
    # Step 20 has a checkpoint, but whether its update was good is not known: step 15 it is.
    assert [event["step"] for event in toy.events(tmp_path, "skip")] == [21, 22]
    (back,) = toy.events(tmp_path, "rollback")
    assert (back["step"], back["to_step"], back["rate_scale"]) == (23, 15, 0.5)
    assert "not a finite number" in back["reason"]
    assert "rolled back from step 23 to step 15, learning rate now 0.5" in capsys.readouterr().err
    # The weights of step 15 read on where the data stood.
    assert [unit for unit, _ in loss.seen] == list(range(46 + 2 * 25))
    assert loss.weights(46) == loss.weights(30)
    plan = toy.plan()
    wanted = rates(plan.schedule, learning_rate=0.05, total_steps=40)
    lines = toy.events(tmp_path, "step")
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 16, 20, 24, 28, 32, 36, 40]
    scaled = [1.0] * 5 + [0.5] * 7
    for line, scale in zip(lines, scaled, strict=True):
        assert line["learning_rate"] == pytest.approx(scale * wanted[line["step"] - 1])
        assert math.isfinite(line["loss"])
    assert [row["step"] for row in outcome.history] == [10, 20, 30, 40]
    assert outcome.tokens == 40 * 16 and outcome.tokens_here == 16 * (22 + 25)
    assert all(map(math.isfinite, toy.digest(model)))


def test_best_weights_that_a_rollback_undoes_are_the_best_no_more(tmp_path: Path) -> None:
    scores = iter([2.0, 1.0, 3.0, 3.0, 3.0])
    measured: list[list[float]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        measured.append(toy.digest(model))
        return {"validation_loss": next(scores)}

    model, outcome = run(tmp_path, Watched(THREE), evaluate=evaluate)
    assert [event["step"] for event in toy.events(tmp_path, "evaluation")] == [10, 20, 20, 30, 40]
    assert (outcome.best_step, outcome.best_score) == (10, 2.0)
    assert toy.digest(model) == measured[0]


def test_what_was_undone_is_not_gone_back_to(tmp_path: Path) -> None:
    """Step 20 has a checkpoint before the rollback; after it that step is left out, and has none."""
    planted = {**THREE, 54: NAN, **dict.fromkeys(range(58, 64), NAN)}
    run(tmp_path, Watched(planted))
    assert [event["step"] for event in toy.events(tmp_path, "skip")] == [21, 22, 20, 22, 23]
    assert [event["to_step"] for event in toy.events(tmp_path, "rollback")] == [15, 15]


def test_old_weights_are_judged_by_the_losses_of_their_time(tmp_path: Path) -> None:
    """So a spike right after a rollback is one; with no losses to compare it with, it would be learned from."""
    planted = {**dict.fromkeys(range(60, 66), 1000.0), 68: 1000.0}
    run(tmp_path, Watched(planted), stability=toy.stability(spike_deviations=8.0), when=toy.checkpoints(every_steps=7))
    assert [event["to_step"] for event in toy.events(tmp_path, "rollback")] == [28]
    assert [event["step"] for event in toy.events(tmp_path, "skip")] == [31, 32, 30]


def test_if_it_comes_again_the_run_stops_with_a_diagnosis(tmp_path: Path) -> None:
    loss = Watched(dict.fromkeys(range(40, 200), NAN))
    with pytest.raises(InputError) as caught:
        run(tmp_path, loss)
    text = str(caught.value)
    assert "testing: training is not stable: 9 steps were left out; 2 rollbacks did not mend it" in text
    assert "loss nan" in text and "optimizer.learning_rate" in text
    assert [event["to_step"] for event in toy.events(tmp_path, "rollback")] == [15, 15]
    (stop,) = toy.events(tmp_path, "stop")
    assert "not stable" in stop["reason"]
    # The same command again comes to the same end, and leaves the checkpoints for another try.
    with pytest.raises(InputError, match="9 steps were left out; 2 rollbacks"):
        run(tmp_path, loss)
    assert toy.store(tmp_path).newest() is not None


def test_without_checkpoints_it_stops_at_once() -> None:
    with pytest.raises(InputError, match="not stable: 3 steps were left out"):
        run(None, Watched(THREE))


def test_from_the_first_steps_it_goes_back_to_the_beginning(tmp_path: Path) -> None:
    loss = Watched(dict.fromkeys(range(6), NAN))
    _, outcome = run(tmp_path, loss)
    assert [event["to_step"] for event in toy.events(tmp_path, "rollback")] == [0]
    assert loss.weights(6) == loss.weights(0)
    assert outcome.step == 40


@pytest.mark.parametrize("damaged", [{15}, {15, 10}])
def test_a_damaged_checkpoint_is_not_gone_back_to(tmp_path: Path, damaged: set[int], capsys) -> None:
    """With the one before it in place the run goes further back; with none it says that it cannot."""
    when = toy.checkpoints(keep_last=3)

    class Damaging(Watched):
        def __call__(self, model: nn.Module, unit: toy.Rows) -> Loss:
            if unit.unit == 44:
                for path in toy.store(tmp_path).steps():
                    if files.step_of(path) in damaged:
                        (path / files.TENSORS).write_bytes(b"nothing")
            return super().__call__(model, unit)

    if 10 not in damaged:
        run(tmp_path, Damaging(THREE), when=when)
        assert [event["to_step"] for event in toy.events(tmp_path, "rollback")] == [10]
    else:
        with pytest.raises(InputError, match="not stable: 3 steps"):
            run(tmp_path, Damaging(THREE), when=when)
    assert "skipping the damaged checkpoint step-00000015" in capsys.readouterr().err


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """A run with a skipped step, two rollbacks and a growing loss scale that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder, Watched(PLANTED), **CHANGES), toy.told(folder)


PLANTED = {11: NAN, **THREE, **dict.fromkeys(range(58, 64), NAN)}
CHANGES: dict[str, Any] = {"precision": "float16", "average_decay": 0.9, "when": toy.checkpoints(keep_best=1)}


def assert_same(found, folder: Path, whole) -> None:
    (model, outcome), log = whole
    assert outcome.rollbacks == 2 and outcome.skipped_steps == 7
    assert toy.digest(found[0]) == toy.digest(model)
    for name in ("history", "tokens", "best_step", "best_score", "position", "skipped_steps", "rollbacks"):
        assert getattr(found[1], name) == getattr(outcome, name), name
    assert toy.told(folder) == log


@pytest.mark.parametrize("every_s", [1e-9, 1e6], ids=["by the clock", "by steps"])
@pytest.mark.parametrize("unit", [*range(38, 50, 3), 57, 61, 63, 64, 70])
def test_killed_before_between_and_after_it_comes_to_the_same(tmp_path: Path, whole, unit: int, every_s) -> None:
    changes = {**CHANGES, "when": toy.checkpoints(keep_best=1, every_s=every_s)}
    with pytest.raises(Killed):
        run(tmp_path, Watched(PLANTED, killed_at=unit), **changes)
    assert_same(run(tmp_path, Watched(PLANTED), **changes), tmp_path, whole)


def test_killed_again_and_again_it_comes_to_the_same(tmp_path: Path, whole) -> None:
    changes = {**CHANGES, "when": toy.checkpoints(keep_best=1, every_s=1e-9)}
    for unit in range(41, 90, 4):
        with pytest.raises(Killed):
            run(tmp_path, Watched(PLANTED, killed_at=unit), **changes)
    assert_same(run(tmp_path, Watched(PLANTED), **changes), tmp_path, whole)


def test_a_newest_checkpoint_that_is_lost_changes_nothing(tmp_path: Path, whole) -> None:
    for unit in (47, 66):
        with pytest.raises(Killed):
            run(tmp_path, Watched(PLANTED, killed_at=unit), **CHANGES)
        shutil.rmtree(toy.store(tmp_path).steps()[-1])
    assert_same(run(tmp_path, Watched(PLANTED), **CHANGES), tmp_path, whole)


def test_what_stays_are_the_last_the_best_the_milestones_and_two_to_go_back_to(tmp_path: Path) -> None:
    scores = iter([2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    when = toy.checkpoints(every_steps=4, every_s=1e-9, keep_last=2, keep_best=1, milestone_steps=15)
    run(
        tmp_path,
        Watched({}),
        when=when,
        evaluate=lambda _: {"validation_loss": next(scores)},
        evaluate_at=lambda step: step % 5 == 0,
    )
    kept = [(entry.step, entry.kind) for entry in map(files.inspect, toy.store(tmp_path).steps())]
    assert (15, "milestone") in kept and (30, "milestone") in kept
    assert [step for step, kind in kept if kind == "step"] == [32, 36]
    assert kept[-1][0] >= 36
    # Step 10 was the best; a checkpoint by the clock is left out where the one before is still being written.
    assert len([step for step, kind in kept if kind == "time"]) <= 2 + 1
