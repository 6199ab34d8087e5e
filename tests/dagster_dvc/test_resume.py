"""Kill -9 during pretraining: the next materialization goes on from the checkpoint and gives the same weights."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from crash_project import UNDER_SUPERVISOR, Crew, command_of, wait_for

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ".bert_ops/checkpoints/pretrain/*/step-*/manifest.json"
DEFINITIONS = """\
from pathlib import Path
from dagster_project.dagster_dvc import build_definitions
defs = build_definitions(Path(__file__).resolve().parent)
"""


def make_project(root: Path, *, params: dict, tokens: Path, tokenizer: Path) -> Path:
    """The stage `pretrain` alone, over tokens that are there already."""
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n")
    shutil.copytree(tokens, root / "data/tokens")
    shutil.copytree(tokenizer, root / "models/tokenizer")
    often = {**params["pretrain"]["checkpoints"], "every_s": 0.3}
    settings = {**params["pretrain"], "steps": 400, "evaluate_every_steps": 100, "checkpoints": often}
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "pretrain": settings}, allow_unicode=True))
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["pretrain"]
    stage["deps"] = ["data/tokens", "models/tokenizer"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"pretrain": stage}}, sort_keys=False))
    (root / "definitions_here.py").write_text(DEFINITIONS)
    return root


@pytest.fixture
def crew(tmp_path: Path, params: dict, tokens_folder: Path, tokenizer_folder: Path) -> Iterator[Crew]:
    made = Crew(
        make_project(tmp_path / "broken/project", params=params, tokens=tokens_folder, tokenizer=tokenizer_folder)
    )
    yield made
    made.close()


def materialize(crew: Crew) -> subprocess.Popen[str]:
    return crew.start(
        sys.executable, "-m", "dagster", "asset", "materialize", "--select", "pretrain", "-f", "definitions_here.py"
    )


def worker(crew: Crew) -> psutil.Process | None:
    for process in crew.processes(UNDER_SUPERVISOR):
        if "supervisor.py" in command_of(process):
            return process.parent()
    return None


@pytest.mark.slow
def test_pretraining_goes_on_from_its_checkpoint(
    crew: Crew, tmp_path: Path, params: dict, tokens_folder: Path, tokenizer_folder: Path
) -> None:
    unbroken = Crew(
        make_project(tmp_path / "whole/project", params=params, tokens=tokens_folder, tokenizer=tokenizer_folder)
    )
    try:
        reference = unbroken.dvc("repro")
        run = materialize(crew)
        wait_for(lambda: run.poll() is not None or any(crew.root.glob(CHECKPOINTS)), seconds=200)
        assert run.poll() is None, run.communicate()[0][-5000:]
        victim = worker(crew)
        assert victim is not None
        victim.kill()
        start = time.monotonic()
        wait_for(lambda: not any(crew.processes(UNDER_SUPERVISOR)))
        print(f"training ended {time.monotonic() - start:.2f} s after the step worker was killed")
        run.communicate(timeout=200)
        assert run.returncode != 0 and not (crew.root / "models/pretrained").exists()
        again = materialize(crew)
        said, _ = again.communicate(timeout=300)
        assert again.returncode == 0, said[-5000:]
        assert "resuming at step" in said
        said, _ = reference.communicate(timeout=300)
        assert reference.returncode == 0, said[-5000:]
        assert "resuming at step" not in said
        weights = "models/pretrained/model.safetensors"
        assert (crew.root / weights).read_bytes() == (unbroken.root / weights).read_bytes()
    finally:
        unbroken.close()
