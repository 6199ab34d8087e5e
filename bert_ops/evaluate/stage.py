"""Stage ``evaluate``: score a task's model on the test split, once, and say what the scores mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.evaluate import evidently_page, inputs, overfitting, scoring, wording
from bert_ops.evaluate.params import EvaluateParams
from bert_ops.evaluate.results import Figures
from bert_ops.finetune.inference import load_task_model, predict_probabilities
from bert_ops.io import atomic_folder, write_json, write_parquet, write_text
from bert_ops.progress import note, report_to_dagster
from bert_ops.schema import load_section
from bert_ops.seeding import generator

if TYPE_CHECKING:
    import pandas as pd


_PREVIEW_ROWS, _PREVIEW_CHARACTERS = 4, 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--task", required=True, help="name of the task, a key of `tasks` in params.yaml")
    parser.add_argument("--model", type=Path, required=True, help="folder of the fine-tuned model")
    parser.add_argument("--baselines", type=Path, required=True, help="folder with the baselines' predictions.parquet")
    parser.add_argument("--history", type=Path, required=True, help="training curve (TSV), as finetune writes it")
    parser.add_argument(
        "--examples", type=Path, required=True, help="labelled examples (Parquet), as ingest writes them"
    )
    parser.add_argument("--ingest", type=Path, required=True, help="metrics of ingest, for the duplicates it removed")
    parser.add_argument("--out", type=Path, required=True, help="folder for index.html, results.json and predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="file for the metrics (JSON)")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate a model.

    Raises:
        InputError: the test split is empty or has one label, or params.yaml is not valid.
        ArtifactError: something an earlier stage left is missing, damaged or does not fit the rest.
    """
    params = load_section(arguments.params, "evaluate", EvaluateParams)
    task: str = arguments.task
    model = load_task_model(arguments.model)
    labels = list(model.labels)
    examples = inputs.read_examples(arguments.examples, labels=labels, task=task)
    baselines = inputs.read_baselines(arguments.baselines, examples=examples, labels=labels, task=task)
    history = inputs.read_history(arguments.history, task=task)
    losses = inputs.read_validation_losses(arguments.model, evaluations=len(history.step), task=task)
    removed = Figures.read(arguments.ingest, made_by="ingest").get("duplicates_by_source")

    texts = examples.frame["text"].tolist()
    note(f"evaluate: {task}, {len(texts):,} test examples")
    probabilities = np.asarray(predict_probabilities(model, texts, threads=params.threads), dtype=np.float32)
    inputs.check_probabilities(probabilities, examples=examples, labels=labels, task=task)

    found = overfitting.judge(
        history,
        params=params.overfitting,
        resamples=params.bootstrap_resamples,
        rng=generator(params.seed, "evaluate", task, "overfitting"),
        validation_losses=losses,
        kept_step=inputs.read_kept_step(arguments.model, task=task),
    )
    scores = scoring.score(
        probabilities, examples=examples, labels=labels, baselines=baselines, params=params, task=task
    )
    results = scoring.assemble(
        scores, task=task, labels=labels, examples=examples, overfitting=found, duplicates_removed=removed
    )
    results["verdict"] = wording.verdict(results)
    predictions = predictions_table(probabilities, examples=examples, labels=labels)
    html, results["tests"] = evidently_page.render(
        results,
        predictions=predictions,
        texts=dict(zip(examples.frame["example_id"], texts, strict=True)),
        history=history,
        params=params,
    )
    preview = preview_table(predictions, texts=texts)
    _write(arguments.out, results, predictions=predictions, preview=preview, html=html)
    write_json(arguments.metrics, scoring.metrics_file(results))
    note(f"evaluate: {results['verdict']['headline']}")
    report_to_dagster({"task": task, **scoring.metrics_file(results)})


def predictions_table(
    probabilities: NDArray[np.float32], *, examples: inputs.Examples, labels: list[str]
) -> pd.DataFrame:
    """Lay out the answers as predictions.parquet holds them: example_id, split, label, predicted, score_LABEL…."""
    table = examples.frame[["example_id"]].copy()
    table["split"] = "test"
    table["label"] = examples.frame["label"]
    table["predicted"] = [labels[index] for index in probabilities.argmax(axis=1)]
    for index, label in enumerate(labels):
        table[f"score_{label}"] = probabilities[:, index]
    return table


def preview_table(predictions: pd.DataFrame, *, texts: list[str]) -> pd.DataFrame:
    """A few answers to look at: the most confident mistakes, then the most confident right ones."""
    import pandas as pd

    scores = predictions.filter(regex="^score_")
    table = pd.DataFrame({"text": [text[:_PREVIEW_CHARACTERS] for text in texts]})
    table["label"], table["predicted"] = predictions["label"].to_numpy(), predictions["predicted"].to_numpy()
    table["confidence"] = scores.max(axis=1).astype(float).round(3).to_numpy()
    table = table.sort_values("confidence", ascending=False, kind="stable")
    right = table["label"] == table["predicted"]
    return pd.concat([table[~right].head(_PREVIEW_ROWS), table[right].head(_PREVIEW_ROWS)])


def _write(out: Path, results: dict[str, Any], *, predictions: pd.DataFrame, preview: pd.DataFrame, html: str) -> None:
    with atomic_folder(out) as folder:
        write_json(folder / "results.json", results)
        write_parquet(folder / "predictions.parquet", predictions)
        write_text(folder / "preview.jsonl", preview.to_json(orient="records", lines=True, force_ascii=False))
        confusion = predictions[["label", "predicted"]].rename(columns={"label": "actual"})
        write_text(folder / "confusion.csv", confusion.to_csv(index=False, lineterminator="\n"))
        write_text(folder / "index.html", html)
