"""A run that goes on from a checkpoint makes the numbers of one that was never interrupted, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_runs as toy
from torch import nn

from bert_ops.pretrain import objective, stream
from bert_ops.pretrain.masking import BERT_RATES
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training import checkpoint_files as files
from bert_ops.training import meter
from bert_ops.training.loop import Loss, Plan, Position, Run, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.params import NoiseScaleBatch, RampBatch
from bert_ops.training.run_log import LOG_NAME

RAMP = {"kind": "ramp", "start_tokens": 64, "steps": 6, "rate_scaling": "sqrt"}
NOISE = {
    "kind": "noise_scale",
    "min_tokens": 64,
    "every_steps": 1,
    "smoothing": 0.3,
    "factor": 1.0,
    "rate_scaling": "linear",
}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}


def as_it_was(whole: Path, folder: Path, at: Path) -> None:
    """Copy a run's folder as it was when a checkpoint had just been written; the log may go on behind it."""
    folder.mkdir(parents=True)
    shutil.copytree(at, folder / at.name)
    shutil.copyfile(whole / LOG_NAME, folder / LOG_NAME)


def assert_same(one: tuple[nn.Module, Run], other: tuple[nn.Module, Run]) -> None:
    assert toy.digest(one[0]) == toy.digest(other[0])
    assert one[1].history == other[1].history
    for name in ("step", "tokens", "best_step", "best_score", "skipped_steps", "rollbacks", "position"):
        assert getattr(one[1], name) == getattr(other[1], name), name


def scaled(loss: Loss, factor: float) -> Loss:
    return Loss({name: value * factor for name, value in loss.sums.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float32", "model": DROPOUT, "clipping": {"norm": 0.5, "value": 0.01}},
        {
            "precision": "bfloat16",
            "model": DROPOUT,
            "averaging": {"decay": 0.9},
            "batch": {"tokens": 256, "micro_tokens": 64, "growth": RAMP},
        },
        {"precision": "float32", "batch": {"tokens": 256, "micro_tokens": 32, "growth": NOISE}},
        {"precision": "float16", "masking": {"rate": 0.3, "final_rate": 0.1, "whole_words": True}},
        {
            "optimizer": {"kind": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.9, "nesterov": True},
            "schedule": {"kind": "wsd", "warmup_steps": 2, "decay_steps": 5, "final_share": 0.0},
            "sentence_objective": "sop",
        },
    ],
    ids=["clipped", "bfloat16, averaged, ramp", "noise scale", "float16", "sgd"],
)
def test_pretraining_resumes_exactly_at_every_step(tokens_folder, params, tmp_path: Path, monkeypatch, changes) -> None:
    monkeypatch.setattr(meter, "gemm_peak", lambda *_: 1e9)  # a third of a second for every run
    settings = toy.small_params(params, **changes)
    if settings.precision == "float16":
        large = objective.loss  # too large for the scale that a loss scaler begins with: it has to find one
        monkeypatch.setattr(objective, "loss", lambda *rest: scaled(large(*rest), 2.0**5))
    whole = toy.pretrained(tokens_folder, settings, tmp_path / "whole")
    found = toy.store(tmp_path / "whole").steps()
    skips = toy.events(tmp_path / "whole", "skip")
    assert all("overflows at a loss scale of" in event["reason"] for event in skips)
    skipped = {event["step"] for event in skips}
    assert bool(skipped) == (settings.precision == "float16")
    assert [files.step_of(path) for path in found] == sorted(set(range(settings.steps)) - skipped)
    for at in found[1:]:
        folder = tmp_path / "resumed" / at.name
        as_it_was(tmp_path / "whole", folder, at)
        resumed = toy.pretrained(tokens_folder, settings, folder)
        assert [event["step"] for event in toy.events(folder, "resume")] == [files.step_of(at)]
        assert_same(resumed, whole)
        assert toy.told(folder) == toy.told(tmp_path / "whole")
    sizes = [event["batch_tokens"] for event in toy.events(tmp_path / "whole", "batch_size")]
    assert bool(sizes) == (settings.batch.growth.kind != "constant")


class Killed(Exception):
    """Stands in for kill -9: what follows in the process has no part in the test."""


def killed_at(unit: int) -> dict[str, Any]:
    """A loss that ends the run when it is to read a unit."""

    def loss(model: nn.Module, rows: toy.Rows) -> Loss:
        if rows.unit == unit:
            raise Killed
        return toy.loss(model, rows)

    return {"loss": loss}


@pytest.mark.parametrize("every_s", [1e-9, 1e6], ids=["by the clock", "by steps"])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path: Path, every_s: float) -> None:
    changes = {"total_steps": 24, "average_decay": 0.9, "when": toy.checkpoints(every_s=every_s, every_steps=3)}
    whole = toy.trained(toy.plan(tmp_path / "whole", **changes))
    for unit in [*range(1, 48, 6), 47]:
        with pytest.raises(Killed):
            toy.trained(toy.plan(tmp_path / "killed", **changes, **killed_at(unit)))
    assert_same(toy.trained(toy.plan(tmp_path / "killed", **changes)), whole)
    assert toy.told(tmp_path / "killed") == toy.told(tmp_path / "whole")
    resumed = [event["step"] for event in toy.events(tmp_path / "killed", "resume")]
    assert resumed == sorted(resumed) and len(set(resumed)) >= 7


def test_the_best_weights_outlive_a_kill(tmp_path: Path) -> None:
    """Here it is not the last that are the best."""

    def worsening(model: nn.Module) -> dict[str, float]:
        return {"validation_loss": -toy.evaluate(model)["validation_loss"]}

    changes = {"evaluate": worsening, "when": toy.checkpoints(every_steps=1)}
    whole = toy.trained(toy.plan(tmp_path / "whole", **changes))
    assert whole[1].best_step < 40
    with pytest.raises(Killed):
        toy.trained(toy.plan(tmp_path / "killed", **changes, **killed_at(2 * whole[1].best_step + 5)))
    assert_same(toy.trained(toy.plan(tmp_path / "killed", **changes)), whole)


def test_a_run_that_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    """Killed between the last step and the end of the stage: there may be a checkpoint of the last steps alone."""
    changes = {"total_steps": 12, "when": toy.checkpoints(every_steps=11)}
    whole = toy.trained(toy.plan(tmp_path / "run", **changes))
    again = toy.trained(toy.plan(tmp_path / "run", **changes))
    assert_same(again, whole)
    assert again[1].tokens_here == 2 * toy.UNIT_ROWS


class Counted:
    """Units, and the numbers of those that were made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, position: Position | None) -> Iterator[tuple[toy.Rows, Position]]:
        for number in count((position or {"unit": 0})["unit"]):
            self.made.append(number)
            yield toy.rows_of(number), {"unit": number + 1}


def at_step(folder: Path, step: int, a_plan: Plan[toy.Rows]) -> None:
    """Put a checkpoint of a step into a folder, as if a run had come there."""
    with pytest.raises(Killed):
        toy.trained(replace(a_plan, **killed_at(2)))
    store = toy.store(folder)
    found = store.newest()
    assert found is not None
    state = {**found.state, "run": {**found.state["run"], "position": {"unit": 2 * step}}}
    state["schedule"]["scheduler"] |= {"last_epoch": step}
    store.save(replace(found, step=step, state=state), kind="time", wait=True)


@pytest.mark.parametrize("step", [10, 100_000])
def test_resuming_reads_nothing_of_what_was_read(tmp_path: Path, step: int) -> None:
    counted = Counted()
    a_plan = toy.plan(tmp_path, total_steps=200_000, best=None, evaluate_at=lambda _: False)
    at_step(tmp_path, step, a_plan)
    with pytest.raises(Killed):
        toy.trained(replace(a_plan, units=counted, **killed_at(2 * step + 6)))
    assert counted.made[0] == 2 * step
    ahead = 8 + 1  # what is ready, and what the thread is making
    assert 8 <= len(counted.made) <= 8 + ahead


def test_resuming_the_corpus_plans_one_window_wherever_it_is(
    tokens_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents planned for three units, at step 10 and at step 100,000 of batches of eight rows."""
    monkeypatch.setattr(stream, "WINDOW_TOKENS", 1000)
    monkeypatch.setattr(stream, "WINDOW_UNITS", 1)
    data = TokenStore.open(tokens_folder)
    view, planned = data["train"], []
    plan_examples = stream.plan_examples

    def counting(view: Any, documents: Any, **rest: Any) -> Any:
        planned.append(len(documents))
        return plan_examples(view, documents, **rest)

    monkeypatch.setattr(stream, "plan_examples", counting)
    source = stream.UnitStream(
        view,
        sequence_tokens=32,
        rows=4,
        sentence_objective="nsp",
        masking=BERT_RATES,
        whole_words=False,
        vocab_size=data.vocab_size,
        seed=1,
        rate_at=lambda _: 0.15,
    )
    units = source.units(None)
    for _ in range(20):
        _, early = next(units)
    # The same place of a later epoch: an epoch has some 6,000 / 256 steps.
    late = {**early, "epoch": early["epoch"] + 100_000 * 256 // view.tokens, "unit": 200_000}
    costs = []
    for position in (early, late):
        planned.clear()
        going_on = source.units(position)
        first, _ = next(going_on)
        assert first.unit == position["unit"]
        costs.append((len(planned), sum(planned)))
    (windows, documents), (late_windows, late_documents) = costs
    assert windows == late_windows == 1
    assert documents == pytest.approx(late_documents, rel=0.5) and late_documents < view.documents / 2


def test_a_batch_that_grows_goes_on_growing_from_where_it_was(tmp_path: Path) -> None:
    for name, growth in {
        "ramp": RampBatch(kind="ramp", start_tokens=8, steps=10, rate_scaling="linear"),
        "noise": NoiseScaleBatch(
            kind="noise_scale", min_tokens=16, every_steps=2, smoothing=0.5, factor=5.0, rate_scaling="none"
        ),
    }.items():

        def changes(growth: Any = growth) -> dict[str, Any]:
            when = toy.checkpoints(every_steps=1)
            return {"total_steps": 16, "batch": toy.batch(8, growth=growth), "when": when, "log_every_steps": 1}

        whole = toy.trained(toy.plan(tmp_path / name / "whole", **changes()))
        for unit in (5, 11, 17):
            with pytest.raises(Killed):
                toy.trained(toy.plan(tmp_path / name / "killed", **changes(), **killed_at(unit)))
        assert_same(toy.trained(toy.plan(tmp_path / name / "killed", **changes())), whole)
        assert toy.told(tmp_path / name / "killed") == toy.told(tmp_path / name / "whole")
        assert len({event["batch_tokens"] for event in toy.events(tmp_path / name / "whole", "step")}) > 2


def test_state_of_the_process_does_not_matter(tmp_path: Path) -> None:
    """Generators, gradients and numbers that a new process does not have."""
    changes = {"total_steps": 10, "when": toy.checkpoints(every_steps=1)}
    whole = toy.trained(toy.plan(tmp_path / "whole", **changes))
    with pytest.raises(Killed):
        toy.trained(toy.plan(tmp_path / "killed", **changes, **killed_at(11)))
    model = toy.fresh(seed=99)
    torch.manual_seed(123)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    run = train(toy.plan(tmp_path / "killed", **changes), model, build_optimizer(model, toy.OPTIMIZER))
    assert_same((model, run), whole)
