"""Pretraining as a function: model, data and plan from a token store and params.yaml, without files and figures."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bert_ops.errors import InputError
from bert_ops.model import embedding_init
from bert_ops.model.heads import PretrainingModel
from bert_ops.model.sizes import count_parameters, flops_per_token, name_of
from bert_ops.pretrain import objective
from bert_ops.pretrain.batch import PackedBatch, split_rows
from bert_ops.pretrain.masking import MaskingRates
from bert_ops.pretrain.micro_batch import rows_of_a_unit
from bert_ops.pretrain.params import PretrainParams
from bert_ops.pretrain.stream import UnitStream, fixed_units
from bert_ops.seeding import derive
from bert_ops.tokenizer.store import SplitView, TokenStore
from bert_ops.training.batch_size import BatchSize
from bert_ops.training.checkpoint import CheckpointStore
from bert_ops.training.device import check_compiler, resolve
from bert_ops.training.loop import Plan, Row, Run, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.run_log import RunLog
from bert_ops.training.workers import Workers


def training_flops(params: PretrainParams, *, vocab_size: int) -> float:
    """FLOPs of forward and backward a token, at the mean masking rate."""
    masking = params.masking
    return flops_per_token(
        params.model.config(vocab_size=vocab_size),
        sequence_tokens=params.sequence_tokens,
        masked_share=(masking.rate + masking.final_rate) / 2,
    ).training


def build_model(store: TokenStore, params: PretrainParams) -> PretrainingModel:
    """Build the model and its initial embeddings."""
    model = PretrainingModel(params.model.config(vocab_size=store.vocab_size))
    if params.embedding_init.kind == "word2vec":
        vectors = embedding_init.word2vec(
            store["train"],
            vocab_size=store.vocab_size,
            size=params.model.hidden_size,
            window=params.embedding_init.window,
            epochs=params.embedding_init.epochs,
            max_tokens=params.embedding_init.max_tokens,
            seed=derive(params.seed, "word2vec"),
        )
        embedding_init.set_token_vectors(model.encoder.embeddings, vectors, std=params.model.initializer_range)
    if params.position_init == "sinusoidal":
        embedding_init.set_sinusoidal_positions(model.encoder.embeddings, std=params.model.initializer_range)
    return model


def held_out_units(view: SplitView, params: PretrainParams, vocab_size: int) -> list[PackedBatch]:
    """Fixed batches of a split to measure on, corrupted once and for all with BERT's own masking shares."""
    return fixed_units(
        view,
        sequence_tokens=params.sequence_tokens,
        sentence_objective=params.sentence_objective,
        vocab_size=vocab_size,
        seed=params.seed,
        examples=params.evaluation_sequences,
    )


def make_stream(view: SplitView, params: PretrainParams, *, vocab_size: int, rows: int) -> UnitStream:
    """Build the training data; the masking rate moves in a line from the first unit of the run to the last."""
    masking = params.masking
    units = max(1, total_units(params, rows=rows) - 1)

    def rate_at(unit: int) -> float:
        return masking.rate + (masking.final_rate - masking.rate) * min(1.0, unit / units)

    return UnitStream(
        view,
        sequence_tokens=params.sequence_tokens,
        rows=rows,
        sentence_objective=params.sentence_objective,
        masking=MaskingRates(mask=masking.mask, random=masking.random),
        whole_words=masking.whole_words,
        vocab_size=vocab_size,
        seed=params.seed,
        rate_at=rate_at,
        least_tokens=params.batch.tokens,
    )


def total_units(params: PretrainParams, *, rows: int) -> int:
    """Units that a run reads, where its batches are known beforehand; the most it may read where they are not."""
    batch = BatchSize(params.batch, unit_tokens=rows * params.sequence_tokens, world=1)
    if params.batch.growth.kind == "ramp":
        return sum(batch.units(step) for step in range(params.steps))
    return params.steps * (params.batch.tokens // (rows * params.sequence_tokens))


def fit(
    model: PretrainingModel,
    store: TokenStore,
    params: PretrainParams,
    *,
    workers: Workers | None = None,
    held_out: list[PackedBatch],
    probe: list[PackedBatch],
    checkpoints: CheckpointStore | None = None,
    log: RunLog | None = None,
    on_evaluation: Callable[[list[Row]], None] | None = None,
) -> Run:
    """Train with the shared loop.

    Raises:
        InputError: the corpus is smaller than a batch, the batch cannot be divided, there is no compiler for
            ``compile``, or training diverged.

    """
    workers = workers or Workers(next(model.parameters()).device)
    check_sharding(params, workers)
    if params.compile:
        check_compiler(workers.device)
    model.encoder.recompute_layers = params.recompute_layers
    rows = rows_of_a_unit(model, params, workers=workers, folder=checkpoints.folder if checkpoints else None)
    stream = make_stream(store["train"], params, vocab_size=store.vocab_size, rows=rows)
    batch = BatchSize(params.batch, unit_tokens=rows * params.sequence_tokens, world=workers.world)

    def evaluate(module: torch.nn.Module) -> Row:
        train_row = objective.measure(module, probe, prefix="train")
        return {
            "train_mlm_loss": train_row["train_mlm_loss"],
            **objective.measure(module, held_out, prefix="validation"),
        }

    plan = Plan(
        what="pretraining",
        seed=params.seed,
        total_steps=params.steps,
        units=lambda position: stream.units(position, rank=workers.rank, world=workers.world),
        batch=batch,
        loss=objective.loss,
        split=split_rows,
        schedule=params.schedule,
        clipping=params.clipping,
        precision=params.precision,
        stability=params.stability,
        evaluate=evaluate,
        evaluate_at=lambda step: step % params.evaluate_every_steps == 0,
        best=None,
        average_decay=params.averaging.decay,
        store=checkpoints,
        checkpoints=params.checkpoints,
        log=log or RunLog(None),
        log_every_steps=params.log_every_steps,
        flops_per_token=training_flops(params, vocab_size=store.vocab_size),
        on_evaluation=on_evaluation,
        compile=params.compile,
        facts={
            "params": params.model_dump(mode="json"),
            "model": {
                "preset": name_of(params.model),
                "parameters": count_parameters(model.config).total,
                "flops_per_token": training_flops(params, vocab_size=store.vocab_size),
            },
            "data": {"tokens": store["train"].tokens, "unit_tokens": rows * params.sequence_tokens},
        },
    )
    workers.shard(model)
    return train(plan, model, build_optimizer(model, params.optimizer), workers=workers)


def check_sharding(params: PretrainParams, workers: Workers) -> None:
    """Refuse what divided weights cannot do.

    Raises:
        InputError: a value of params.yaml does not go with them.

    """
    if not workers.divides:
        return
    refused = {
        "batch.growth": (params.batch.growth.kind, "noise_scale", "constant or ramp"),
        "batch.micro_tokens": (params.batch.micro_tokens, "auto", "a number"),
        "precision": (resolve(params.precision, workers.device), "float16", "bfloat16 or float32"),
    }
    for key, (value, bad, allowed) in refused.items():
        if value == bad:
            raise InputError(
                f"`pretrain.{key}` is {value} and pretrain.sharded is true, which do not go together",
                allowed=f"{key}: {allowed}; or sharded: false",
                remedy="correct one of them in params.yaml",
            )
