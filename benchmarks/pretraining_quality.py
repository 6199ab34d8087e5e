"""Whether ours and the peers learn the same from the same tokens, and how long they take to have learned it.

Every run begins with the same weights and trains on as many tokens of the same corpus, with the same optimiser and
learning rates; seeds differ in weights, order and masking. Held-out text is measured in float32 by one and the same
code, half of it in the form that our side trains on (examples that begin with ``[CLS]``) and half in that of the
grouped peers (rows cut anywhere), so that neither has its own form to itself.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pretraining_ours as ours
import pretraining_peers as peers
import torch
from pretraining_contenders import SPIN, environment_of
from pretraining_data import Setting
from pretraining_heldout import Budget, Curve, HeldOut

from bert_ops.model.huggingface import export_weights, import_weights
from bert_ops.pretrain import fitting
from bert_ops.pretrain.params import PretrainParams
from bert_ops.training.device import prepare

#: Two-sided 95% quantiles of Student's t for 1, 2, … degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

OURS, SINGLE = "ours", "ours in float32"


def compare(setting: Setting, budget: Budget, *, rates: dict[str, float]) -> dict[str, Any]:
    """Train all, print final losses and the time to a common one; return the differences in per cent.

    Args:
        setting: what all share.
        budget: what each run gets.
        rates: real tokens a second of each contender, for the time to a loss.

    """
    curves: dict[str, list[Curve]] = {}
    for seed in range(1, budget.seeds + 1):
        seeded = replace(setting, seed=seed)
        runs = in_a_process(train_ours, seeded, budget, environment=ours.environment())
        if peers.installed():
            # The two slow ones are there for the time to a loss: one seed of each.
            names = ("best", *(n for n in ("padded", "grouped") if budget.slow_peers and seed == 1 and n in rates))
            runs |= in_a_process(train_peers, seeded, budget, names, environment=SPIN)
        for name, curve in runs.items():
            curves.setdefault(name, []).append(curve)
            print(f"seed {seed}, {name}: held-out loss {curve[-1][1]:.4f} after {curve[-1][0]:,} tokens", flush=True)
    show(curves, rates)
    result: dict[str, Any] = {}
    result["loss_difference"], result["loss_difference_ci95"] = difference(curves[OURS], curves[SINGLE])
    if "best" in curves:
        compared = difference(curves[OURS], curves["best"])
        result["loss_difference_best"], result["loss_difference_best_ci95"] = compared
    return result | time_to_loss(curves, rates)


def show(curves: dict[str, list[Curve]], rates: dict[str, float]) -> None:
    """Print final losses, and tokens and time until every run had the loss that the last one reached."""
    found = time_to_loss(curves, rates)
    target = found["target_loss"]
    print(f"\n{'':18} {'held-out loss':>13} {'our form':>9} {'grouped':>9}   to {target:.4f}: tokens, seconds")
    for name, runs in curves.items():
        whole, packed, grouped = (statistics.mean(run[-1][place] for run in runs) for place in (1, 2, 3))
        seconds = found["seconds_to_loss"][name]
        clock = f"{seconds:12,.1f}" if seconds else ""
        line = f"{name:18} {whole:13.4f} {packed:9.4f} {grouped:9.4f}   {found['tokens_to_loss'][name]:14,}{clock}"
        print(f"{line}  ({len(runs)} seeds)")


def difference(one: Sequence[Curve], other: Sequence[Curve]) -> tuple[float, list[float] | None]:
    """Mean difference of final losses over seeds in per cent, and its 95% interval (Student's t) if there are two."""
    found = [100.0 * (a[-1][1] / b[-1][1] - 1.0) for a, b in zip(one, other, strict=True)]
    middle = statistics.mean(found)
    if len(found) == 1:
        return round(middle, 4), None
    half = STUDENT[min(len(found) - 1, len(STUDENT)) - 1] * statistics.stdev(found) / len(found) ** 0.5
    return round(middle, 4), [round(middle - half, 4), round(middle + half, 4)]


def time_to_loss(curves: dict[str, list[Curve]], rates: dict[str, float]) -> dict[str, Any]:
    """Tokens, and seconds at the measured rates, until each had the loss that all of them reach."""
    target = max(min(point[1] for point in curve) for runs in curves.values() for curve in runs)
    tokens = {name: round(statistics.mean(reach(c, target) for c in runs)) for name, runs in curves.items()}
    seconds = {name: round(tokens[name] / rates[name], 2) if name in rates else None for name in curves}
    return {"target_loss": round(target, 4), "tokens_to_loss": tokens, "seconds_to_loss": seconds}


def reach(curve: Curve, target: float) -> float:
    """Tokens at which a curve first has a loss, in a straight line between two measurements."""
    if curve[0][1] <= target:
        return curve[0][0]
    for before, after in pairwise(curve):
        if after[1] <= target:
            return before[0] + (after[0] - before[0]) * (before[1] - target) / (before[1] - after[1])
    raise ValueError(f"the curve never has a loss of {target}")


def in_a_process(body: Callable[..., Any], *arguments: Any, environment: dict[str, str]) -> Any:
    """Result of a function that runs in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with environment_of(environment):
        process = context.Process(target=_answer, args=(body, there, arguments))
        process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{body.__name__}: its process ended with code {process.exitcode}") from None
    finally:
        process.join()


def _answer(body: Callable[..., Any], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    pipe.send(body(*arguments))


def train_ours(setting: Setting, budget: Budget) -> dict[str, Curve]:
    """Train by the product's loop, in the arithmetic of the device and in float32."""
    curves = {}
    for name, precision in ((OURS, "auto"), (SINGLE, "float32")):
        params = budget.params(setting, precision=precision)
        prepare(threads=params.threads, seed=params.seed)
        curves[name] = train_one(setting, budget, params)
    return curves


def train_one(setting: Setting, budget: Budget, params: PretrainParams) -> Curve:
    """One run of ours."""
    model, held_out = ours.build_model(setting, params), HeldOut(setting, budget)
    curve: Curve = []

    def measured(history: list[dict[str, float]]) -> None:
        curve.append(held_out.measure(model.state_dict(), int(history[-1]["tokens"])))

    few = held_out.packed[:1]
    with redirect_stderr(StringIO()):  # its progress lines
        fitting.fit(model, setting.store, params, held_out=few, probe=few, on_evaluation=measured)
    return curve


def train_peers(setting: Setting, budget: Budget, names: Sequence[str]) -> dict[str, Curve]:
    """Train by the ``Trainer``, from the weights that ours begin with."""
    return {name: train_peer(setting, budget, name) for name in names}


def train_peer(setting: Setting, budget: Budget, name: str) -> Curve:
    """Train by the ``Trainer``, from the weights that ours begin with."""
    from transformers import TrainerCallback

    params = budget.params(setting)
    prepare(threads=params.threads, seed=params.seed)
    first = ours.build_model(setting, params)
    torch.use_deterministic_algorithms(False)
    held_out = HeldOut(setting, budget)
    data, rows, share = peers.dataset(name, setting, pool=None)
    model = peers.build_model(name, setting, peers.Choice()).to(setting.device)
    own = model.state_dict()
    theirs = {key: value for key, value in export_weights(first.state_dict()).items() if key in own}
    model.load_state_dict(theirs, strict=False)
    model.tie_weights()
    masked_token_names = [key for key in first.state_dict() if not key.startswith(("nsp", "pooler"))]
    curve: Curve = []

    class Measure(TrainerCallback):  # type: ignore[misc]
        """Measures on held-out text, as ours does."""

        def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:  # noqa: ARG002
            if state.global_step % budget.every == 0 or state.global_step == budget.steps:
                weights = import_weights(model.state_dict(), masked_token_names, source=Path(name))
                tokens = round(state.global_step * rows * setting.sequence_tokens * share)
                curve.append(held_out.measure(weights, tokens))

    with tempfile.TemporaryDirectory() as folder:
        trainer = peers.build_trainer(
            name, model, data, setting, peers.Choice(), rows=rows, folder=folder, **trainer_settings(params)
        )
        trainer.add_callback(Measure())
        trainer.train()
    return curve


def trainer_settings(params: PretrainParams) -> dict[str, Any]:
    """Our optimiser, schedule and clipping in the words of ``TrainingArguments``."""
    optimizer: Any = params.optimizer
    return {
        "max_steps": params.steps,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "lr_scheduler_type": "linear",
        "warmup_steps": params.schedule.warmup_steps,
        "max_grad_norm": params.clipping.norm,
    }
