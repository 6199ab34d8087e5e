"""The sections of params.yaml that evaluation reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from evaluate_tree import write_params

from bert_ops.errors import InputError
from bert_ops.evaluate import index, promotion, stage
from bert_ops.evaluate.params import EvaluateParams, PromoteParams, ReportParams
from bert_ops.schema import load_section


def test_params_yaml_is_valid(root: Path) -> None:
    evaluate = load_section(root / "params.yaml", "evaluate", EvaluateParams)
    load_section(root / "params.yaml", "promote", PromoteParams)
    load_section(root / "params.yaml", "report", ReportParams)
    assert evaluate.overfitting.min_evaluations >= 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluate__bootstrap_resamples": 10}, "`evaluate.bootstrap_resamples` is 10"),
        ({"evaluate__confidence": 0.9}, "`evaluate.confidence` is not a known key"),
        ({"evaluate__seed": -1}, "`evaluate.seed` is -1"),
        ({"evaluate__max_calibration_error": 2}, "`evaluate.max_calibration_error` is 2"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_section(write_params(tmp_path, **change), "evaluate", EvaluateParams)


def test_smoothing_must_leave_a_curve(tmp_path: Path) -> None:
    limits = {
        "min_evaluations": 8,
        "smoothing": 8,
        "generalization_loss": 0.05,
        "significance": 0.05,
        "accuracy_points": 2.0,
    }
    with pytest.raises(InputError, match=r"`evaluate\.overfitting`: smoothing is 8; it must be below min_evaluations"):
        load_section(write_params(tmp_path, evaluate__overfitting=limits), "evaluate", EvaluateParams)


def test_an_unknown_verdict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`promote\.reject_overfitting\.0` is 'overfit'"):
        load_section(write_params(tmp_path, promote__reject_overfitting=["overfit"]), "promote", PromoteParams)


@pytest.mark.parametrize(
    ("name", "module"),
    [("evaluate", stage), ("promote", promotion), ("report", index)],
    ids=lambda value: str(value)[:9],
)
def test_dvc_passes_exactly_the_options_that_the_stage_requires(root: Path, name: str, module: ModuleType) -> None:
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    command = stages[name].get("do", stages[name])["cmd"].replace("${key}", "sentiment").split()
    assert command[:4] == ["python", "-m", "bert_ops", name]
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    parsed = parser.parse_args(command[4:])
    required = {action.dest for action in parser._actions if action.required}
    assert required == set(vars(parsed))
    assert all(action.help for action in parser._actions)


def test_every_task_has_its_confusion_plot(root: Path) -> None:
    """A task is added in params.yaml alone, so dvc.yaml names none."""
    text = (root / "dvc.yaml").read_text(encoding="utf-8")
    drawn = [path for entry in yaml.safe_load(text)["stages"]["evaluate"]["do"]["plots"] for path in entry]
    assert drawn == ["plots/confusion/${key}.csv"]
    tasks = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["tasks"]
    assert not [task for task in tasks if task in text]
