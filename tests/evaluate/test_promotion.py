"""The champion pointer: moves when every gate passes, and in no other case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluate_tree import TASK, promote_arguments, write_json, write_params

from bert_ops.errors import ArtifactError
from bert_ops.evaluate import promotion
from bert_ops.evaluate.params import PromoteParams
from bert_ops.io import folder_sha256


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Results that pass every gate."""
    write_params(tmp_path)
    write_json(tmp_path / f"reports/evaluate/{TASK}/results.json", evaluation())
    write_json(tmp_path / f"reports/compress/{TASK}/results.json", compression())
    model = tmp_path / f"models/compressed/{TASK}"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(b"first")
    return tmp_path


def evaluation(*, low: float = 0.2, verdict: str = "healthy") -> dict[str, Any]:
    return {
        "metric": "accuracy",
        "score": 0.83,
        "score_ci95": [0.81, 0.85],
        "baselines": {"majority": {"difference_ci95": [low, 0.4]}},
        "overfitting": {"verdict": "fail", "kept_verdict": verdict},
    }


def compression(*, size: int = 100, accuracy: float = 0.828) -> dict[str, Any]:
    return {"bytes": size, "bytes_fp32": 300, "metric": "accuracy", "score": accuracy, "score_fp32": 0.83}


def pointer(tree: Path) -> dict[str, Any]:
    return json.loads((tree / f"models/champion/{TASK}.json").read_text(encoding="utf-8"))


def decision(tree: Path) -> dict[str, Any]:
    return json.loads((tree / f"metrics/promote/{TASK}.json").read_text(encoding="utf-8"))


def run(tree: Path) -> None:
    promotion.run(promote_arguments(tree))


def test_a_model_that_passes_becomes_champion(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tree)
    found = pointer(tree)
    assert found["model"].endswith(f"models/champion/{TASK}")
    assert folder_sha256(tree / f"models/champion/{TASK}") == found["sha256"]
    assert len(found["sha256"]) == 64
    assert found["scores"]["score"] == 0.828
    assert found["history"] == []
    assert decision(tree)["promoted"] is True
    assert decision(tree)["champion"] == found["sha256"] == decision(tree)["challenger"]
    assert all(gate["passed"] for gate in found["gates"])
    assert "PROMOTED" in capsys.readouterr().err


def test_the_same_model_again_leaves_the_file_untouched(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tree)
    path = tree / f"models/champion/{TASK}.json"
    before, metrics = path.stat(), (tree / f"metrics/promote/{TASK}.json").read_bytes()
    run(tree)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (tree / f"metrics/promote/{TASK}.json").read_bytes() == metrics
    assert "is the champion already" in capsys.readouterr().err


def test_a_new_champion_keeps_the_history(tree: Path) -> None:
    run(tree)
    first = pointer(tree)
    for content in (b"second", b"third"):
        (tree / f"models/compressed/{TASK}/model.onnx").write_bytes(content)
        run(tree)
    found = pointer(tree)
    assert found["history"][0]["sha256"] == first["sha256"]
    assert len({found["sha256"], *(entry["sha256"] for entry in found["history"])}) == 3
    assert all(set(entry) == {"model", "sha256", "scores", "gates"} for entry in found["history"])


@pytest.mark.parametrize(
    ("results", "gate", "words"),
    [
        ({"compression": compression(size=200)}, "size_ratio", "1.50 times smaller"),
        ({"compression": compression(accuracy=0.81)}, "points_lost", "compression cost 2.00 points of accuracy"),
        ({"evaluation": evaluation(low=0.04)}, "points_over_majority", "at least 4.0 points over the majority"),
        ({"evaluation": evaluation(verdict="fail")}, "overfitting", "required: anything but fail"),
    ],
)
def test_each_gate_refuses_and_says_why(
    tree: Path, results: dict[str, Any], gate: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tree)
    before = (tree / f"models/champion/{TASK}.json").read_bytes()
    (tree / f"models/compressed/{TASK}/model.onnx").write_bytes(b"challenger")
    write_json(tree / f"reports/evaluate/{TASK}/results.json", results.get("evaluation", evaluation()))
    write_json(tree / f"reports/compress/{TASK}/results.json", results.get("compression", compression()))
    run(tree)
    found = decision(tree)
    assert found["promoted"] is False
    assert [name for name, values in found["gates"].items() if not values["passed"]] == [gate]
    assert words in found["gates"][gate]["why"]
    assert found["refused_because"] == [found["gates"][gate]["why"]]
    assert found["champion"] != found["challenger"]
    assert (tree / f"models/champion/{TASK}.json").read_bytes() == before
    assert folder_sha256(tree / f"models/champion/{TASK}") == found["champion"]
    shown = capsys.readouterr().err
    assert "REFUSED; the champion stays" in shown and f"FAIL  {gate}" in shown


def test_a_refusal_without_champion_leaves_an_empty_pointer(tree: Path) -> None:
    write_json(tree / f"reports/evaluate/{TASK}/results.json", evaluation(verdict="fail"))
    run(tree)
    assert pointer(tree) == {
        "task": TASK,
        "model": None,
        "sha256": None,
        "scores": None,
        "gates": [],
        "history": [],
    }
    assert decision(tree)["champion"] is None
    write_json(tree / f"reports/evaluate/{TASK}/results.json", evaluation())
    run(tree)
    assert pointer(tree)["model"] is not None
    assert pointer(tree)["history"] == [], "having had no champion is no history"


def test_the_gate_looks_at_the_weights_that_were_kept_and_at_the_listed_verdicts() -> None:
    params = PromoteParams(
        max_points_lost=1.0, min_points_over_majority=5.0, min_size_ratio=2.0, reject_overfitting=["fail", "warn"]
    )
    verdicts = {
        verdict: promotion.judge(evaluation(verdict=verdict), compression(), params=params)[-1].passed
        for verdict in ("healthy", "not_enough_evidence", "warn", "fail")
    }
    assert verdicts == {"healthy": True, "not_enough_evidence": True, "warn": False, "fail": False}


def test_values_on_the_limit_pass() -> None:
    params = PromoteParams(
        max_points_lost=1.0, min_points_over_majority=20.0, min_size_ratio=3.0, reject_overfitting=[]
    )
    edge = {"bytes": 100, "bytes_fp32": 300, "metric": "accuracy", "score": 0.5, "score_fp32": 0.51}
    assert all(gate.passed for gate in promotion.judge(evaluation(low=0.2), edge, params=params))


@pytest.mark.parametrize("content", ['{"task": "sentiment"', "[]", '{"task": "sentiment"}', '{"task": "other"}'])
def test_a_damaged_pointer_is_never_replaced(tree: Path, content: str) -> None:
    path = tree / f"models/champion/{TASK}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"sentiment\.json") as caught:
        run(tree)
    assert "dvc checkout" in str(caught.value)
    assert path.read_text() == content


def test_a_champion_that_is_lost_is_not_passed_over(tree: Path) -> None:
    run(tree)
    (tree / f"models/champion/{TASK}/model.onnx").write_bytes(b"edited")
    write_json(tree / f"reports/evaluate/{TASK}/results.json", evaluation(verdict="fail"))
    with pytest.raises(ArtifactError, match="does not hold the champion") as caught:
        run(tree)
    assert "dvc checkout" in str(caught.value)


@pytest.mark.parametrize("missing", ["reports/evaluate", "reports/compress", "models/compressed"])
def test_missing_results_are_named(tree: Path, missing: str) -> None:
    folder = tree / missing / TASK
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ArtifactError, match="does not exist") as caught:
        run(tree)
    assert f"@{TASK}" in str(caught.value)
    assert not (tree / "models/champion").exists()


def test_results_without_a_figure_are_refused(tree: Path) -> None:
    write_json(tree / f"reports/compress/{TASK}/results.json", {"bytes": 1})
    with pytest.raises(ArtifactError, match="bytes_fp32"):
        run(tree)
    write_json(tree / f"reports/compress/{TASK}/results.json", [1])
    with pytest.raises(ArtifactError, match="holds no object"):
        run(tree)
