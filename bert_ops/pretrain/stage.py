"""Stage ``pretrain``: token store to an encoder that ``transformers`` loads."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bert_ops.errors import ArtifactError
from bert_ops.io import atomic_folder, file_sha256, rerun, write_json, write_text, write_tsv
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import PretrainingModel
from bert_ops.model.sizes import count_parameters
from bert_ops.page import page, table
from bert_ops.pretrain import objective
from bert_ops.pretrain.batch import PackedBatch
from bert_ops.pretrain.fitting import build_model, fit, held_out_units, training_flops
from bert_ops.pretrain.micro_batch import check_steps
from bert_ops.pretrain.params import PretrainParams
from bert_ops.progress import duration, note
from bert_ops.schema import load_section
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training import checkpoint
from bert_ops.training.checkpoint import CheckpointStore, Retention
from bert_ops.training.device import prepare
from bert_ops.training.distributed import from_environment
from bert_ops.training.loop import Run
from bert_ops.training.run_log import LOG_NAME, RunLog
from bert_ops.training.workers import Workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tokens", type=Path, required=True, help="token store, as tokenize writes it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model (config.json, model.safetensors)")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for scores and throughput")
    parser.add_argument("--history", type=Path, required=True, help="TSV file for the curves")
    parser.add_argument("--results", type=Path, required=True, help="JSON file for what does not depend on the clock")
    parser.add_argument("--run-log", type=Path, required=True, help="JSON Lines file for the run's log")
    parser.add_argument("--speed-page", type=Path, required=True, help="HTML page with the throughput")
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="folder for checkpoints; not an output of the stage"
    )


def run(arguments: argparse.Namespace) -> None:
    """Pretrain, save the model and its figures.

    Raises:
        ArtifactError: token store or tokenizer are missing, damaged or do not belong together.
        InputError: training diverged, or another trainer holds the checkpoint folder.

    """
    params = load_section(arguments.params, "pretrain", PretrainParams)
    store = TokenStore.open(arguments.tokens)
    _check_vocabulary(store, arguments.tokenizer)
    with from_environment(sharded=params.sharded) as workers, _quiet_unless(workers.is_first):
        pretrain(arguments, params, store, workers)


def pretrain(arguments: argparse.Namespace, params: PretrainParams, store: TokenStore, workers: Workers) -> None:
    """Train and save; every process runs this, and the first one writes."""
    check_steps(params, world=workers.world)
    identity = identify(params, store)
    folder = arguments.checkpoints / checkpoint.run_key(**identity)
    with checkpoint.lock(folder) if workers.is_first else nullcontext():
        workers.barrier()
        prepare(threads=params.threads, seed=params.seed)
        model = build_model(store, params).to(workers.device)
        describe(model, store, params)
        held_out = held_out_units(store["validation"], params, store.vocab_size)
        checkpoints = CheckpointStore(
            folder,
            retention=Retention(keep_last=params.checkpoints.keep_last, keep_best=params.checkpoints.keep_best),
            identity=identity,
        )
        outcome = fit(
            model,
            store,
            params,
            workers=workers,
            held_out=held_out,
            probe=held_out_units(store["train"], params, store.vocab_size),
            checkpoints=checkpoints,
            log=RunLog(folder / LOG_NAME if workers.is_first else None),
            on_evaluation=lambda history: write_tsv(arguments.history, history),
        )
        weights = workers.model_tensors(model)
        if not workers.is_first:
            return
        results = summarise(outcome, model.config, store, held_out=held_out)
        save(arguments, model.config, weights, outcome, results)
        # A log that could not be written was reported then; the stage's output is empty in that case.
        log = folder / LOG_NAME
        write_text(arguments.run_log, log.read_text(encoding="utf-8") if log.is_file() else "")
        checkpoint.discard(folder)
    note(
        f"pretrain: held-out MLM loss {results['mlm_loss']:.3f} (unigram {results['unigram_loss']:.3f}), "
        f"accuracy {results['mlm_accuracy']:.1%} (unigram {results['unigram_accuracy']:.1%})"
    )


@contextmanager
def _quiet_unless(first: bool) -> Iterator[None]:
    """Let one process of several speak; what ends another is reported where it ends."""
    if first:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield


def identify(params: PretrainParams, store: TokenStore) -> dict[str, str]:
    """What a checkpoint belongs to; a run resumes only from its own.

    When checkpoints are written, what is logged and where weights lie changes none of them, and may change in a run.
    """
    training = params.model_dump(mode="json", exclude={"checkpoints", "log_every_steps", "sharded"})
    return {
        "architecture": json.dumps(training.pop("model"), sort_keys=True),
        "vocabulary": str(store.manifest["vocab_sha256"]),
        "parameters": json.dumps(training, sort_keys=True),
        "tokens": file_sha256(store.folder / "manifest.json"),
        "torch": torch.__version__,
    }


def describe(model: PretrainingModel, store: TokenStore, params: PretrainParams) -> None:
    """Say what is about to be trained: sizes, cost, passes over the corpus."""
    size = count_parameters(model.config)
    view = store["train"]
    tokens = params.steps * params.batch.tokens
    flops = training_flops(params, vocab_size=store.vocab_size)
    note(
        f"pretrain: {size.total:,} parameters ({size.embedding:,} embedding, {size.encoder:,} encoder, {size.heads:,} "
        f"heads), {flops / 1e6:,.1f} MFLOPs a token, {tokens * flops:.3g} FLOPs in all"
    )
    note(f"pretrain: {view.tokens:,} training tokens, up to {tokens:,} to be read ({tokens / view.tokens:.1f} passes)")


def summarise(
    outcome: Run, config: EncoderConfig, store: TokenStore, *, held_out: Sequence[PackedBatch]
) -> dict[str, Any]:
    """Figures that do not depend on the clock."""
    last = outcome.history[-1]
    loss, accuracy = objective.unigram(store["train"], held_out, vocab_size=store.vocab_size)
    return {
        "mlm_loss": last["validation_mlm_loss"],
        "mlm_accuracy": last["validation_mlm_accuracy"],
        "train_mlm_loss": last["train_mlm_loss"],
        "unigram_loss": loss,
        "unigram_accuracy": accuracy,
        "nsp_accuracy": last.get("validation_nsp_accuracy"),
        "masked_tokens_measured": sum(len(batch.targets) for batch in held_out),
        "parameters": count_parameters(config).total,
        "vocab_size": store.vocab_size,
        "steps": outcome.step,
        "tokens_seen": outcome.tokens,
        "skipped_steps": outcome.skipped_steps,
        "rollbacks": outcome.rollbacks,
    }


def save(
    arguments: argparse.Namespace,
    config: EncoderConfig,
    weights: dict[str, Tensor],
    outcome: Run,
    results: dict[str, Any],
) -> None:
    """Write model folder, curves, results and figures of speed."""
    with atomic_folder(arguments.out) as folder:
        huggingface.save_weights(weights, folder, config=config, architecture="pretraining")
        wordpiece.copy(arguments.tokenizer, folder, max_length=config.max_positions)
        write_text(folder / "README.md", model_card(results))
    write_tsv(arguments.history, outcome.history)
    write_json(arguments.results, results)
    speed = outcome.tokens_here / outcome.train_seconds if outcome.train_seconds else None
    write_json(arguments.metrics, {**results, "tokens_per_second": speed, "seconds": outcome.train_seconds})
    rows = [
        ["tokens a second", f"{speed:,.0f}" if speed else "nothing was left to train"],
        ["time in optimiser steps", escape(duration(outcome.train_seconds))],
    ]
    write_text(arguments.speed_page, page("Pretraining speed", table(["figure", "on this machine"], rows, numeric=[1])))


def model_card(results: dict[str, Any]) -> str:
    """``README.md`` of the model folder."""
    return (
        "---\npipeline_tag: fill-mask\nlibrary_name: transformers\n---\n\n"
        "# BERT pretrained with bert-ops\n\n"
        f"{results['parameters']:,} parameters, vocabulary of {results['vocab_size']:,}, "
        f"{results['steps']:,} steps over {results['tokens_seen']:,} tokens.\n\n"
        f"Held-out masked-language-model loss {results['mlm_loss']:.4f} nats (token frequencies alone: "
        f"{results['unigram_loss']:.4f}), accuracy {results['mlm_accuracy']:.4f}.\n\n"
        "Load it with `transformers.AutoModelForPreTraining.from_pretrained(FOLDER)`.\n"
    )


def _check_vocabulary(store: TokenStore, tokenizer: Path) -> None:
    """Refuse a tokenizer other than the one that wrote the store.

    Raises:
        ArtifactError: it is missing, or its vocabulary differs.

    """
    for name in wordpiece.FILES:
        if not (tokenizer / name).is_file():
            raise ArtifactError(f"{tokenizer / name} does not exist", remedy=rerun("tokenizer"))
    if file_sha256(tokenizer / "vocab.txt") != store.manifest["vocab_sha256"]:
        raise ArtifactError(
            f"{tokenizer / 'vocab.txt'} is not the vocabulary that {store.folder} was written with",
            remedy=rerun("tokenize"),
        )
