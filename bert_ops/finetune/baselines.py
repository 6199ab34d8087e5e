"""Stage ``baselines``: what a task's model must beat, trained on the same examples and judged on the same texts.

* ``majority``: the answer that needs no text: the most frequent label, the labels that most texts have, the mean, or
  no span at all.
* ``tfidf_lr``: TF-IDF over character n-grams with logistic regression (ridge regression for numbers), or for spans
  logistic regression over the characters around each character; all by scikit-learn, the regularisation chosen on the
  validation split.
* ``no_pretraining``: the same network, tuned in the same way, from random weights.

The network comes without a pretrained weight, so this stage reads only the architecture and the vocabulary of the
pretrained model and does not run again when pretraining goes on for longer.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bert_ops.finetune.examples import Split, TaskData, encode_examples, read_examples
from bert_ops.finetune.inference import item_logits
from bert_ops.finetune.layer_params import EVERYTHING
from bert_ops.finetune.params import (
    BaselinesParams,
    TaggerParams,
    TaskParams,
    TfidfParams,
    load_finetune,
    load_task,
)
from bert_ops.finetune.problems import AnyProblem, MultiLabel, Regression, SingleLabel
from bert_ops.finetune.scores import evaluate_score
from bert_ops.finetune.start import load_start
from bert_ops.finetune.tuning import tune
from bert_ops.io import atomic_folder, write_json, write_parquet
from bert_ops.model.encoder import parameter_count
from bert_ops.progress import note
from bert_ops.schema import load_section

SCORED = ("validation", "test")
#: What a baseline answers, by split, in the form that the task's problem answers in; and what there is to say of it.
Answers = dict[str, Any]
Facts = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--task", required=True, help="name of the task, a key of `tasks` in params.yaml")
    parser.add_argument(
        "--init", type=Path, required=True, help="model folder whose architecture and vocabulary to take"
    )
    parser.add_argument("--examples", type=Path, required=True, help="the task's examples, as ingest writes them")
    parser.add_argument("--out", type=Path, required=True, help="folder for predictions.parquet and baselines.json")


def run(arguments: argparse.Namespace) -> None:
    """Train the baselines and write their predictions on validation and test.

    Raises:
        ArtifactError: examples or model folder are missing or damaged.
        InputError: the examples cannot be learned from, or training diverged.

    """
    task = load_task(arguments.params, arguments.task)
    finetune = load_finetune(arguments.params, task, name=arguments.task)
    params = load_section(arguments.params, "baselines", BaselinesParams)
    config, tokenizer = load_start(arguments.init)
    data = encode_examples(read_examples(arguments.examples), tokenizer, task)

    results: dict[str, tuple[Answers, Facts]] = {
        "majority": majority(data),
        "tfidf_lr": shallow(data, params, task=task, seed=finetune.seed),
    }
    what = f"tuning {arguments.task} without pretraining"
    # Frozen layers are of use to those who have something to keep: without pretraining all is trained.
    whole = finetune.model_copy(update={"layers": EVERYTHING})
    tuned = tune(data, config=config, pretrained=None, task=task, params=whole, what=what)
    answers = {
        name: tuned.problem.answer(
            item_logits(tuned.model, data.splits[name].rows, data.splits[name].items),
            data.splits[name].items,
            data.splits[name].rows,
        )
        for name in SCORED
    }
    about = {
        "what": "the same network and tuning from random weights",
        "parameters": parameter_count(tuned.model),
        "best_step": tuned.run.best_step,
    }
    results["no_pretraining"] = (answers, about)
    with atomic_folder(arguments.out) as folder:
        write_parquet(
            folder / "predictions.parquet", table(data, {name: given for name, (given, _) in results.items()})
        )
        write_json(folder / "baselines.json", {name: facts for name, (_, facts) in results.items()})
    for name, (given, _) in results.items():
        score = validation_score(data.problem, given["validation"], data.splits["validation"], metric=task.metric)
        note(f"baseline {name}: validation {task.metric} {score:.4f}")


def validation_score(problem: AnyProblem, answers: Any, split: Split, *, metric: str) -> float:
    """Score of answers to a split by a metric of the task's kind."""
    return evaluate_score(problem.scores(answers, split.truth)[metric])


def majority(data: TaskData) -> tuple[Answers, Facts]:
    """Answer without reading: the same to every text."""
    same, what = data.problem.constant(data.splits["train"].truth)
    return {name: data.problem.repeated(same, len(data.splits[name])) for name in SCORED}, {"what": what}


def shallow(data: TaskData, params: BaselinesParams, *, task: TaskParams, seed: int) -> tuple[Answers, Facts]:
    """Fit the shallow model of the task's kind for each regularisation and keep the best on validation."""
    if task.kind == "token_classification":
        return characters(data, params.tagger, seed=seed)
    return tfidf(data, params.tfidf, task=task)


def tfidf(data: TaskData, params: TfidfParams, *, task: TaskParams) -> tuple[Answers, Facts]:
    """TF-IDF over character n-grams, with logistic or ridge regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char",
        ngram_range=(params.ngram_min, params.ngram_max),
        min_df=params.min_document_frequency,
        sublinear_tf=params.sublinear,
    )
    features = {"train": vectorizer.fit_transform(read_as_one(data.splits["train"]))}
    features |= {name: vectorizer.transform(read_as_one(data.splits[name])) for name in SCORED}
    best: tuple[float, float, Answers, int] | None = None
    for c in params.inverse_regularization:
        model, answer = _linear(data, c)
        model.fit(features["train"], _targets(data.splits["train"]))
        answers = {name: answer(model, features[name]) for name in SCORED}
        score = validation_score(data.problem, answers["validation"], data.splits["validation"], metric=task.metric)
        if best is None or score > best[0]:
            best = (score, c, answers, _size(model))
    assert best is not None
    score, c, answers, size = best
    regression = "ridge" if isinstance(data.problem, Regression) else "logistic"
    return answers, {
        "what": f"character {params.ngram_min}-{params.ngram_max} TF-IDF with {regression} regression",
        "inverse_regularization": c,
        f"validation_{task.metric}": score,
        "parameters": size,
    }


def read_as_one(split: Split) -> list[str]:
    """Texts of a split, those of a pair joined by a line break, which no cleaned text of a pair holds twice."""
    if split.pairs is None:
        return split.texts
    return [f"{first}\n{second}" for first, second in zip(split.texts, split.pairs, strict=True)]


def _linear(data: TaskData, c: float) -> tuple[Any, Any]:
    """A linear model of scikit-learn for the task's kind, and how it answers."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    problem = data.problem
    if isinstance(problem, Regression):
        return Ridge(alpha=1.0 / c), lambda model, x: model.predict(x) * problem.deviation + problem.mean
    logistic = LogisticRegression(C=c, max_iter=1000)
    if isinstance(problem, MultiLabel):
        return OneVsRestClassifier(logistic), lambda model, x: np.asarray(model.predict_proba(x))
    assert isinstance(problem, SingleLabel)
    return logistic, lambda model, x: model.predict_proba(x)


def _targets(split: Split) -> Any:
    """Targets (N, …) of texts, though some are read in several windows."""
    return split.targets[np.unique(split.items.example, return_index=True)[1]]


def _size(model: Any) -> int:
    parts = getattr(model, "estimators_", [model])
    return sum(int(np.size(part.coef_) + np.size(part.intercept_)) for part in parts if hasattr(part, "coef_"))


def characters(data: TaskData, params: TaggerParams, *, seed: int) -> tuple[Answers, Facts]:
    """Logistic regression over each character and its neighbours."""
    from bert_ops.finetune.character_tagger import fit_character_tagger

    train, validation = data.splits["train"], data.splits["validation"]
    tagger = fit_character_tagger(
        train.texts,
        train.truth,
        validation_texts=validation.texts,
        validation_spans=validation.truth,
        inverse_regularization=params.inverse_regularization,
        seed=seed,
    )
    return {name: tagger.predict(data.splits[name].texts) for name in SCORED}, tagger.facts


def table(data: TaskData, answers: dict[str, Answers]) -> pd.DataFrame:
    """Predictions of all baselines, a row a baseline and example."""
    frames = []
    for baseline, by_split in answers.items():
        for split, given in by_split.items():
            frames.append(
                pd.DataFrame(
                    {
                        "baseline": baseline,
                        "example_id": data.splits[split].example_ids,
                        "split": split,
                        "predicted": data.problem.as_text(given),
                        "confidence": data.problem.confidence(given),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)
