"""Tiny copies of the project, run from scratch once by `dvc repro` and once by Dagster, side by side."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    output: str


def environment(project: Path) -> dict[str, str]:
    """Environment of a user who activated the virtual environment in his project."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(project.parent),
        "PYTHONPATH": str(project),
        "DAGSTER_HOME": str(project / ".dagster"),
        "DO_NOT_TRACK": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ},
    }


def start(project: Path, *command: str) -> subprocess.Popen[str]:
    """Start a command in a project."""
    return subprocess.Popen(
        command, cwd=project, env=environment(project), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def shrink(params: dict) -> dict:
    """Values of params.yaml with which every stage takes seconds."""
    params["validate_corpus"]["documents"]["min"] = 20
    params["validate_corpus"]["examples_per_split"]["min"] = 3
    params["tokenizer"] |= {"vocab_size": 500, "min_frequency": 1}
    params["tokenize"] |= {"shard_tokens": 2000}
    params["validate_tokens"]["tokens"]["min"] = 500
    params["validate_tokens"]["round_trip_sentences"] = 50
    params["pretrain"] |= {
        "threads": 1,
        "steps": 30,
        "sequence_tokens": 64,
        "evaluate_every_steps": 10,
        "evaluation_sequences": 30,
    }
    params["pretrain"]["batch"] |= {"tokens": 512, "micro_tokens": 512}
    params["pretrain"]["model"] |= {
        "hidden_size": 32,
        "layers": 1,
        "heads": 2,
        "feed_forward_size": 64,
        "max_positions": 64,
    }
    params["pretrain"]["embedding_init"] |= {"epochs": 1}
    params["pretrain"]["schedule"] |= {"warmup_steps": 5}
    params["finetune"] |= {
        "threads": 1,
        "epochs": 1,
        "evaluations_per_epoch": 8,
        "probe_examples": 30,
    }
    params["finetune"]["batch"] |= {"examples": 16}
    params["evaluate"] |= {"threads": 1, "bootstrap_resamples": 200, "report_examples": 50}
    for task in params["tasks"].values():
        task |= {"max_tokens": 64, "finetune": None}
    return params


def make_project(root: Path) -> Path:
    """Copy the project and shrink it; the sample stage is replaced, the graph stays what it is."""
    root.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("bert_ops", "dagster_project"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    for file in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (root / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    (root / "data/raw").mkdir(parents=True)
    shutil.copy(ROOT / "data/raw/README.md", root / "data/raw/README.md")
    shutil.copy(Path(__file__).with_name("make_sample.py"), root / "make_sample.py")
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    definition["stages"]["sample"] |= {"cmd": "python make_sample.py --out data/sample", "deps": ["make_sample.py"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump(definition, sort_keys=False, allow_unicode=True), encoding="utf-8")
    params = shrink(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (root / ".dagster").mkdir()
    shutil.copy(ROOT / "dagster_project/dagster.yaml", root / ".dagster/dagster.yaml")
    subprocess.run(["git", "init", "--quiet"], cwd=root, env=environment(root), check=True)
    return root


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Done]]:
    """The project run from scratch by both tools: name of the tool to folder and what it printed."""
    folder = tmp_path_factory.mktemp("pipeline")
    commands = {
        "dvc": ["dvc", "repro"],
        "dagster": ["dagster", "asset", "materialize", "--select", "*", "-m", "dagster_project.definitions"],
    }
    projects = {name: make_project(folder / name / "project") for name in commands}
    processes = {name: start(projects[name], *command) for name, command in commands.items()}
    done = {}
    for name, process in processes.items():
        output, _ = process.communicate(timeout=1800)
        done[name] = (projects[name], Done(code=process.returncode, output=output))
    return done


@pytest.fixture(scope="session")
def run_in() -> Callable[..., Done]:
    """Runs a command in a project: `run_in(project, "dvc", "status")`."""

    def run(project: Path, *command: str) -> Done:
        process = start(project, *command)
        output, _ = process.communicate(timeout=300)
        return Done(code=process.returncode, output=output)

    return run
