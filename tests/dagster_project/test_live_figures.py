"""The figures of a running stage reach Dagster while it runs, as observations of its asset."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.dagster_dvc.assemble import build_definitions

ROOT = Path(__file__).resolve().parents[2]

#: Two steps as the training loop reports them; the second waits until the test has seen the first.
TRAIN_PY = f"""\
import pathlib, sys, time
sys.path.insert(0, {str(ROOT)!r})
from bert_ops.progress import Progress, dagster_session
with dagster_session():
    bar = Progress("training", total=2, unit="steps", every_s=0.0)
    for step in (1, 2):
        line = {{
            "event": "step", "step": step, "tokens": step * 2**31, "loss": 3.5, "mlm_loss": 2.9, "nsp_loss": 0.6,
            "learning_rate": 1e-4, "gradient_norm": float("nan"), "clip_share": 0.25, "batch_tokens": 4096,
            "noise_scale": None, "utilisation": 0.41, "memory_mib": 512.5,
        }}
        bar.update(step, also=line, loss=3.5, **{{"tokens/s": 21345.6}})
        until = time.monotonic() + 60
        while step == 1 and not pathlib.Path("seen").exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert pathlib.Path("seen").exists(), "nobody saw the first figures"
pathlib.Path("model").write_text("x")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )
    (tmp_path / "train.py").write_text(TRAIN_PY)
    (tmp_path / "dvc.yaml").write_text(
        f"stages:\n  pretrain:\n    cmd: {sys.executable} train.py\n    deps: [train.py]\n    outs: [model]\n"
    )
    return tmp_path


def test_figures_of_a_step_arrive_while_the_stage_runs(project: Path) -> None:
    key = dg.AssetKey("pretrain")
    over = threading.Event()
    with dg.instance_for_test() as instance:

        def look() -> None:
            while not over.wait(0.1) and not (project / "seen").exists():
                if instance.fetch_observations(key, limit=1).records:
                    (project / "seen").touch()

        looking = threading.Thread(target=look)
        looking.start()
        try:
            job = build_definitions(project).resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(instance=instance, raise_on_error=False)
        finally:
            over.set()
            looking.join()
        assert result.success
        records = instance.fetch_observations(key, limit=10).records
    first = next(r.asset_observation for r in records if r.asset_observation.metadata["done"].value == 1)
    figures = {name: value.value for name, value in first.metadata.items()}
    assert figures["mlm_loss"] == 2.9 and figures["nsp_loss"] == 0.6 and figures["utilisation"] == 0.41
    assert figures["batch_tokens"] == 4096 and figures["tokens/s"] == 21345.6 and figures["what"] == "training"
    assert isinstance(figures["tokens"], float) and figures["tokens"] == 2**31, "a plot takes 32 bits of an integer"
    assert figures["gradient_norm"] != figures["gradient_norm"]
    assert "noise_scale" not in figures, "what was not measured is not shown"
