"""The sections of params.yaml that evaluation reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluate_tree import write_params

from bert_ops.errors import InputError
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
