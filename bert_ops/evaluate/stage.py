"""Stage ``evaluate``: score a task's model on the test split, once, and say what the scores mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_ops.evaluate import evidently_page, inputs, overfitting, scoring, wording
from bert_ops.evaluate.params import EvaluateParams
from bert_ops.evaluate.results import Figures
from bert_ops.finetune.inference import load_task_model, predict
from bert_ops.finetune.params import load_task
from bert_ops.finetune.problems import AnyProblem
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
    parser.add_argument("--confusion", type=Path, required=True, help="file for actual and predicted answers (CSV)")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate a model.

    Raises:
        InputError: the test split is empty or has one label, or params.yaml is not valid.
        ArtifactError: something an earlier stage left is missing, damaged or does not fit the rest.
    """
    params = load_section(arguments.params, "evaluate", EvaluateParams)
    task: str = arguments.task
    metric = load_task(arguments.params, task).metric
    model = load_task_model(arguments.model)
    problem = model.problem
    examples = inputs.read_examples(arguments.examples, problem=problem, task=task)
    baselines = inputs.read_baselines(arguments.baselines, problem=problem, examples=examples, task=task)
    history = inputs.read_history(arguments.history, task=task)
    losses = inputs.read_validation_losses(arguments.model, evaluations=len(history.step), task=task)
    removed = Figures.read(arguments.ingest, made_by="ingest").get("duplicates_by_source")

    note(f"evaluate: {task}, {len(examples.texts):,} test examples")
    answers = predict(model, examples.texts, examples.pairs, threads=params.threads)
    inputs.check_answers(answers, problem=problem, examples=examples, task=task)

    found = overfitting.judge(
        history,
        params=params.overfitting,
        resamples=params.bootstrap_resamples,
        rng=generator(params.seed, "evaluate", task, "overfitting"),
        validation_losses=losses,
        kept_step=inputs.read_kept_step(arguments.model, task=task),
    )
    scores = scoring.score(
        answers, problem=problem, examples=examples, baselines=baselines, params=params, task=task, metric=metric
    )
    results = scoring.assemble(
        scores, task=task, labels=list(model.labels), examples=examples, overfitting=found, duplicates_removed=removed
    )
    results["verdict"] = wording.verdict(results)
    predictions = predictions_table(answers, problem=problem, examples=examples)
    html, results["tests"] = evidently_page.render(
        results,
        predictions=predictions,
        texts=dict(zip(examples.frame["example_id"], _shown(examples), strict=True)),
        history=history,
        params=params,
    )
    preview = preview_table(predictions, texts=_shown(examples))
    _write(arguments.out, results, predictions=predictions, preview=preview, html=html)
    write_json(arguments.metrics, scoring.metrics_file(results))
    write_text(arguments.confusion, confusion(results, predictions))
    note(f"evaluate: {results['verdict']['headline']}")
    report_to_dagster({"task": task, **scoring.metrics_file(results)})


def _shown(examples: inputs.Examples) -> list[str]:
    """Texts as a reader sees them, those of a pair on two lines."""
    if examples.pairs is None:
        return examples.texts
    return [f"{first}\n{second}" for first, second in zip(examples.texts, examples.pairs, strict=True)]


def predictions_table(answers: Any, *, problem: AnyProblem, examples: inputs.Examples) -> pd.DataFrame:
    """Lay out the answers as predictions.parquet holds them.

    Columns: example_id, split, label and predicted (as examples.parquet writes answers), mistake (how far off the
    answer is; 0: right), confidence (NaN where the kind gives none), and of labels score_LABEL….
    """
    table = examples.frame[["example_id"]].copy()
    table["split"] = "test"
    table["label"] = problem.truth_as_text(examples.truth)
    table["predicted"] = problem.as_text(answers)
    table["mistake"] = problem.mistakes(answers, examples.truth)
    table["confidence"] = problem.confidence(answers).astype(np.float64)
    if isinstance(answers, np.ndarray) and answers.ndim == 2:
        for index, label in enumerate(problem.labels):
            table[f"score_{label}"] = answers[:, index].astype(np.float32)
    return table


def preview_table(predictions: pd.DataFrame, *, texts: list[str]) -> pd.DataFrame:
    """A few answers to look at: the worst mistakes, then the right ones that are surest."""
    import pandas as pd

    table = pd.DataFrame({"text": [text[:_PREVIEW_CHARACTERS] for text in texts]})
    for column in ("label", "predicted"):
        table[column] = predictions[column].str[:_PREVIEW_CHARACTERS].to_numpy()
    table["confidence"] = predictions["confidence"].round(3).to_numpy()
    table["mistake"] = predictions["mistake"].to_numpy()
    table = table.sort_values(["mistake", "confidence"], ascending=False, kind="stable")
    wrong = table["mistake"] > 0
    shown = pd.concat([table[wrong].head(_PREVIEW_ROWS), table[~wrong].head(_PREVIEW_ROWS)])
    return shown.drop(columns=["mistake", *(["confidence"] if shown["confidence"].isna().all() else [])])


def confusion(results: dict[str, Any], predictions: pd.DataFrame) -> str:
    """CSV of actual and predicted answers, a row an example, for the plot of ``dvc plots``.

    Of lists and spans, whose answers are too many for a matrix: whether an example was answered as it should be. Of
    numbers: the third of the true numbers that they belong to.
    """
    table = predictions[["label", "predicted"]].rename(columns={"label": "actual"})
    if results["kind"] == "regression":
        numbers = table.astype(float)
        edges = np.quantile(numbers["actual"], [1 / 3, 2 / 3])
        names = np.array(["1 low", "2 middle", "3 high"])
        table = numbers.apply(lambda column: names[np.searchsorted(edges, column)])
    elif results["kind"] != "sequence_classification":
        table["actual"], table["predicted"] = "as given", np.where(predictions["mistake"] > 0, "otherwise", "as given")
    return str(table.to_csv(index=False, lineterminator="\n"))


def _write(out: Path, results: dict[str, Any], *, predictions: pd.DataFrame, preview: pd.DataFrame, html: str) -> None:
    with atomic_folder(out) as folder:
        write_json(folder / "results.json", results)
        write_parquet(folder / "predictions.parquet", predictions)
        write_text(folder / "preview.jsonl", preview.to_json(orient="records", lines=True, force_ascii=False))
        write_text(folder / "index.html", html)
