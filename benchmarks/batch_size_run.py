"""A run of the study of batch sizes: a process of its own that trains up to its next evaluation when it is told to."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from batch_size_curve import Point
from torch import nn

from bert_ops.model import embedding_init
from bert_ops.model.sizes import load_preset
from bert_ops.pretrain import fitting, objective
from bert_ops.pretrain.batch import PackedBatch, split_rows
from bert_ops.pretrain.params import PretrainParams
from bert_ops.schema import read_yaml
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.device import pick_device, prepare
from bert_ops.training.loop import Loss, Plan, Row, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.params import BatchParams
from bert_ops.training.run_log import RunLog, read_log

#: Share of the budget that the rate rises over: at the default budget about as many tokens as in params.yaml.
WARMUP = 0.2


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs share.

    Args:
        tokens: folder of the token store.
        params: params.yaml, for what is not varied.
        scratch: folder for logs and initial vectors.
        batch: tokens of the large batch.
        small: tokens of the small one; a pass reads half of it.
        budget: tokens of a run.
        every: tokens between two evaluations.
        threads: of a process.
        examples: held-out examples of an evaluation.

    """

    tokens: Path
    params: Path
    scratch: Path
    batch: int
    small: int
    budget: int
    every: int
    threads: int
    examples: int

    @property
    def unit(self) -> int:
        """Tokens of a pass: half of the smallest batch, because the noise scale compares a part with the whole."""
        return self.small // 2

    def rate(self, tokens: int) -> float:
        """Rate of params.yaml, taken to a batch by the square root of its size."""
        section = read_yaml(self.params)["pretrain"]
        return float(section["optimizer"]["learning_rate"] * (tokens / section["batch"]["tokens"]) ** 0.5)

    def section(self, name: str, *, rate: float, seed: int) -> PretrainParams:
        """Section ``pretrain`` for a run that no schedule ends."""
        section = read_yaml(self.params)["pretrain"]
        batch = contenders(self)[name]
        return PretrainParams(
            **section
            | {
                "seed": seed,
                "threads": self.threads,
                "precision": "auto",
                "model": load_preset("tiny").model_dump(),
                "embedding_init": {**section["embedding_init"], "kind": "normal"},  # see `vectors`
                "sequence_tokens": 128,
                "steps": 2 * self.budget // self.small,
                "batch": batch.model_dump(),
                "optimizer": {**section["optimizer"], "learning_rate": rate},
                "evaluation_sequences": self.examples,
                "schedule": {"kind": "constant", "warmup_steps": self.warmup_steps(batch)},
                "stability": {**section["stability"], "spike_deviations": 0.0},
            }
        )

    def warmup_steps(self, batch: BatchParams) -> int:
        """Steps in which a batch reads the warmup's share of the budget; one that is measured has those of the ramp."""
        known = contenders(self)["ramp"] if batch.growth.kind == "noise_scale" else batch
        size, tokens, step = BatchSize(known, unit_tokens=self.unit, world=1), 0, 0
        while tokens < WARMUP * self.budget:
            tokens += size.units(step) * self.unit
            step += 1
        return step

    def facts(self) -> dict[str, Any]:
        """What stands beside the figures."""
        return {"batch": self.batch, "small": self.small, "budget": self.budget, "threads": self.threads}


def contenders(setting: Setting) -> dict[str, BatchParams]:
    """The batches of the study."""
    large = {"tokens": setting.batch, "micro_tokens": setting.unit}
    ramp_steps = round(setting.budget / 2 / ((setting.batch + setting.small) / 2))
    follow: dict[str, Any] = {"every_steps": 5, "smoothing": 0.95, "factor": 1.0, "rate_scaling": "sqrt"}
    ramp = {"kind": "ramp", "start_tokens": setting.small, "steps": max(1, ramp_steps), "rate_scaling": "sqrt"}
    grown: dict[str, Any] = {
        "constant": large | {"growth": {"kind": "constant"}},
        "small": large | {"tokens": setting.small, "growth": {"kind": "constant"}},
        "ramp": large | {"growth": ramp},
        "noise_scale": large | {"growth": {"kind": "noise_scale", "min_tokens": setting.small, **follow}},
    }
    return {name: BatchParams(**values) for name, values in grown.items()}


def vectors(setting: Setting) -> None:
    """Make the initial embeddings that params.yaml asks for, once for all runs."""
    section = PretrainParams(**read_yaml(setting.params)["pretrain"])
    if section.embedding_init.kind == "normal":
        return
    store = TokenStore.open(setting.tokens)
    made = embedding_init.word2vec(
        store["train"],
        vocab_size=store.vocab_size,
        size=load_preset("tiny").hidden_size,
        window=section.embedding_init.window,
        epochs=section.embedding_init.epochs,
        max_tokens=section.embedding_init.max_tokens,
        seed=section.seed,
    )
    np.save(setting.scratch / "vectors.npy", made, allow_pickle=False)


class Run:
    """A process that trains, seen from the study."""

    def __init__(self, process: Any, pipe: Connection, log: Path) -> None:
        self.process, self.pipe, self.log = process, pipe, log

    def turn(self) -> Point:
        """Train up to the next evaluation."""
        try:
            self.pipe.send(True)
            point: Point = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise SystemExit(f"a run ended with code {self.process.exitcode}") from None
        return point

    def close(self) -> list[dict[str, Any]]:
        """End the process; the lines of its log."""
        self.pipe.close()
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()
        if not self.log.is_file():
            return []
        return [dict(record) for record in read_log(self.log) if record["event"] == "step"]


def begin(setting: Setting, name: str, *, rate: float, seed: int) -> Run:
    """Start a run; it waits for its first turn."""
    here, there = multiprocessing.Pipe()
    log = setting.scratch / f"{name}-{seed}-{rate:.4e}.jsonl"
    arguments = (there, setting, setting.section(name, rate=rate, seed=seed), log)
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=arguments)
    process.start()
    there.close()
    return Run(process, here, log)


def _serve(pipe: Connection, setting: Setting, params: PretrainParams, log: Path) -> None:
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        try:
            pipe.recv()
        except EOFError:
            return
        _train(pipe, setting, params, log)


def _train(pipe: Connection, setting: Setting, params: PretrainParams, log: Path) -> None:
    store = TokenStore.open(setting.tokens)
    prepare(threads=setting.threads, seed=params.seed)
    model = fitting.build_model(store, params).to(pick_device())
    made = setting.scratch / "vectors.npy"
    if made.is_file():
        loaded = np.load(made, allow_pickle=False)
        embedding_init.set_token_vectors(model.encoder.embeddings, loaded, std=params.model.initializer_range)
    rows = setting.unit // params.sequence_tokens
    stream = fitting.make_stream(store["train"], params, vocab_size=store.vocab_size, rows=rows)
    watch = Watch(pipe, every=setting.every)
    held_out = fitting.held_out_units(store["validation"], params, store.vocab_size)

    def loss(module: nn.Module, batch: PackedBatch) -> Loss:
        watch.tokens += batch.ids.size
        return objective.loss(module, batch)

    def evaluate(module: nn.Module) -> Row:
        seconds = watch.pause()
        row = objective.measure(module, held_out, prefix="validation")
        watch.hand_over(Point(watch.tokens, seconds, row["validation_mlm_loss"]))
        return row

    plan = Plan(
        what="study",
        seed=params.seed,
        total_steps=params.steps,
        units=lambda position: stream.units(position, rank=0, world=1),
        batch=BatchSize(params.batch, unit_tokens=setting.unit, world=1),
        loss=loss,
        split=split_rows,
        schedule=params.schedule,
        clipping=params.clipping,
        precision=params.precision,
        stability=params.stability,
        evaluate=evaluate,
        evaluate_at=lambda _: watch.is_due(),
        best=None,
        log=RunLog(log),
        log_every_steps=1,
    )
    optimizer = build_optimizer(model, params.optimizer)
    watch.started = time.perf_counter()
    train(plan, model, optimizer)


class Watch:
    """Counts tokens and seconds of training, and waits between two turns."""

    def __init__(self, pipe: Connection, *, every: int) -> None:
        self.pipe, self.every = pipe, every
        self.tokens = self.told = 0
        self.seconds = self.started = 0.0

    def is_due(self) -> bool:
        """Whether an evaluation is."""
        if self.tokens < self.told + self.every:
            return False
        self.told += self.every
        return True

    def pause(self) -> float:
        """Stop the clock; the seconds so far."""
        self.seconds += time.perf_counter() - self.started
        return self.seconds

    def hand_over(self, point: Point) -> None:
        """Tell a point and wait for the next turn."""
        try:
            self.pipe.send(point)
            self.pipe.recv()
        except (EOFError, OSError):  # this run, or the study, is over
            raise SystemExit from None
        self.started = time.perf_counter()
