"""The evaluate stage from artifacts to report: one evaluation is rendered once, and many things are asserted on it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluate_tree import TASK, fake_model, make_tree, stage_arguments, write_params
from sklearn.metrics import accuracy_score, f1_score

from bert_ops.errors import ArtifactError, BertOpsError
from bert_ops.evaluate import evidently_page, stage


def results(root: Path) -> dict[str, Any]:
    return json.loads((root / f"reports/evaluate/{TASK}/results.json").read_text(encoding="utf-8"))


def report(root: Path) -> str:
    return (root / f"reports/evaluate/{TASK}/index.html").read_text(encoding="utf-8")


def data_block(html: str) -> dict[str, Any]:
    """The dashboard as a browser reads it: the JSON after `var report =`."""
    start = html.index("var report = ") + len("var report = ")
    value, _ = json.JSONDecoder().raw_decode(html[start:])
    return value


def widgets(node: Any) -> list[dict[str, Any]]:
    """All widgets of a dashboard in order, nested ones too."""
    if isinstance(node, list):
        return [found for item in node for found in widgets(item)]
    if not isinstance(node, dict):
        return []
    inner = widgets(node.get("widgets") or []) + [
        found for tab in node.get("tabs") or [] for found in widgets(tab["widget"])
    ]
    return ([node] if "type" in node else []) + inner


def test_predictions_scores_and_files_agree(evaluated: Path) -> None:
    folder = evaluated / f"reports/evaluate/{TASK}"
    frame = pd.read_parquet(folder / "predictions.parquet")
    columns = ["example_id", "split", "label", "predicted", "mistake", "confidence", "score_negative", "score_positive"]
    assert list(frame) == columns
    assert ((frame["label"] != frame["predicted"]) == (frame["mistake"] > 0)).all()
    examples = pd.read_parquet(evaluated / f"data/corpus/examples/{TASK}.parquet")
    test = examples[examples["split"] == "test"]
    assert sorted(frame["example_id"]) == sorted(test["example_id"])
    assert (frame[["score_negative", "score_positive"]].sum(axis=1) - 1).abs().max() < 1e-5
    found = results(evaluated)
    assert found["accuracy"] == pytest.approx(accuracy_score(frame["label"], frame["predicted"]), abs=1e-6)
    assert found["f1_macro"] == pytest.approx(f1_score(frame["label"], frame["predicted"], average="macro"), abs=1e-6)
    confusion = pd.read_csv(evaluated / f"plots/confusion/{TASK}.csv")
    assert list(confusion) == ["actual", "predicted"]
    assert (confusion["actual"].to_numpy() == frame["label"].to_numpy()).all()


def test_metrics_file_has_the_names_that_tools_read(evaluated: Path) -> None:
    values = json.loads((evaluated / f"metrics/evaluate/{TASK}.json").read_text(encoding="utf-8"))
    low, high = values["accuracy_ci95"]
    assert low < values["accuracy"] < high
    assert 0 < values["f1_macro"] < 1
    assert set(values["baselines"]) == {"majority", "tfidf_lr", "no_pretraining"}
    for row in values["baselines"].values():
        assert row["difference"] == pytest.approx(values["accuracy"] - row["accuracy"], abs=2e-6)
        assert row["difference_ci95"][0] <= row["difference"] <= row["difference_ci95"][1]
        assert 0 <= row["p_value"] <= 1
    assert values["overfitting"]["flag"] is True
    assert values["overfitting"]["verdict"] == "fail"
    assert values["examples"] == {"train": 200, "validation": 60, "test": 120}


def test_report_is_self_contained_small_and_in_order(evaluated: Path) -> None:
    html = report(evaluated)
    assert len(html.encode()) < 5_000_000
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)\s*=\s*[\"']?(https?:)?//", html)
    assert str(evaluated) not in html
    shown = widgets(data_block(html)["widgets"])
    first = next(widget for widget in shown if widget["type"] == "text")
    assert shown.index(first) <= 1, "the verdict comes first"
    assert results(evaluated)["verdict"]["headline"] in first["params"]["text"]
    titles = [widget["title"] for widget in shown]
    for title in ("Scores on the test split", "Loss while fine-tuning", "Calibration", "Overfitting: yes", "Examples"):
        assert any(title in shown_title for shown_title in titles), title
    assert titles.index("Worst mistakes") < len(titles) - 1


def test_evidently_is_told_not_to_track(evaluated: Path) -> None:
    from evidently.telemetry import event_logger

    assert os.environ["DO_NOT_TRACK"] == "1"
    assert event_logger.is_enabled() is False


def test_report_draws_the_curves_and_where_something_happened(evaluated: Path) -> None:
    curves = next(
        widget for widget in widgets(data_block(report(evaluated))["widgets"]) if "Loss while" in widget["title"]
    )
    names = [trace["name"] for trace in curves["params"]["data"]]
    assert names == ["training (fixed probe)", "validation"]
    history = pd.read_csv(evaluated / f"plots/finetune/{TASK}.tsv", sep="\t")
    assert curves["params"]["data"][1]["y"] == pytest.approx(history["validation_loss"].tolist())
    words = json.dumps(curves["params"]["layout"])
    assert "lowest validation loss" in words and "overfitting sets in" in words


def test_mistakes_are_short_real_and_cannot_break_the_page(evaluated: Path) -> None:
    html = report(evaluated)
    table = next(
        widget
        for widget in widgets(data_block(html)["widgets"])
        if widget["title"] == "Worst mistakes" and widget["type"] == "table"
    )
    rows = table["params"]["data"]
    assert 0 < len(rows) <= evidently_page.MISTAKES
    assert all(len(row[0]) <= evidently_page.EXCERPT_CHARACTERS and row[1] != row[2] for row in rows)
    shares = [float(row[3].rstrip("%")) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert any("房间" in row[0] or "纸张" in row[0] for row in rows)
    head = html.partition("</head>")[0]
    assert head.count("</script>") == 1, "a text ended the data block"


def test_tests_have_thresholds_of_their_own(evaluated: Path) -> None:
    tests = {test["description"].split(":")[0]: test["status"] for test in results(evaluated)["tests"]}
    assert tests["Accuracy minus that of majority, lower end of the 95% interval"] == "SUCCESS"
    assert tests["Overfitting of the weights kept (0 no, 1 warning, 2 yes)"] == "FAIL"
    assert tests["Test texts that stand in another split"] == "SUCCESS"
    assert len(tests) == 6, "Evidently's default tests are not wanted"


def test_baselines_are_judged_by_the_paired_interval(evaluated: Path) -> None:
    found = results(evaluated)
    assert found["baselines"]["majority"]["outcome"] == "better"
    assert found["baselines"]["tfidf_lr"]["difference_ci95"][0] < 0
    sentence = next(s for s in found["verdict"]["sentences"] if "TF-IDF" in s)
    assert sentence.startswith("Does not beat TF-IDF")
    assert found["verdict"]["status"] == "bad"
    assert found["verdict"]["headline"].startswith("It overfits")


def test_counts_say_that_nothing_leaked(evaluated: Path) -> None:
    found = results(evaluated)
    assert found["leakage"] == {"test_texts_in_other_splits": 0, "duplicates_removed_at_ingest": {"reviews": 16}}
    assert "Duplicates removed at ingest, by source: reviews 16" in json.dumps(data_block(report(evaluated)))


def test_a_second_run_gives_the_same_bytes(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "elsewhere"
    shutil.copytree(evaluated, root)
    shutil.rmtree(root / "reports/evaluate")
    fake_model(monkeypatch, root, ["negative", "positive"])
    stage.run(stage_arguments(root))
    for name in ("index.html", "results.json", "predictions.parquet"):
        path = f"reports/evaluate/{TASK}/{name}"
        assert (root / path).read_bytes() == (evaluated / path).read_bytes(), name


def test_three_labels_few_evaluations_and_a_sample_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ["bad", "fair", "好"]
    root = make_tree(tmp_path, labels, evaluations=4)
    write_params(root, evaluate__report_examples=50)
    (root / f"models/finetuned/{TASK}/training/training.json").write_text('{"kept_step": 400, "steps": 400}')
    fake_model(monkeypatch, root, labels, accuracy=1.0)
    stage.run(stage_arguments(root))
    found = results(root)
    assert found["labels"] == labels
    assert np.array(found["confusion"]).shape == (3, 3)
    assert found["overfitting"]["verdict"] == "not_enough_evidence"
    assert found["overfitting"]["flag"] is False
    html = report(root)
    assert "a sample of 50 of 120 test examples" in html
    assert "There are no mistakes on the test split." in html


def test_a_real_model_is_evaluated(
    finetuned_folder: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real inference, with a stand-in for Evidently, which the other tests cover."""
    monkeypatch.setattr(stage.evidently_page, "render", lambda *args, **kwargs: ("<html></html>", []))
    root = make_tree(tmp_path, ["negative", "positive"])
    examples = corpus / f"examples/{TASK}.parquet"
    shutil.copy(examples, root / f"data/corpus/examples/{TASK}.parquet")
    frame = pd.read_parquet(examples)
    held = frame[frame["split"] == "test"]
    answers = pd.concat(
        held[["example_id", "split"]].assign(baseline=name, predicted="positive")
        for name in ("majority", "tfidf_lr", "no_pretraining")
    )
    answers.to_parquet(root / f"models/baselines/{TASK}/predictions.parquet")
    arguments = stage_arguments(root)
    arguments.model, arguments.history = finetuned_folder, finetuned_folder.parent / "history.tsv"
    stage.run(arguments)
    found = results(root)
    assert found["examples"]["test"] == len(held)
    assert found["label_counts"]["test"] == held["label"].value_counts().sort_index().to_dict()
    state = json.loads((finetuned_folder / "training/training.json").read_text())
    assert found["overfitting"]["kept_step"] == state["kept_step"]


def spoil(root: Path, monkeypatch: pytest.MonkeyPatch, values: np.ndarray) -> None:
    monkeypatch.setattr(stage, "predict", lambda *args, **kwargs: values)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "no valid probabilities for 1 of 120"), (1.5, "none NaN"), (-0.1, "numbers from 0 to 1")],
)
def test_probabilities_that_are_none_are_refused(
    copied: Path, monkeypatch: pytest.MonkeyPatch, value: float, message: str
) -> None:
    fake_model(monkeypatch, copied, ["negative", "positive"])
    before = report(copied)
    probabilities = np.full((120, 2), 0.5, np.float32)
    probabilities[17, 1] = value
    spoil(copied, monkeypatch, probabilities)
    with pytest.raises(ArtifactError, match=message):
        stage.run(stage_arguments(copied))
    assert report(copied) == before, "what was whole was replaced"


def test_a_model_with_other_labels_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_model(monkeypatch, copied, ["bad", "good"])
    with pytest.raises(ArtifactError, match=r"'negative' \(\d+\), 'positive' \(\d+\)") as caught:
        stage.run(stage_arguments(copied))
    assert "'bad', 'good'" in str(caught.value)
    assert "finetune@sentiment" in str(caught.value)


def test_a_wrong_number_of_probabilities_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_model(monkeypatch, copied, ["negative", "positive"])
    spoil(copied, monkeypatch, np.full((119, 2), 0.5, np.float32))
    with pytest.raises(ArtifactError, match=r"shape \(119, 2\)"):
        stage.run(stage_arguments(copied))


def test_ingest_metrics_must_be_there(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_model(monkeypatch, copied, ["negative", "positive"])
    (copied / "metrics/ingest.json").unlink()
    with pytest.raises(BertOpsError, match=r"ingest\.json does not exist"):
        stage.run(stage_arguments(copied))


def test_identifiers_are_numbered_in_the_data_and_left_in_the_library() -> None:
    identifier = "0193b1de-aaaa-7bbb-8ccc-0123456789ab"
    dashboard = "metric_" + "ab" * 16
    html = (
        f'<head><script>var {dashboard} = {{"id": "{identifier}", "text": "</script>", "again": "{identifier}"}};'
        f'</script></head><body><script>const namespace = "{identifier}"; draw({dashboard})</script></body>'
    )
    out = evidently_page.deterministic(html)
    head, _, body = out.partition("</head>")
    assert identifier not in head and head.count("00000000-0000-4000-8000-000000000000") == 2
    assert "<\\/script>" in head
    assert identifier in body and "draw(report)" in body
