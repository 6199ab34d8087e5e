"""A small tree of artifacts as the stages before leave it, and a model that answers without having learned."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bert_ops.finetune.problems import SingleLabel

TASK = "sentiment"

PARAMS: dict[str, Any] = {
    "tasks": {
        TASK: {
            "kind": "sequence_classification",
            "metric": "accuracy",
            "class_weights": "none",
            "max_tokens": 160,
            "truncation": "head",
        }
    },
    "evaluate": {
        "seed": 1,
        "threads": 1,
        "bootstrap_resamples": 300,
        "calibration_bins": 10,
        "max_calibration_error": 0.1,
        "overfitting": {
            "min_evaluations": 8,
            "smoothing": 3,
            "generalization_loss": 0.05,
            "significance": 0.05,
            "accuracy_points": 2.0,
        },
        "report_examples": 20000,
    },
    "promote": {
        "max_points_lost": 1.0,
        "min_points_over_majority": 5.0,
        "min_size_ratio": 2.0,
        "reject_overfitting": ["fail"],
    },
    "report": {"title": "bert-ops"},
}

PHRASES = ("房间很干净，服务态度热情，早餐丰富。", "书的纸张太薄，印刷模糊，非常失望！", "还可以，价格一般。")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_params(root: Path, **changes: Any) -> Path:
    values = json.loads(json.dumps(PARAMS))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    path = root / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def write_examples(root: Path, labels: list[str], *, test: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows = []
    for split, count in (("train", 200), ("validation", 60), ("test", test)):
        for number in range(count):
            kind = int(rng.integers(len(labels)))
            text = PHRASES[kind] * int(rng.integers(1, 20)) + f"{split}{number}"
            if split == "test" and number < 3:
                text = f'</script><b onclick="x">{text}'
            digest = hashlib.sha256(text.encode()).hexdigest()
            rows.append((digest[:16], "reviews", split, text, None, labels[kind], None, digest, digest[:16]))
    columns = ["example_id", "source", "split", "text", "pair", "label", "spans", "content_hash", "cluster"]
    frame = pd.DataFrame(rows, columns=columns)
    path = root / f"data/corpus/examples/{TASK}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)
    return frame


def write_baselines(root: Path, frame: pd.DataFrame, labels: list[str]) -> None:
    rng = np.random.default_rng(8)
    held = frame[frame["split"] != "train"]
    parts = []
    for name, accuracy in (("majority", None), ("tfidf_lr", 0.9), ("no_pretraining", 0.6)):
        other = np.array(labels)[rng.integers(len(labels), size=len(held))]
        right = np.zeros(len(held), bool) if accuracy is None else rng.random(len(held)) < accuracy
        predicted = np.where(right, held["label"], labels[0] if accuracy is None else other)
        parts.append(
            pd.DataFrame(
                {
                    "baseline": name,
                    "example_id": held["example_id"],
                    "split": held["split"],
                    "predicted": predicted,
                    "confidence": 0.5,
                }
            )
        )
    folder = root / f"models/baselines/{TASK}"
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(parts).to_parquet(folder / "predictions.parquet")


def write_training(root: Path, *, evaluations: int = 12, rise: float = 0.0) -> None:
    rng = np.random.default_rng(9)
    index = np.arange(evaluations)
    loss = 0.4 + 0.3 * np.exp(-index / 2) + rise * np.maximum(0, index - 5)
    losses = loss[:, None] + rng.normal(0, 0.2, 60)[None] + rng.normal(0, 0.01, (evaluations, 60))
    history = pd.DataFrame(
        {
            "step": (index + 1) * 100,
            "epoch": (index + 1) / 4,
            "train_loss": 0.6 * np.exp(-index / 4),
            "validation_loss": losses.mean(axis=1),
            "validation_accuracy": 0.8 - 0.1 * np.exp(-index),
            "learning_rate": 1e-3,
        }
    )
    path = root / f"plots/finetune/{TASK}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    history.to_csv(path, sep="\t", index=False)
    folder = root / f"models/finetuned/{TASK}/training"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "validation_losses.npy", losses.astype(np.float32))


def write_rest(root: Path) -> None:
    """What the other stages leave for promote, report and summary."""
    write_json(
        root / "metrics/ingest.json",
        {
            "documents": 380,
            "rejected": 4,
            "duplicates_removed": 16,
            "near_duplicates_removed": 5,
            "leakage": {"documents_dropped": 2},
            "read": 400,
            "rejected_by_reason": {"too_short": 3, "not_utf8": 1},
            "duplicates_by_source": {"reviews": 16},
        },
    )
    write_json(root / "metrics/tokenize.json", {"tokens": 12345, "vocab_size": 600, "unknown_share": 0.002})
    pretrain = {
        "mlm_loss": 3.71,
        "mlm_accuracy": 0.327,
        "unigram_loss": 6.35,
        "unigram_accuracy": 0.048,
        "nsp_accuracy": 0.714,
        "parameters": 1_234_567,
        "steps": 4000,
        "tokens_seen": 8_192_000,
        "vocab_size": 600,
    }
    write_json(root / "reports/pretrain/results.json", pretrain)
    write_json(root / "metrics/pretrain.json", {**pretrain, "tokens_per_second": 24512.3, "seconds": 333.0})
    rows = "".join(f"{s}\t{7 - s / 1000}\t{7.1 - s / 1000}\n" for s in range(250, 4001, 250))
    plot = root / "plots/pretrain.tsv"
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_text("step\ttrain_mlm_loss\tvalidation_mlm_loss\n" + rows, encoding="utf-8")
    for name, warned in (("corpus", 0), ("tokens", 2)):
        checks = {"success": True, "evaluated": 30, "failed_critical": 0, "failed_warning": warned, "results": []}
        write_json(root / f"metrics/validate_{name}.json", checks)
    small = {"bytes": 1_900_000, "bytes_fp32": 5_900_000, "metric": "accuracy", "score": 0.828, "score_fp32": 0.83}
    write_json(root / f"reports/compress/{TASK}/results.json", small)
    timed = {**small, "latency_ms_p50": 0.61, "latency_ms_p50_fp32": 1.21}
    write_json(root / f"metrics/compress/{TASK}.json", timed)
    model = root / f"models/compressed/{TASK}/model.onnx"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"weights")


def make_tree(root: Path, labels: list[str], *, evaluations: int = 12, rise: float = 0.0, test: int = 120) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    write_params(root)
    frame = write_examples(root, labels, test=test)
    write_baselines(root, frame, labels)
    write_training(root, evaluations=evaluations, rise=rise)
    write_rest(root)
    return root


def stage_arguments(root: Path) -> argparse.Namespace:
    return argparse.Namespace(
        params=root / "params.yaml",
        task=TASK,
        model=root / f"models/finetuned/{TASK}",
        baselines=root / f"models/baselines/{TASK}",
        history=root / f"plots/finetune/{TASK}.tsv",
        examples=root / f"data/corpus/examples/{TASK}.parquet",
        ingest=root / "metrics/ingest.json",
        out=root / f"reports/evaluate/{TASK}",
        metrics=root / f"metrics/evaluate/{TASK}.json",
        confusion=root / f"plots/confusion/{TASK}.csv",
    )


def promote_arguments(root: Path) -> argparse.Namespace:
    return argparse.Namespace(
        params=root / "params.yaml",
        task=TASK,
        model=root / f"models/compressed/{TASK}",
        evaluation=root / f"reports/evaluate/{TASK}",
        compression=root / f"reports/compress/{TASK}",
        champion=root / f"models/champion/{TASK}",
        pointer=root / f"models/champion/{TASK}.json",
        metrics=root / f"metrics/promote/{TASK}.json",
    )


def fake_model(monkeypatch: pytest.MonkeyPatch, root: Path, labels: list[str], *, accuracy: float = 0.8) -> None:
    """Answer from the labels, wrong now and then: what is under test is the scoring, not the model."""
    from bert_ops.evaluate import stage

    frame = pd.read_parquet(root / f"data/corpus/examples/{TASK}.parquet")
    known = dict(zip(frame["text"], frame["label"], strict=True))

    def predict(model: Any, texts: list[str], pairs: None, *, threads: int) -> np.ndarray:
        rng = np.random.default_rng(3)
        scores = rng.random((len(texts), len(labels)))
        for row, text in enumerate(texts):
            if rng.random() < accuracy:
                scores[row, labels.index(known[text])] += 1.5
        return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)

    model = SimpleNamespace(labels=labels, problem=SingleLabel(labels))
    monkeypatch.setattr(stage, "load_task_model", lambda folder: model)
    monkeypatch.setattr(stage, "predict", predict)
