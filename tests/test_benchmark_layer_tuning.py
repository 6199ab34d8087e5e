"""The study of layer tuning: what it trains, how it chooses rates, and that its quick run prints every key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bert_ops.finetune.layer_params import EVERYTHING, LayerParams

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"

PER_SEED = {"score", "score_difference", "seconds", "seconds_ratio", "memory_mib", "memory_ratio"}
PER_VARIANT = {"kept_mib", "trained_parameters", "learning_rate"}


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import layer_tuning

    return layer_tuning


@pytest.mark.parametrize("count", [2, 4, 12])
def test_every_variant_is_allowed_and_they_differ(study: Any, count: int) -> None:
    made = {name: LayerParams(**(EVERYTHING.model_dump() | v)) for name, v in study.variants(count).items()}
    assert made["all"] == EVERYTHING
    assert len({params.model_dump_json() for params in made.values()}) == len(made)
    assert all((params.top or 0) <= count and params.reinitialized <= count for params in made.values())


@pytest.mark.parametrize(
    ("best", "tried"),
    [(1.0, [0.5, 1.0, 2.0]), (5.0, [1.0, 2.0, 5.0, 10.0]), (0.2, [0.2, 0.5, 1.0, 2.0]), (10.0, [1.0, 2.0, 5.0, 10.0])],
)
def test_rates_are_tried_as_long_as_it_gets_better(study: Any, best: float, tried: list[float]) -> None:
    found, losses = study.climb([0.2, 0.5, 1.0, 2.0, 5.0, 10.0], 1.1, lambda rate: abs(rate - best))
    assert found == best
    # Having climbed, it does not look back at what lies below the rate that it began with.
    assert list(losses) == tried


@pytest.mark.slow
def test_a_quick_run_prints_every_key(tmp_path: Path, corpus: Path, pretrained_folder: Path, params_file: Path) -> None:
    command = [sys.executable, BENCHMARKS / "layer_tuning.py", "--quick", "--variants", "head", "--threads", "1"]
    command += ["--init", pretrained_folder, "--examples", corpus / "examples", "--params", params_file]
    command += ["--tasks", "sentiment"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.keys() == PER_SEED | PER_VARIANT | {"parameters", "steps", "setting"}
    for key in PER_SEED:
        assert {name: len(values) for name, values in told[key]["sentiment"].items()} == {"all": 1, "head": 1}
    for key in PER_VARIANT:
        assert told[key]["sentiment"].keys() == {"all", "head"}
    trained, kept = told["trained_parameters"]["sentiment"], told["kept_mib"]["sentiment"]
    assert trained["all"] == told["parameters"]["sentiment"] > trained["head"] > 0
    assert kept["all"] > 2 * kept["head"] > 0
