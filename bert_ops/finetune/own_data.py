"""``bert-ops finetune --data FILE``: a model of a user's own table, from the file and two column names.

The same cleaning, splits, training and scores as in the pipeline; what this leaves is the model, the examples and a
page of text that says how good it is and how the task is put into params.yaml.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tokenizers import Tokenizer

from bert_ops.corpus.own_examples import OwnExamples, examples_from_file, for_labelled
from bert_ops.corpus.params import IngestParams
from bert_ops.errors import InputError
from bert_ops.finetune.encoding import encode
from bert_ops.finetune.examples import encode_examples, read_examples
from bert_ops.finetune.inference import load_task_model, predict
from bert_ops.finetune.params import TASK, FinetuneParams
from bert_ops.finetune.resampling import bootstrap, paired
from bert_ops.finetune.scores import METRICS, evaluate_score
from bert_ops.finetune.stage import Job, finetune
from bert_ops.finetune.start import load_start
from bert_ops.io import write_json
from bert_ops.model.encoder import EncoderConfig
from bert_ops.progress import note
from bert_ops.schema import load_section, read_yaml, validate
from bert_ops.seeding import generator

#: Values where there is no params.yaml; those of this project's own, held equal by a test.
PRESET = Path(__file__).parent / "presets" / "own_data.yaml"

#: Option that names the column of answers, to the kind of task that it makes.
KINDS = {
    "label": "sequence_classification",
    "labels": "multi_label_classification",
    "value": "regression",
    "spans": "token_classification",
}
#: Share of the training texts that the model shall see whole, if it has the positions.
WHOLE = 0.99
RESAMPLES = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--data", type=Path, required=True, help="CSV, TSV, JSON Lines or Parquet, also compressed")
    parser.add_argument("--text", required=True, metavar="COLUMN", help="column with the text")
    answers = parser.add_mutually_exclusive_group(required=True)
    answers.add_argument("--label", metavar="COLUMN", help="column with the label of the text")
    answers.add_argument("--labels", metavar="COLUMN", help="column with a list of labels")
    answers.add_argument("--value", metavar="COLUMN", help="column with a number")
    answers.add_argument("--spans", metavar="COLUMN", help="column with [[start, end, label], …], in characters")
    parser.add_argument("--pair", metavar="COLUMN", help="column with a second text, for tasks on pairs")
    parser.add_argument("--group", metavar="COLUMN", help="column whose equal values stay on one side (an author)")
    parser.add_argument("--label-separator", metavar="SIGN", help="what divides --labels within a cell, | say")
    parser.add_argument(
        "--init",
        type=Path,
        default=Path("models/pretrained"),
        help="model folder to start from, any BERT's (%(default)s)",
    )
    parser.add_argument("--name", help="of the task (the name of the file)")
    parser.add_argument("--epochs", type=int, help="passes over the training texts (as params.yaml says)")
    parser.add_argument("--out", type=Path, help="folder for model and examples (models/own/NAME)")


def run(arguments: argparse.Namespace) -> None:
    """Read the file, tune a model, score it on texts that it never saw, and say what to do next.

    Raises:
        InputError: file, columns or options do not fit, or there is nothing to learn from them.
        ArtifactError: there is no model to start from.

    """
    params = arguments.params if arguments.params.is_file() else PRESET
    name = arguments.name or _name_of(arguments.data)
    out = arguments.out or Path("models/own") / name
    if not arguments.init.is_dir():
        raise InputError(
            f"there is no model to start from: {arguments.init} is no folder",
            allowed="the folder of any BERT model: config.json, weights, and vocab.txt or tokenizer.json",
            remedy="name one with --init, or pretrain one: `make run`, or `dvc repro pretrain`",
        )
    config, tokenizer = load_start(arguments.init)
    found = _examples(arguments, params, task=name, out=out / "data")
    for line in found.lines():
        note(line)
    raw = task_values(arguments, found, tokenizer, config)
    task = validate(raw, TASK, where=f"tasks.{name}", source=params)
    data = encode_examples(read_examples(found.path), tokenizer, task)
    job = Job(name, task, _finetune(arguments, params), arguments.init, config, data)
    paths = argparse.Namespace(
        examples=found.path,
        out=out / "model",
        history=out / "history.tsv",
        metrics=out / "metrics.json",
        run_log=out / "log.jsonl",
        checkpoints=Path(".bert_ops/checkpoints/own"),
    )
    finetune(job, paths)
    scores = judge(job, out / "model", metric=task.metric)
    write_json(out / "test.json", scores)
    sys.stdout.write(summary(name, raw, found, scores, out=out))


def _name_of(data: Path) -> str:
    """Name of the file without its suffixes, fit for a key."""
    stem = data.name.split(".")[0].lower()
    return "".join(sign if sign.isalnum() and sign.isascii() else "_" for sign in stem).strip("_") or "own"


def _examples(arguments: argparse.Namespace, params: Path, *, task: str, out: Path) -> OwnExamples:
    columns = {kind: getattr(arguments, kind) for kind in (*KINDS, "pair", "group", "label_separator")}
    ingest = for_labelled(load_section(params, "ingest", IngestParams))
    return examples_from_file(arguments.data, text=arguments.text, task=task, out=out, ingest=ingest, **columns)


def _finetune(arguments: argparse.Namespace, params: Path) -> FinetuneParams:
    raw = read_yaml(params).get("finetune", {})
    if arguments.epochs is not None:
        raw = {**raw, "epochs": arguments.epochs}
    return validate(raw, FinetuneParams, where="finetune", source=params)


def task_values(
    arguments: argparse.Namespace, found: OwnExamples, tokenizer: Tokenizer, config: EncoderConfig
) -> dict[str, Any]:
    """The task as it would stand in params.yaml.

    ``max_tokens`` is what holds nearly all training texts whole, in eights, within the positions of the model; longer
    texts are read in windows, or from their head if they are pairs.
    """
    kind = next(KINDS[option] for option in KINDS if getattr(arguments, option) is not None)
    values: dict[str, Any] = {"kind": kind, "metric": METRICS[kind][0]}
    if kind != "regression":
        values["class_weights"] = "none"
    if kind == "token_classification":
        values |= {"scheme": "BIOES", "misaligned": "widen", "loss": "sequences", "mention_replacement": 0.0}
    frame = read_examples(found.path)
    frame = frame[frame["split"] == "train"]
    pairs = None if arguments.pair is None else frame["pair"].tolist()
    rows = encode(tokenizer, frame["text"].tolist(), pairs, max_tokens=config.max_positions, truncation="head")
    wanted = int(np.ceil(np.quantile(rows.lengths, WHOLE) / 8) * 8)
    whole = arguments.pair is not None or not rows.cut
    return {**values, "max_tokens": min(wanted, config.max_positions), "truncation": "head" if whole else "windows"}


def judge(job: Job, model: Path, *, metric: str) -> dict[str, Any]:
    """Scores on the test split, and of the answer that needs no text."""
    test = job.data.splits["test"]
    loaded = load_task_model(model)
    answers = predict(loaded, test.texts, test.pairs, threads=job.params.threads)
    same, what = job.data.problem.constant(job.data.splits["train"].truth)
    own = loaded.problem.scores(answers, test.truth)[metric]
    blind = loaded.problem.scores(loaded.problem.repeated(same, len(test)), test.truth)[metric]
    rng = generator(job.params.seed, "own data")
    compared = paired(own, blind, resamples=RESAMPLES, rng=rng)
    return {
        "metric": metric,
        "examples": len(test),
        "score": evaluate_score(own),
        "score_ci95": bootstrap(own, resamples=RESAMPLES, rng=rng).as_list(),
        "without_reading": evaluate_score(blind),
        "without_reading_is": what,
        "difference_ci95": compared.interval.as_list(),
    }


def summary(name: str, task: dict[str, Any], found: OwnExamples, scores: dict[str, Any], *, out: Path) -> str:
    """What came out, how to use it, and how to make it a task of the pipeline."""
    low, high = scores["score_ci95"]
    better = scores["difference_ci95"][0] > 0
    verdict = (
        "" if better else "  It has learned nothing that shows: more examples, or more epochs (--epochs), may help.\n"
    )
    head = "token-classification" if task["kind"] == "token_classification" else "text-classification"
    source = {**found.source, "path": f"data/raw/{Path(found.source['path']).name}"}
    values = {"ingest": {"sources": {name: source}}, "tasks": {name: task}}
    lines = yaml.safe_dump(values, allow_unicode=True, sort_keys=False, default_flow_style=False)
    return (
        f"\n{name}: {scores['metric']} {scores['score']:.3f} ({low:.3f} to {high:.3f}, 95%) on {scores['examples']:,} "
        f"texts that it never saw; {scores['without_reading_is']}: {scores['without_reading']:.3f}\n{verdict}"
        f"\nThe model is in {out / 'model'}. Use it, without bert-ops too:\n\n"
        "    from transformers import pipeline\n"
        f"    pipeline({head!r}, {str(out / 'model')!r})('…')\n"
        "\nTo make it a task of the pipeline, with baselines, report and a compressed model: put the file into\n"
        "data/raw, add these lines to params.yaml, and run `dvc repro`.\n\n"
        + "".join(f"    {line}\n" for line in lines.splitlines())
    )
