"""Memory runs out: passes shrink, the effective batch does not, and the log says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_runs as toy
from torch import nn

from bert_ops.errors import InputError
from bert_ops.training.loop import Loss

#: What the allocators of PyTorch say.
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


def hungry(largest: int) -> Callable[[nn.Module, toy.Rows], Loss]:
    """A loss for which memory holds so many rows."""

    def loss(model: nn.Module, unit: toy.Rows) -> Loss:
        if len(unit.x) > largest:
            model(unit.x).sum().backward()  # what a pass leaves behind that broke off
            raise RuntimeError(NO_MEMORY)
        return toy.loss(model, unit)

    return loss


def test_without_memory_passes_shrink_and_the_batch_does_not(tmp_path: Path, capsys) -> None:
    plain, whole = toy.trained(toy.plan(), dropout=0.0)
    model, run = toy.trained(toy.plan(tmp_path, loss=hungry(3)), dropout=0.0)
    assert toy.digest(model) == pytest.approx(toy.digest(plain), rel=1e-4, abs=1e-5)
    assert run.tokens == whole.tokens and run.parts == 4
    said = toy.events(tmp_path, "micro_batch")
    assert [(event["step"], event["passes"]) for event in said] == [(1, 2), (1, 4)]
    assert "effective batch stays" in said[0]["reason"]
    assert "out of memory; from here on a unit is read in 2 passes" in capsys.readouterr().err
    assert {line["batch_tokens"] for line in toy.events(tmp_path, "step")} == {2 * toy.UNIT_ROWS}


def test_a_resumed_run_knows_what_fits(tmp_path: Path) -> None:
    tried: list[int] = []

    def watched(largest: int) -> Callable[[nn.Module, toy.Rows], Loss]:
        inner = hungry(largest)

        def loss(model: nn.Module, unit: toy.Rows) -> Loss:
            tried.append(len(unit.x))
            if unit.unit == 30:
                raise KeyboardInterrupt
            return inner(model, unit)

        return loss

    with pytest.raises(KeyboardInterrupt):
        toy.trained(toy.plan(tmp_path, loss=watched(4)), dropout=0.0)
    tried.clear()
    with pytest.raises(KeyboardInterrupt):
        toy.trained(toy.plan(tmp_path, loss=watched(4)), dropout=0.0)
    assert tried and set(tried) == {4}


def test_what_never_fits_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="smallest part of a batch does not fit into memory"):
        toy.trained(toy.plan(tmp_path, loss=hungry(0)))
    with pytest.raises(InputError, match="does not fit into memory"):
        toy.trained(toy.plan(loss=hungry(4), split=None))


def test_another_error_is_not_taken_for_one_of_memory() -> None:
    def broken(_model: nn.Module, _unit: toy.Rows) -> Loss:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        toy.trained(toy.plan(loss=broken))


REAL = """
import resource, sys, torch
sys.path[:0] = {path!r}
import toy_runs as toy
from bert_ops.training.loop import Loss

def loss(model, unit):
    # 4 MiB a row, twice
    wide = model(unit.x).expand(-1, 2**20).mul(1.0).exp()
    wide.sum().mul(0.0).backward(retain_graph=True)
    return toy.loss(model, unit)

toy.trained(toy.plan(total_steps=1, schedule=toy.plan().schedule.model_copy(update=dict(warmup_steps=0))))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, -1))
_, run = toy.trained(toy.plan(loss=loss, total_steps=6), dropout=0.0)
print(run.parts, run.step, run.tokens)
"""


@pytest.mark.slow
def test_memory_that_really_runs_out(tmp_path: Path) -> None:
    """The allocator's own error, under a limit of address space that four rows fit below, and eight do not."""
    path = [str(Path(toy.__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", REAL.format(path=path)],
        capture_output=True, text=True, check=False, timeout=200, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parts, step, tokens = map(int, done.stdout.split())
    assert parts > 1 and step == 6 and tokens == 6 * 2 * toy.UNIT_ROWS
    assert "out of memory" in done.stderr
