"""The stage: what it writes, that it runs without us, and what it refuses."""

import argparse
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from bert_ops.__main__ import main
from bert_ops.compress import stage
from bert_ops.errors import ArtifactError, InputError, ValidationFailed
from bert_ops.finetune.inference import load_task_model, predict_probabilities
from bert_ops.io import folder_sha256


def options(folder, **paths):
    return {
        "task": "sentiment",
        "model": paths["model"],
        "examples": paths["examples"],
        "out": folder / "models" / "out",
        "report": folder / "reports" / "compress",
        "metrics": folder / "metrics.json",
        "speed_page": folder / "reports" / "speed" / "page.html",
    }


@pytest.fixture(scope="module")
def quick_params(params, tmp_path_factory):
    """params.yaml with a short latency run."""

    def write(**changes):
        value = params | {
            "compress": params["compress"] | {"latency": {"runs": 10, "warmup": 1, "tokens": 16}} | changes
        }
        path = tmp_path_factory.mktemp("params") / "params.yaml"
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def sources(corpus, finetuned_folder):
    return {"model": finetuned_folder, "examples": corpus / "examples" / "sentiment.parquet"}


@pytest.fixture(scope="module")
def made(sources, quick_params, tmp_path_factory):
    """The stage's outputs, and the options that made them."""
    given = options(tmp_path_factory.mktemp("compress"), **sources)
    stage.run(argparse.Namespace(params=quick_params(), **given))
    return given


def test_folder_holds_what_the_contract_says(made):
    assert sorted(path.name for path in made["out"].iterdir()) == [
        "README.md", "labels.json", "model.onnx", "predict.py", "tokenizer.json",
    ]  # fmt: skip
    labels = json.loads((made["out"] / "labels.json").read_text(encoding="utf-8"))
    assert labels["labels"] == ["negative", "positive"]
    assert labels["max_tokens"] == 48
    assert labels["normalization"] == "NFKC"
    assert len((made["out"] / "predict.py").read_text(encoding="utf-8").splitlines()) <= 50


def test_figures_agree_with_the_files(made):
    results = json.loads((made["report"] / "results.json").read_text(encoding="utf-8"))
    shipped = [made["out"] / name for name in ("model.onnx", "tokenizer.json", "labels.json")]
    assert results["bytes"] == sum(path.stat().st_size for path in shipped)
    assert results["bytes_fp32"] > results["bytes"]
    assert results["parity"]["holds"] and 0 < results["parity"]["largest_difference"] <= 1e-4
    metrics = json.loads(made["metrics"].read_text(encoding="utf-8"))
    for key in ("bytes", "bytes_fp32", "latency_ms_p50", "latency_ms_p50_fp32", "score", "score_fp32"):
        assert metrics[key] > 0
    assert not any(key.startswith("latency") for key in results), "times make no deterministic file"


def test_accuracies_are_those_of_the_test_split(made, sources):
    results = json.loads((made["report"] / "results.json").read_text(encoding="utf-8"))
    frame = pd.read_parquet(sources["examples"])
    frame = frame[frame["split"] == "test"]
    task = load_task_model(sources["model"])
    predicted = predict_probabilities(task, frame["text"].tolist(), threads=1).argmax(axis=1)
    expected = np.mean([task.labels[i] == label for i, label in zip(predicted, frame["label"], strict=True)])
    assert results["score_fp32"] == pytest.approx(expected)
    assert results["examples"] == len(frame)
    assert results["score"] == pytest.approx(results["score_fp32"] + (results["gained"] - results["lost"]) / len(frame))


def test_report_embeds_the_timings_and_fetches_nothing(made):
    html = (made["report"] / "index.html").read_text(encoding="utf-8")
    assert 'src="../speed/page.html"' in html
    assert (made["report"] / "../speed/page.html").resolve() == made["speed_page"].resolve()
    assert "http" not in html + made["speed_page"].read_text(encoding="utf-8")
    assert "PyTorch (eager)" in made["speed_page"].read_text(encoding="utf-8")


def test_second_run_gives_the_same_bytes(made, sources, quick_params, tmp_path):
    again = options(tmp_path, **sources)
    stage.run(argparse.Namespace(params=quick_params(), **again))
    assert folder_sha256(again["out"]) == folder_sha256(made["out"])
    assert folder_sha256(again["report"]) == folder_sha256(made["report"])


_BLOCKED = """
import importlib.abc, runpy, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"bert_ops", "torch", "transformers", "onnx", "pandas", "pydantic"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_predict_runs_without_torch_and_our_code(made, sources, tmp_path):
    """The shipped script gives the labels that our own model gives, on texts that need NFKC too."""
    texts = ["老师非常好，第1次。", "新手机让人失望，第２次。", "   那本书真难看  ", "Ｇｏｏｄ" * 60]
    done = subprocess.run(
        [sys.executable, "-I", "-c", _BLOCKED, str(made["out"] / "predict.py")],
        input="\n".join([texts[0], "", *texts[1:]]).encode(),
        capture_output=True,
        cwd=tmp_path,
        env={"LC_ALL": "C"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [line[2] for line in lines] == [text.strip() for text in texts]
    import unicodedata

    task = load_task_model(sources["model"])
    expected = predict_probabilities(task, [unicodedata.normalize("NFKC", text) for text in texts], threads=1)
    for (label, probability, _), row in zip(lines, expected, strict=True):
        assert float(probability) == pytest.approx(row[task.labels.index(label)], abs=0.05)


def test_quantization_none_ships_float32(sources, quick_params, tmp_path):
    given = options(tmp_path, **sources)
    stage.run(argparse.Namespace(params=quick_params(quantization="none"), **given))
    results = json.loads((given["report"] / "results.json").read_text(encoding="utf-8"))
    assert results["bytes"] == results["bytes_fp32"]
    assert results["agreement"] == 1.0


def test_lost_parity_writes_the_report_and_no_model(sources, quick_params, tmp_path):
    given = options(tmp_path, **sources)
    given["out"].mkdir(parents=True)
    (given["out"] / "old").write_text("whole")
    with pytest.raises(ValidationFailed, match=r"(?s)differs by.*compress\.parity_tolerance"):
        stage.run(argparse.Namespace(params=quick_params(parity_tolerance=1e-12), **given))
    assert json.loads((given["report"] / "results.json").read_text())["parity"]["holds"] is False
    assert [path.name for path in given["out"].iterdir()] == ["old"]


def test_latency_is_measured_on_the_longest_text_of_a_task_of_short_ones(sources, quick_params, tmp_path):
    given = options(tmp_path, **sources)
    stage.run(argparse.Namespace(params=quick_params(latency={"runs": 10, "warmup": 0, "tokens": 64}), **given))
    assert json.loads(given["metrics"].read_text())["latency_tokens"] == 48
    assert "One text of 48 tokens" in given["speed_page"].read_text()


def write_examples(folder, **columns):
    path = folder / "examples.parquet"
    row = {"example_id": ["a"], "split": ["test"], "text": ["好"], "pair": [None], "label": ["positive"]}
    pd.DataFrame(row | {"spans": [None], "cluster": ["a"]} | columns).to_parquet(path)
    return path


def test_unusable_examples_are_refused(tmp_path, sources):
    known = load_task_model(sources["model"])
    with pytest.raises(ArtifactError, match=r"(?s)labels that training never saw: 'neutral'.*'negative', 'positive'"):
        stage.read_test_split(write_examples(tmp_path, label=["neutral"]), known)
    with pytest.raises(ArtifactError, match="no test example"):
        stage.read_test_split(write_examples(tmp_path, split=["train"]), known)
    with pytest.raises(ArtifactError, match="does not exist"):
        stage.read_test_split(tmp_path / "absent.parquet", known)
    whole = write_examples(tmp_path)
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="damaged"):
        stage.read_test_split(whole, known)


def test_missing_model_ends_as_one_message(sources, quick_params, tmp_path, capsys):
    given = options(tmp_path, **(sources | {"model": tmp_path / "absent"}))
    flags = [part for key, value in given.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    assert main(["compress", "--params", str(quick_params()), *flags]) == 3
    message = capsys.readouterr().err
    assert "absent" in message and "remedy" in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"onnx_opset": 16}, "`compress.onnx_opset` is 16"),
        ({"quantization": "int4"}, "`compress.quantization` is 'int4'"),
        ({"parity_tolerance": 0.0}, "`compress.parity_tolerance` is 0.0"),
        ({"latency": {"runs": 1, "warmup": 0, "tokens": 16}}, "`compress.latency.runs` is 1"),
        ({"prune": 0.5}, "`compress.prune` is not a known key"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(quick_params, sources, tmp_path, changes, expected):
    with pytest.raises(InputError, match=expected.replace(".", r"\.")):
        stage.run(argparse.Namespace(params=quick_params(**changes), **options(tmp_path, **sources)))
