"""A model of a user's own table in one command, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import tasks
import yaml

from bert_ops.__main__ import main
from bert_ops.finetune import own_data
from bert_ops.finetune.inference import load_task_model, predict
from bert_ops.params import load_all

COLUMNS = {"one": "--label", "many": "--labels", "number": "--value", "spans": "--spans"}


@pytest.fixture
def folder(tmp_path: Path, params: dict, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a params.yaml whose training takes seconds."""
    fast = params["finetune"] | {"epochs": 2, "average_decay": 0.0}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params | {"finetune": fast}, allow_unicode=True), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_table(folder: Path, task: str, **options: object) -> Path:
    frame = tasks.frame_of(task)
    answer = frame["spans"] if task == "spans" else frame["label"]
    table = pd.DataFrame({"said": frame["text"], "second": frame["pair"], "answer": answer})
    table.dropna(axis="columns", how="all").to_csv(folder / "My reviews.csv", index=False, **options)  # type: ignore[call-overload]
    return folder / "My reviews.csv"


def run(data: Path, init: Path, *more: str) -> int:
    return main(["finetune", "--data", str(data), "--text", "said", "--init", str(init), *more])


@pytest.mark.parametrize("task", COLUMNS)
def test_a_file_and_two_columns_are_enough(
    task: str, folder: Path, pretrained_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write_table(folder, task), pretrained_folder, COLUMNS[task], "answer") == 0
    said = capsys.readouterr()
    assert "300 of 300 rows are examples" in said.err
    metric = tasks.METRIC_OF[task]
    scores = json.loads((folder / "models/own/my_reviews/test.json").read_text())
    assert scores["metric"] == metric and f"my_reviews: {metric} {scores['score']:.3f}" in said.out
    assert scores["score_ci95"][0] <= scores["score"] <= scores["score_ci95"][1]
    loaded = load_task_model(folder / "models/own/my_reviews/model")
    assert len(predict(loaded, ["这家酒店非常好"], threads=1)) == 1


def test_the_lines_it_prints_make_a_task_of_the_pipeline(
    folder: Path, pretrained_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write_table(folder, "pairs"), pretrained_folder, "--label", "answer", "--pair", "second") == 0
    out = capsys.readouterr().out
    lines = [line[4:] for line in out.split("run `dvc repro`.")[1].splitlines() if line.startswith("    ")]
    added = yaml.safe_load("\n".join(lines))
    value = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    value["ingest"]["sources"] |= added["ingest"]["sources"]
    value["tasks"] |= added["tasks"]
    (folder / "params.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    task = load_all(folder / "params.yaml").tasks["my_reviews"]
    assert (task.kind, task.truncation) == ("sequence_classification", "head")
    assert added["ingest"]["sources"]["my_reviews"]["path"] == "data/raw/My reviews.csv"


def test_without_params_the_values_are_the_projects_own(root: Path) -> None:
    project = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    preset = yaml.safe_load(own_data.PRESET.read_text(encoding="utf-8"))
    preset["ingest"].pop("sources"), project["ingest"].pop("sources")
    assert preset == {name: project[name] for name in ("ingest", "finetune")}


def test_without_params_it_works_too(
    tmp_path: Path, pretrained_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path, "one", encoding="gb18030")
    assert run(table, pretrained_folder, "--label", "answer", "--epochs", "1", "--name", "mine") == 0
    assert "mine: accuracy" in capsys.readouterr().out
    assert (tmp_path / "models/own/mine/model/model.safetensors").is_file()
    assert not list(tmp_path.glob(".bert_ops/checkpoints/own/*/*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "stars"], "no column stars"),
        (["--value", "answer"], "bad_value"),
        (["--label", "answer", "--pair", "third"], "no column third"),
        (["--label", "answer", "--epochs", "0"], "`finetune.epochs` is 0"),
    ],
)
def test_what_does_not_fit_ends_as_one_message(
    options: list[str], message: str, folder: Path, pretrained_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write_table(folder, "one"), pretrained_folder, *options) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (folder / "models/own/my_reviews/model").exists()


def test_a_model_is_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_table(folder, "one"), folder / "nothing", "--label", "answer") == 2
    said = capsys.readouterr().err
    assert "no model to start from" in said and "--init" in said


def test_long_texts_are_read_in_windows(folder: Path, pretrained_folder: Path) -> None:
    frame = tasks.frame_of("one")
    table = pd.DataFrame({"said": "我去看书店的。" * 9 + frame["text"], "answer": frame["label"]})
    table.to_csv(folder / "long.csv", index=False)
    assert run(folder / "long.csv", pretrained_folder, "--label", "answer", "--epochs", "1") == 0
    loaded = load_task_model(folder / "models/own/long/model")
    assert (loaded.max_tokens, loaded.truncation) == (48, "windows")
