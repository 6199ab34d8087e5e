"""The real trainer on a disk that takes nothing more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy_runs import told

from bert_ops.errors import StorageError
from bert_ops.pretrain import stage
from tests.conftest import pretrain_arguments

pytestmark = pytest.mark.slow


def made(folder: Path) -> tuple[bytes, bytes, bytes, list[str]]:
    """What has to be the same, whatever happened on the way."""
    weights, results, curves = (
        (folder / name).read_bytes() for name in ("model/model.safetensors", "results.json", "history.tsv")
    )
    return weights, results, curves, told(folder)


def test_on_a_full_disk_training_goes_on_to_its_end_and_is_right_afterwards(
    tmp_path: Path, params: dict, tokens_folder: Path, tokenizer_folder: Path
) -> None:
    """The system refuses files above 2 kB: checkpoints, curves and log stay behind, and at last the model."""
    section = {**params["pretrain"], "evaluate_every_steps": 1}
    section["checkpoints"] = {**section["checkpoints"], "every_s": 1e-9, "every_steps": 10}
    section["embedding_init"] = {**section["embedding_init"], "kind": "normal"}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**params, "pretrain": section}, allow_unicode=True), encoding="utf-8")
    again, whole = (
        pretrain_arguments(tmp_path / name, params_file=path, tokens=tokens_folder, tokenizer=tokenizer_folder)
        for name in ("again", "whole")
    )
    options = [text for name, value in vars(again).items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = ["bash", "-c", 'ulimit -f 2; exec "$@"', "bash", sys.executable, "-m", "bert_ops", "pretrain", *options]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    said = refused.stderr
    assert refused.returncode == StorageError.exit_code and "Traceback" not in said, said
    assert "the checkpoint of step 10 was not written, training goes on: cannot write" in said
    assert f"pretraining goes on, but cannot write {again.history}" in said
    assert "cannot be written, training goes on" in said and "30/30 steps (100%)" in said
    assert "remedy:  free some space" in said and not again.out.exists()
    for arguments in (again, whole):
        stage.run(arguments)
    assert made(tmp_path / "again") == made(tmp_path / "whole")
