"""A bare GPU node has torch, numpy, tokenizers, safetensors, pydantic and PyYAML; training must import with these."""

from __future__ import annotations

import subprocess
import sys

import pytest

_BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Absent())
import {module}
"""
_HEAVY = {
    "pandas", "pyarrow", "sklearn", "scipy", "evidently", "great_expectations", "gensim", "onnx", "onnxruntime",
    "onnxscript", "dagster", "dagster_pipes", "dvc", "plotly", "snownlp", "transformers",
}  # fmt: skip


def importing(module: str, absent: set[str]) -> subprocess.CompletedProcess[str]:
    code = _BLOCK.format(module=module, absent=absent)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["bert_ops.pretrain.stage", "bert_ops.finetune.stage"])
def test_training_imports_on_a_bare_node(module: str) -> None:
    done = importing(module, _HEAVY)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["bert_ops.corpus.ingest", "bert_ops.tokenizer.encode", "bert_ops.quality.corpus"])
def test_data_stages_import_without_torch(module: str) -> None:
    done = importing(module, {"torch", "dagster", "dvc"})
    assert done.returncode == 0, done.stderr


def test_the_block_works() -> None:
    assert importing("pandas", {"pandas"}).returncode != 0
