"""Stage ``pretrain``: token store to an encoder that ``transformers`` loads."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch

from bert_ops.errors import ArtifactError
from bert_ops.io import atomic_folder, file_sha256, rerun, write_json, write_text, write_tsv
from bert_ops.model import embedding_init, huggingface
from bert_ops.model.encoder import PretrainingModel, parameter_count
from bert_ops.page import page, table
from bert_ops.pretrain import objective
from bert_ops.pretrain.examples import Batch, Source
from bert_ops.pretrain.params import PretrainParams
from bert_ops.progress import duration, note
from bert_ops.schema import load_section
from bert_ops.seeding import derive, generator
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.store import SplitView, TokenStore
from bert_ops.training import checkpoint
from bert_ops.training.device import pick_device, prepare
from bert_ops.training.loop import Plan, Row, Run, train
from bert_ops.training.optimizer import adamw, learning_rate_share


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tokens", type=Path, required=True, help="token store, as tokenize writes it")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model (config.json, model.safetensors)")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for scores and throughput")
    parser.add_argument("--history", type=Path, required=True, help="TSV file for the curves")
    parser.add_argument("--results", type=Path, required=True, help="JSON file for what does not depend on the clock")
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
    key = checkpoint.run_key(
        params=params.model_dump(), tokens=file_sha256(arguments.tokens / "manifest.json"), torch=torch.__version__
    )
    folder = arguments.checkpoints / key
    with checkpoint.lock(folder):
        prepare(threads=params.threads, seed=params.seed)
        held_out = fixed_batches(store["validation"], params, store.vocab_size)
        probe = fixed_batches(store["train"], params, store.vocab_size)
        model = build_model(store, params).to(pick_device())
        note(f"pretrain: {parameter_count(model):,} parameters, {store['train'].tokens:,} training tokens")
        outcome = fit(model, store, params, held_out=held_out, probe=probe, checkpoints=folder)
        results = summarise(outcome, model, store, held_out=held_out)
        save(arguments, model, outcome, results)
    checkpoint.discard(folder)
    note(
        f"pretrain: held-out MLM loss {results['mlm_loss']:.3f} (unigram {results['unigram_loss']:.3f}), "
        f"accuracy {results['mlm_accuracy']:.1%} (unigram {results['unigram_accuracy']:.1%})"
    )


def build_model(store: TokenStore, params: PretrainParams) -> PretrainingModel:
    """Build the model and its initial embeddings."""
    model = PretrainingModel(params.model.config(vocab_size=store.vocab_size))
    if params.embedding_init.kind == "word2vec":
        view = store["train"]
        vectors = embedding_init.word2vec(
            (view.sentence(i) for i in range(view.sentences)),
            vocab_size=store.vocab_size,
            size=params.model.hidden_size,
            window=params.embedding_init.window,
            epochs=params.embedding_init.epochs,
            seed=derive(params.seed, "word2vec"),
        )
        embedding_init.set_token_vectors(model.encoder.embeddings, vectors, std=params.model.initializer_range)
    if params.position_init == "sinusoidal":
        embedding_init.set_sinusoidal_positions(model.encoder.embeddings, std=params.model.initializer_range)
    return model


def fixed_batches(view: SplitView, params: PretrainParams, vocab_size: int) -> list[Batch]:
    """The first ``evaluation_sequences`` examples of a split's own epoch, corrupted once and for all.

    BERT's own masking shares are used whatever training uses, so that figures of different recipes compare.
    """
    source = make_source(view, params, vocab_size=vocab_size, seed=derive(params.seed, "evaluation"))
    plan, groups = source.epoch(0)
    batches: list[Batch] = []
    examples = 0
    for number, rows in enumerate(groups):
        rng = generator(params.seed, "evaluation", view.name, number)
        batches.append(source.batch(plan[rows], rate=0.15, mask=0.8, random=0.1, rng=rng))
        examples += len(rows)
        if examples >= params.evaluation_sequences:
            break
    return batches


def make_source(view: SplitView, params: PretrainParams, *, vocab_size: int, seed: int) -> Source:
    """Build the batches of a split."""
    return Source(
        view,
        sequence_tokens=params.sequence_tokens,
        batch_tokens=params.batch_tokens,
        next_sentence=params.next_sentence,
        vocab_size=vocab_size,
        seed=seed,
    )


def fit(
    model: PretrainingModel,
    store: TokenStore,
    params: PretrainParams,
    *,
    held_out: list[Batch],
    probe: list[Batch],
    checkpoints: Path | None,
) -> Run:
    """Train with the shared loop."""
    source = make_source(store["train"], params, vocab_size=store.vocab_size, seed=params.seed)
    schedule, peak = params.schedule, params.optimizer.learning_rate

    def rate(step: int) -> float:
        return peak * learning_rate_share(
            step, total=params.steps, warmup=schedule.warmup_steps, kind=schedule.kind, final=schedule.final_share
        )

    def evaluate(module: torch.nn.Module) -> Row:
        train_row = objective.measure(module, probe, prefix="train")
        return {
            "train_mlm_loss": train_row["train_mlm_loss"],
            **objective.measure(module, held_out, prefix="validation"),
        }

    masking = params.masking
    plan = Plan(
        what="pretraining",
        total_steps=params.steps,
        batches=lambda step: source.from_step(step, rate=masking.rate, mask=masking.mask, random=masking.random),
        loss=objective.loss,
        learning_rate=rate,
        evaluate=evaluate,
        evaluate_at=frozenset(range(params.evaluate_every_steps, params.steps, params.evaluate_every_steps)),
        best=None,
        clip_norm=params.clipping.norm or math.inf,
        precision=params.precision,
        checkpoint_folder=checkpoints,
        checkpoint_every_s=params.checkpoint_every_s,
    )
    return train(plan, model, adamw(model, params.optimizer))


def summarise(outcome: Run, model: PretrainingModel, store: TokenStore, *, held_out: Sequence[Batch]) -> dict[str, Any]:
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
        "parameters": parameter_count(model),
        "vocab_size": store.vocab_size,
        "steps": outcome.step,
        "tokens_seen": outcome.tokens,
        "skipped_steps": outcome.skipped_steps,
    }


def save(arguments: argparse.Namespace, model: PretrainingModel, outcome: Run, results: dict[str, Any]) -> None:
    """Write model folder, curves, results and figures of speed."""
    with atomic_folder(arguments.out) as folder:
        huggingface.save_model(model, folder)
        wordpiece.copy(arguments.tokenizer, folder)
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
