"""Every kind of task goes through all stages after pretraining, and the small model answers as the tuned one does."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tasks

from bert_ops.compress import stage as compress
from bert_ops.evaluate import promotion
from bert_ops.evaluate import stage as evaluate
from bert_ops.finetune import baselines
from bert_ops.finetune import stage as finetune
from bert_ops.finetune.inference import load_task_model, predict
from bert_ops.finetune.spans import Span

FAST = {"kind": "adamw", "learning_rate": 5e-3, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6}
OWN: dict[str, dict[str, Any]] = {
    "many": {"truncation": "windows", "max_tokens": 14},
    "number": {"metric": "spearman", "truncation": "tail"},
    "pairs": {"metric": "f1_macro"},
    "spans": {"scheme": "BIOES", "truncation": "windows", "max_tokens": 14},
}


@pytest.fixture(scope="module", params=OWN)
def made(
    request: pytest.FixtureRequest, params: dict, pretrained_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The folder that all stages wrote into."""
    task: str = request.param
    root = tmp_path_factory.mktemp(task)
    quick = params | {
        "compress": params["compress"] | {"latency": {"runs": 10, "warmup": 1, "tokens": 12}},
        "evaluate": params["evaluate"] | {"threads": 1, "bootstrap_resamples": 200},
    }
    changes = {"epochs": 12, "evaluations_per_epoch": 1, "optimizer": FAST}
    file = tasks.write_params(root, quick, task, own=OWN[task], **changes)
    tasks.frame_of(task).to_parquet(root / "examples.parquet")
    (root / "ingest.json").write_text('{"duplicates_by_source": {}}')
    common = {"params": file, "task": task, "examples": root / "examples.parquet"}
    model, history = root / "model", root / "history.tsv"

    def run(stage: Any, **paths: Path) -> None:
        stage.run(argparse.Namespace(**common, **paths))

    run(
        finetune, init=pretrained_folder, out=model, history=history, metrics=root / "finetune.json",
        run_log=root / "log.jsonl", checkpoints=root / "checkpoints",
    )  # fmt: skip
    run(baselines, init=pretrained_folder, out=root / "baselines")
    run(
        evaluate, model=model, baselines=root / "baselines", history=history, ingest=root / "ingest.json",
        out=root / "evaluate", metrics=root / "evaluate.json", confusion=root / "confusion.csv",
    )  # fmt: skip
    run(
        compress, model=model, out=root / "small", report=root / "compress", metrics=root / "compress.json",
        speed_page=root / "speed.html",
    )  # fmt: skip
    run(
        promotion, model=root / "small", evaluation=root / "evaluate", compression=root / "compress",
        champion=root / "champion", pointer=root / "champion.json", metrics=root / "promote.json",
    )  # fmt: skip
    return task, root


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_the_tasks_own_metric_is_what_all_stages_judge_by(made: tuple[str, Path]) -> None:
    task, root = made
    metric = OWN[task].get("metric", tasks.TASKS[task]["metric"])
    results, small = read(root / "evaluate/results.json"), read(root / "compress/results.json")
    assert results["metric"] == small["metric"] == metric
    assert results["score"] == results[metric] == pytest.approx(small["score_fp32"], abs=1e-4)
    assert results["score"] > 0.55
    assert set(results["baselines"]) == {"majority", "tfidf_lr", "no_pretraining"}
    for row in results["baselines"].values():
        assert row["difference"] == pytest.approx(results["score"] - row["score"], abs=2e-6)
    assert metric.replace("_", " ") in results["verdict"]["headline"].lower().replace("macro f1", "f1 macro").replace(
        "micro f1", "f1 micro"
    ).replace("spearman correlation", "spearman")
    gates = read(root / "promote.json")["gates"]
    assert set(gates) == {"size_ratio", "points_lost", "points_over_majority", "overfitting"}


@pytest.mark.slow
def test_predictions_and_scores_agree(made: tuple[str, Path]) -> None:
    task, root = made
    loaded = load_task_model(root / "model")
    frame = pd.read_parquet(root / "examples.parquet").query("split == 'test'").sort_values("example_id")
    table = pd.read_parquet(root / "evaluate/predictions.parquet")
    pairs = frame["pair"].tolist() if task == "pairs" else None
    answers = predict(loaded, frame["text"].tolist(), pairs, threads=1)
    assert table["predicted"].tolist() == loaded.problem.as_text(answers) or task == "number"
    assert ((table["mistake"] == 0) == (table["label"] == table["predicted"])).all() or task == "number"
    assert "<html" in (root / "evaluate/index.html").read_text(encoding="utf-8")[:200]
    confusion = pd.read_csv(root / "confusion.csv")
    assert len(confusion) == len(frame) and list(confusion) == ["actual", "predicted"]


@pytest.mark.slow
def test_the_shipped_script_answers_as_the_model_does(made: tuple[str, Path]) -> None:
    task, root = made
    loaded = load_task_model(root / "model")
    frame = pd.read_parquet(root / "examples.parquet").query("split == 'test'").head(20)
    texts, pairs = frame["text"].tolist(), frame["pair"].tolist() if task == "pairs" else None
    lines = texts if pairs is None else [f"{a}\t{b}" for a, b in zip(texts, pairs, strict=True)]
    done = subprocess.run(
        [sys.executable, "-I", str(root / "small/predict.py")],
        input="\n".join(lines).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    given = [line.split("\t")[0] for line in done.stdout.decode().splitlines()]
    expected = predict(loaded, texts, pairs, threads=1)
    if task == "spans":
        same = [
            [Span(*s) for s in json.loads(g)] == list(map(Span._make, e)) for g, e in zip(given, expected, strict=True)
        ]
        assert np.mean(same) >= 0.8  # int8 may decide otherwise where it was close
    elif task == "number":
        assert np.corrcoef([float(g) for g in given], expected)[0, 1] > 0.99
        assert np.abs(np.array([float(g) for g in given]) - expected).mean() < 10
    else:
        named = loaded.problem.as_text(expected)
        shown = [",".join(json.loads(text)) if task == "many" else text for text in named]
        assert np.mean([a == b for a, b in zip(given, shown, strict=True)]) >= 0.9
