"""The loop: learns, keeps the best weights, adds up gradients, and takes batches with nothing to predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_runs as toy
from torch import nn

from bert_ops.pretrain import objective
from bert_ops.pretrain.batch import PackedBatch
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.loop import Loss, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.params import BatchParams, ClippingParams, ConstantBatch, RampBatch
from bert_ops.training.schedule import rates


def test_the_loss_falls_and_the_history_is_complete(tmp_path: Path) -> None:
    untrained = toy.evaluate(toy.fresh().eval())["validation_loss"]
    _, run = toy.trained(toy.plan(tmp_path))
    assert [row["step"] for row in run.history] == [10, 20, 30, 40]
    assert run.history[-1]["validation_loss"] < 0.2 * untrained
    assert run.tokens == run.tokens_here == 40 * 2 * toy.UNIT_ROWS
    assert set(run.history[-1]) == {"step", "validation_loss", "tokens", "learning_rate", "gradient_norm"}
    lines = toy.events(tmp_path, "step")
    assert [line["step"] for line in lines] == list(range(4, 41, 4))
    assert lines[-1]["loss"] == lines[-1]["squared_loss"] < lines[0]["loss"]
    assert toy.events(tmp_path, "finish")[0]["tokens"] == run.tokens


def test_the_last_step_is_logged_and_evaluated_whatever_the_interval(tmp_path: Path) -> None:
    _, run = toy.trained(toy.plan(tmp_path, total_steps=7, evaluate_at=lambda step: step % 4 == 0))
    assert [row["step"] for row in run.history] == [4, 7]
    assert [line["step"] for line in toy.events(tmp_path, "step")] == [4, 7]


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, again = (toy.trained(toy.plan())[0] for _ in range(2))
    assert toy.digest(first) == toy.digest(again)
    other, _ = toy.trained(toy.plan(seed=4))  # of dropout alone
    assert toy.digest(first) != toy.digest(other)


def test_dropout_is_at_work_in_training_and_not_in_evaluation() -> None:
    modes: dict[str, set[bool]] = {"loss": set(), "evaluate": set()}

    def watched(name: str, function: Callable) -> Callable:
        def inside(model: nn.Module, *rest):
            modes[name].add(model.training)
            assert torch.is_grad_enabled() is model.training
            return function(model, *rest)

        return inside

    toy.trained(toy.plan(loss=watched("loss", toy.loss), evaluate=watched("evaluate", toy.evaluate)))
    assert modes == {"loss": {True}, "evaluate": {False}}


@pytest.mark.parametrize("score", ["validation_loss", None])
def test_the_best_weights_are_kept_or_the_last(score: str | None) -> None:
    scores = iter([3.0, 1.0, 2.0, 5.0])
    measured: list[list[float]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        measured.append(toy.digest(model))
        return {"validation_loss": next(scores)}

    model, run = toy.trained(toy.plan(evaluate=evaluate, best=score))
    if score:
        assert (run.best_step, run.best_score) == (20, 1.0)
        assert toy.digest(model) == measured[1] != measured[3]
    else:
        assert toy.digest(model) == measured[3]


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    scores = iter([float("nan"), 2.0, float("nan"), 3.0])
    _, run = toy.trained(toy.plan(evaluate=lambda _: {"validation_loss": next(scores)}))
    assert (run.best_step, run.best_score) == (20, 2.0)


def test_the_highest_score_is_the_best_where_the_plan_says_so() -> None:
    scores = iter([0.2, 0.9, 0.9, 0.1])
    plan = toy.plan(evaluate=lambda _: {"validation_f1": next(scores)}, best="validation_f1", best_is_highest=True)
    _, run = toy.trained(plan)
    assert (run.best_step, run.best_score) == (20, -0.9)


def test_a_run_ends_when_its_patience_does_and_keeps_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    scores = iter([3.0, 1.0, 2.0, 1.0, 0.5])
    measured: list[list[float]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        measured.append(toy.digest(model))
        return {"validation_loss": next(scores)}

    model, run = toy.trained(toy.plan(evaluate=evaluate, patience=2, total_steps=80))
    assert (run.step, run.best_step, len(run.history)) == (40, 20, 4)
    assert toy.digest(model) == measured[1]
    assert "2 evaluations without a better one, stopped at step 40" in capsys.readouterr().err


def test_patience_waits_for_the_first_improvement_after_a_bad_one() -> None:
    scores = iter([3.0, 4.0, 2.0, 4.0, 1.0, 5.0, 6.0, 0.1])
    plan = toy.plan(evaluate=lambda _: {"validation_loss": next(scores)}, patience=2, total_steps=80)
    assert toy.trained(plan)[1].step == 70


def test_evaluations_before_a_step_do_not_count_against_patience() -> None:
    scores = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    plan = toy.plan(evaluate=lambda _: {"validation_loss": next(scores)}, patience=2, patience_from=40, total_steps=80)
    assert toy.trained(plan)[1].step == 60


@pytest.mark.parametrize("best", ["validation_loss", None])
def test_the_average_is_what_is_measured_and_kept(best: str | None) -> None:
    """The single weights go their way untouched: the average is looked at, not trained on."""
    measured: list[list[float]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        measured.append(toy.digest(model))
        return {"validation_loss": -float(len(measured))}

    averaged, _ = toy.trained(toy.plan(evaluate=evaluate, average_decay=0.9, best=best))
    plain, _ = toy.trained(toy.plan(best=None))
    assert toy.digest(averaged) == measured[-1] != toy.digest(plain)
    weights: list[list[float]] = []

    def watching(model: nn.Module, unit: toy.Rows) -> Loss:
        weights.append(toy.digest(model))
        return toy.loss(model, unit)

    toy.trained(toy.plan(loss=watching, average_decay=0.9))
    assert weights[-1] == weights_of_last_pass()


def weights_of_last_pass() -> list[float]:
    seen: list[list[float]] = []

    def watching(model: nn.Module, unit: toy.Rows) -> Loss:
        seen.append(toy.digest(model))
        return toy.loss(model, unit)

    toy.trained(toy.plan(loss=watching))
    return seen[-1]


# ---------------------------------------------------------------- accumulation


def halves(position):
    """The units of :func:`toy_runs.units` cut in two."""
    first = (position or {"unit": 0})["unit"]
    for unit, _ in toy.units({"unit": first // 2}):
        for number, half in enumerate(toy.split(unit, 2)):
            after = 2 * unit.unit + number + 1
            yield replace(half, unit=after - 1), {"unit": after}


def test_a_unit_of_eight_rows_is_two_units_of_four() -> None:
    """Sums over all units divided by the step's count: how rows are spread over passes changes rounding alone."""
    half = BatchSize(
        BatchParams(tokens=16, micro_tokens=4, growth=ConstantBatch(kind="constant")), unit_tokens=4, world=1
    )
    clipping = ClippingParams(norm=None, value=None)
    one, first = toy.trained(toy.plan(clipping=clipping), dropout=0.0)
    two, second = toy.trained(toy.plan(clipping=clipping, units=halves, batch=half), dropout=0.0)
    assert toy.digest(one) == pytest.approx(toy.digest(two), rel=1e-4, abs=1e-5)
    assert first.tokens == second.tokens
    norms = ([row["gradient_norm"] for row in run.history] for run in (first, second))
    assert next(norms) == pytest.approx(next(norms), rel=1e-3)


def test_the_gradient_of_a_step_is_that_of_the_mean_over_all_its_items() -> None:
    """One SGD-like check against autograd: uneven units count by their items, not by their number."""
    sizes = (1, 5, 2)

    def uneven(_position):
        for number, size in enumerate(sizes):
            yield toy.rows_of(number, rows=size), {"unit": number + 1}

    model = toy.fresh(dropout=0.0)
    rows = torch.cat([toy.rows_of(number, rows=size).x for number, size in enumerate(sizes)])
    toy.loss(model, toy.Rows(rows, 0)).sums["squared"].div(len(rows)).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    seen: list[torch.Tensor] = []
    optimizer = build_optimizer(model, toy.OPTIMIZER)
    optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in model.parameters()))
    batch = BatchSize(
        BatchParams(tokens=24, micro_tokens=8, growth=ConstantBatch(kind="constant")), unit_tokens=8, world=1
    )
    plan = toy.plan(units=uneven, batch=batch, total_steps=1, clipping=ClippingParams(norm=None, value=None))
    schedule = plan.schedule.model_copy(update={"warmup_steps": 0})
    train(replace(plan, schedule=schedule), model, optimizer)
    for gradient, wanted in zip(seen, expected, strict=True):
        assert torch.allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("scaling", "power"), [("none", 0.0), ("sqrt", 0.5), ("linear", 1.0)])
def test_the_rate_follows_the_batch_as_it_grows(tmp_path: Path, scaling, power: float) -> None:
    growth = RampBatch(kind="ramp", start_tokens=16, steps=20, rate_scaling=scaling)
    plan = toy.plan(tmp_path, batch=toy.batch(8, growth=growth), log_every_steps=1)
    toy.trained(plan)
    lines = toy.events(tmp_path, "step")
    shares = [line["batch_tokens"] / 64 for line in lines]
    assert shares[0] == 0.25 and shares[-1] == 1.0 and sorted(shares) == shares
    wanted = rates(plan.schedule, learning_rate=0.05, total_steps=40)
    for line, share, rate in zip(lines, shares, wanted, strict=True):
        assert line["learning_rate"] == pytest.approx(rate * share**power)
        assert line["tokens"] == pytest.approx(64 * sum(shares[: line["step"]]))


# ---------------------------------------------------------------- nothing to predict


def test_a_batch_without_a_masked_token_gives_no_nan(tokens_folder, params, tmp_path: Path, monkeypatch) -> None:
    """Every unit of some steps has no masked token: they add nothing, and nothing breaks."""
    loss, seen = objective.loss, []

    def bare(model: nn.Module, unit: PackedBatch) -> Loss:
        if unit.unit // 2 in {2, 3}:
            none = np.zeros(0, np.int64)
            object.__setattr__(unit, "masked", none)
            object.__setattr__(unit, "targets", none)
        value = loss(model, unit)
        seen.append((unit.unit, float(value.sums["mlm"].detach())))
        return value

    monkeypatch.setattr(objective, "loss", bare)
    settings = toy.small_params(params, log_every_steps=1)
    model, run = toy.pretrained(tokens_folder, settings, tmp_path)
    assert run.skipped_steps == 0 and all(np.isfinite(list(row.values())).all() for row in run.history)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert [value == 0.0 for _, value in seen] == [unit // 2 in {2, 3} for unit, _ in seen]
