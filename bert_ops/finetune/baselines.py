"""Stage ``baselines``: what a task's model must beat, trained on the same examples and judged on the same texts.

* ``majority``: the most frequent label of the training split.
* ``tfidf_lr``: TF-IDF over character n-grams with logistic regression (scikit-learn); its regularisation is chosen on
  the validation split.
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
import torch
from numpy.typing import NDArray

from bert_ops.finetune.examples import TaskData, encode_examples, read_examples
from bert_ops.finetune.inference import predict_logits
from bert_ops.finetune.params import BaselinesParams, FinetuneParams, TaskParams, TfidfParams
from bert_ops.finetune.tuning import tune
from bert_ops.io import atomic_folder, write_json, write_parquet
from bert_ops.model import huggingface
from bert_ops.model.encoder import parameter_count
from bert_ops.progress import note
from bert_ops.schema import load_section
from bert_ops.tokenizer import wordpiece

SCORED = ("validation", "test")
Probabilities = dict[str, NDArray[np.float64]]


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
    finetune = load_section(arguments.params, "finetune", FinetuneParams)
    params = load_section(arguments.params, "baselines", BaselinesParams)
    task = load_section(arguments.params, f"tasks.{arguments.task}", TaskParams)
    config = huggingface.load_config(arguments.init, made_by="pretrain")
    tokenizer = wordpiece.load(arguments.init, made_by="pretrain")
    data = encode_examples(read_examples(arguments.examples), tokenizer, max_tokens=task.max_tokens)

    results: dict[str, tuple[Probabilities, dict[str, Any]]] = {
        "majority": majority(data),
        "tfidf_lr": tfidf(data, params.tfidf),
    }
    what = f"tuning {arguments.task} without pretraining"
    tuned = tune(data, config=config, pretrained=None, task=task, params=finetune, what=what)
    probabilities = {
        name: _softmax(predict_logits(tuned.model, data.splits[name].ids, precision="float32")) for name in SCORED
    }
    about = {
        "what": "the same network and tuning from random weights",
        "parameters": parameter_count(tuned.model),
        "best_step": tuned.run.best_step,
    }
    results["no_pretraining"] = (probabilities, about)
    with atomic_folder(arguments.out) as folder:
        write_parquet(folder / "predictions.parquet", table(data, {name: p for name, (p, _) in results.items()}))
        write_json(folder / "baselines.json", {name: about for name, (_, about) in results.items()})
    for name, (scores, _) in results.items():
        right = float((scores["validation"].argmax(1) == data.splits["validation"].targets).mean())
        note(f"baseline {name}: validation accuracy {right:.1%}")


def majority(data: TaskData) -> tuple[Probabilities, dict[str, Any]]:
    """Answer with the training split's label shares, whatever the text."""
    shares = np.bincount(data.splits["train"].targets, minlength=len(data.labels)) / len(data.splits["train"])
    return (
        {name: np.tile(shares, (len(data.splits[name]), 1)) for name in SCORED},
        {"what": "the most frequent training label", "label": data.labels[int(shares.argmax())]},
    )


def tfidf(data: TaskData, params: TfidfParams) -> tuple[Probabilities, dict[str, Any]]:
    """Fit TF-IDF with logistic regression for each regularisation and keep the best on validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(
        analyzer="char",
        ngram_range=(params.ngram_min, params.ngram_max),
        min_df=params.min_document_frequency,
        sublinear_tf=params.sublinear,
    )
    features = {"train": vectorizer.fit_transform(data.splits["train"].texts)}
    features |= {name: vectorizer.transform(data.splits[name].texts) for name in SCORED}
    best_score, best_c, best_model = -1.0, 0.0, None
    for c in params.inverse_regularization:
        model = LogisticRegression(C=c, max_iter=1000).fit(features["train"], data.splits["train"].targets)
        score = float(model.score(features["validation"], data.splits["validation"].targets))
        if score > best_score:
            best_score, best_c, best_model = score, c, model
    assert best_model is not None
    return (
        {name: best_model.predict_proba(features[name]) for name in SCORED},
        {
            "what": f"character {params.ngram_min}-{params.ngram_max} TF-IDF with logistic regression",
            "inverse_regularization": best_c,
            "validation_accuracy": best_score,
            "parameters": int(best_model.coef_.size + best_model.intercept_.size),
        },
    )


def table(data: TaskData, probabilities: dict[str, Probabilities]) -> pd.DataFrame:
    """Predictions of all baselines, a row a baseline and example."""
    frames = []
    for baseline, by_split in probabilities.items():
        for split, scores in by_split.items():
            chosen = scores.argmax(1)
            frames.append(
                pd.DataFrame(
                    {
                        "baseline": baseline,
                        "example_id": data.splits[split].example_ids,
                        "split": split,
                        "predicted": [data.labels[i] for i in chosen],
                        "confidence": scores[np.arange(len(scores)), chosen].astype(np.float64),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    return probabilities
