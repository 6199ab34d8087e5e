"""SIGTERM and SIGINT: break off or finish, write a checkpoint, say where the run stands; nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy_runs as toy
from torch import nn

from bert_ops.errors import BertOpsError
from bert_ops.training import checkpoint_files as files
from bert_ops.training.averaging import WeightAverage
from bert_ops.training.interruption import SIGNALS, Interruption, Stopped
from bert_ops.training.loop import Loss

CODES = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_asks_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with Interruption() as interruption:
        assert interruption.requested is None
        signal.raise_signal(number)
        assert interruption.requested == number.name
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize(("number", "code"), CODES)
def test_inside_the_block_it_raises_at_once_and_outside_it_does_not(number: signal.Signals, code: int) -> None:
    reached = []
    with Interruption() as interruption:
        with interruption.raise_inside():
            reached.append("block")
        with pytest.raises(Stopped) as caught, interruption.raise_inside():
            signal.raise_signal(number)
            reached.append("never")
        assert caught.value.exit_code == code
        with pytest.raises(Stopped), interruption.raise_inside():
            reached.append("never: it was asked before")
    assert reached == ["block"]
    assert BertOpsError.exit_code == 2  # the code belongs to the one error


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize(
    ("saved", "says", "remedy"),
    [
        (12, "at step 12; its checkpoint is written", "run the same command again"),
        (10, "at step 12; the checkpoint of step 10 is written", "run the same command again"),
        (None, "at step 12; no checkpoint is written", None),
    ],
)
def test_the_end_is_explained(number: int, code: int, saved: int | None, says: str, remedy: str | None) -> None:
    with Interruption() as interruption:
        signal.raise_signal(number)
        error = interruption.stopped("pretraining", step=12, saved_step=saved)
    assert str(error).startswith(f"pretraining: stopped by {signal.Signals(number).name} {says}")
    assert error.exit_code == code
    assert (remedy in str(error)) if remedy else error.remedy is None


def test_in_another_thread_it_does_nothing() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    seen: list[Any] = []

    def work() -> None:
        with Interruption() as interruption, interruption.raise_inside():
            seen.extend([signal.getsignal(each) for each in SIGNALS])
            seen.append(interruption.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [*before, None]


_PATIENT = """
import signal, sys, time
from bert_ops.training.interruption import Interruption
with Interruption() as interruption:
    print("ready", flush=True)
    while interruption.requested is None:
        time.sleep(0.01)
    print(interruption.requested, flush=True)
    while True:  # a signal just before a long sleep would be seen at its end only
        time.sleep(0.01)
"""


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", _PATIENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    process.send_signal(second)
    assert process.wait(timeout=60) == -second
    process.stdout.close()


def when(condition: Callable[[], bool], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a signal in the midst of the first call of which the condition holds."""
    sent = []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not sent and condition():
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)

    return wrapper


CHANGES: dict[str, Any] = {"total_steps": 24, "average_decay": 0.9}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Any, list[str]]:
    folder = tmp_path_factory.mktemp("whole")
    model, run = toy.trained(toy.plan(folder, **CHANGES))
    return model, run, toy.told(folder)


class TestRuns:
    """A run that is stopped here and there, and one that is not, end with the same weights, figures and log."""

    def check(self, folder: Path, whole: tuple[nn.Module, Any, list[str]]) -> None:
        model, run = toy.trained(toy.plan(folder, **CHANGES))
        assert toy.digest(model) == toy.digest(whole[0])
        assert run.history == whole[1].history and run.best_step == whole[1].best_step
        assert toy.told(folder) == whole[2]

    def stopped(self, folder: Path, **changes: Any) -> Stopped:
        with pytest.raises(Stopped) as caught:
            toy.trained(toy.plan(folder, **CHANGES, **changes))
        assert caught.value.exit_code == 143
        return caught.value

    @pytest.mark.parametrize("unit", [0, 1, 9, 10, 46, 47])
    def test_in_the_midst_of_a_step(self, tmp_path: Path, whole, unit: int) -> None:
        at: list[int] = []

        def loss(model: nn.Module, rows: toy.Rows) -> Loss:
            at.append(rows.unit)
            return toy.loss(model, rows)

        said = self.stopped(tmp_path, loss=when(lambda: at[-1:] == [unit - 1] or unit == 0, loss))
        assert f"at step {unit // 2}; its checkpoint is written" in str(said)
        assert [event["reason"] for event in toy.events(tmp_path, "stop")] == ["SIGTERM"]
        self.check(tmp_path, whole)

    @pytest.mark.parametrize("step", [10, 20, 24])
    def test_in_the_midst_of_an_evaluation(self, tmp_path: Path, whole, step: int) -> None:
        at: list[int] = []
        evaluate = when(lambda: at[-1] == step, toy.evaluate)
        self.stopped(tmp_path, evaluate=evaluate, evaluate_at=lambda now: at.append(now) or now in {10, 20})
        (newest,) = toy.store(tmp_path).steps()[-1:]
        # Step 10 and 20 have a checkpoint that a rollback may need; the end of the run has none.
        assert files.inspect(newest).kind == ("final" if step == 24 else "step")
        assert files.step_of(newest) == step
        self.check(tmp_path, whole)

    @pytest.mark.parametrize("call", range(8))
    def test_while_averaged_weights_are_swapped_in_or_out(self, tmp_path: Path, whole, call: int, monkeypatch) -> None:
        """A swap that broke off would save a mixture of two sets of weights."""
        calls: list[int] = []
        real = WeightAverage._copy

        def copy(average: WeightAverage, tensors: dict[str, Any], model: nn.Module) -> None:
            calls.append(len(calls))
            half = next(iter(tensors))
            dict(model.named_parameters())[half].data.copy_(tensors[half])
            if calls[-1] == call:
                os.kill(os.getpid(), signal.SIGTERM)
            real(average, tensors, model)

        with monkeypatch.context() as patch:
            patch.setattr(WeightAverage, "_copy", copy)
            self.stopped(tmp_path)
        assert len(calls) > call
        self.check(tmp_path, whole)

    def test_while_the_checkpoint_before_is_being_written(self, tmp_path: Path, whole, monkeypatch) -> None:
        began = threading.Event()
        real = files.write

        def slow(*args: Any, **kwargs: Any) -> Path:
            if kwargs["step"] == 5 and not began.is_set():
                began.set()
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write", slow)
            said = self.stopped(tmp_path)
        assert began.is_set() and "its checkpoint is written" in str(said)
        steps = [files.step_of(path) for path in toy.store(tmp_path).steps()]
        assert 5 in steps and steps[-1] >= 5
        self.check(tmp_path, whole)

    def test_on_a_full_disk_it_says_which_checkpoint_there_is(self, tmp_path: Path, monkeypatch) -> None:
        real, at = files.write, []

        def full(*args: Any, **kwargs: Any) -> Path:
            if kwargs["step"] > 5:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        def loss(model: nn.Module, rows: toy.Rows) -> Loss:
            at.append(rows.unit)
            return toy.loss(model, rows)

        monkeypatch.setattr(files, "write", full)
        said = self.stopped(tmp_path, loss=when(lambda: at[-1:] == [30], loss))
        assert "at step 15; the checkpoint of step 5 is written" in str(said)

    def test_a_run_without_checkpoints_stops_as_well(self) -> None:
        with pytest.raises(Stopped, match="no checkpoint is written"):
            toy.trained(toy.plan(loss=when(lambda: True, toy.loss)))
