"""torch.compile: the same training, and a clear word where there is nothing to compile with.

What the compiler makes of each graph takes it a minute of CPU; COMPILE_BACKEND=inductor has it made, as `make soak`
does. Without, the graphs are traced and run as they are.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import toy_runs as toy

from bert_ops.errors import InputError
from bert_ops.training import device

BACKEND = os.environ.get("COMPILE_BACKEND", "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_model_learns_what_the_plain_one_learns(
    params: dict, tokens_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[bool] = []
    compile_ = torch.compile

    def counted(*values: object, **named: object) -> object:
        compiled.append(True)
        return compile_(*values, **{"backend": BACKEND} | named)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "compile", counted)
    losses = []
    for wanted in (False, True):
        section = toy.small_params(params, precision="float32", steps=4, compile=wanted)
        _, run = toy.pretrained(tokens_folder, section, tmp_path / str(wanted))
        losses.append([row["validation_mlm_loss"] for row in run.history])
        assert len(compiled) == wanted
    plain, quick = losses
    assert quick == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "variable", "named"), [("cpu", None, "g++"), ("cpu", "icpx", "icpx"), ("cuda", None, "gcc")]
)
def test_without_a_compiler_it_is_refused_before_it_starts(
    kind: str, variable: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv("CXX", variable)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError) as caught:
        device.check_compiler(torch.device(kind))
    assert named in str(caught.value) and "pretrain.compile" in str(caught.value)


def test_a_run_that_is_to_compile_asks_for_the_compiler(
    params: dict, tokens_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match="compile"):
        toy.pretrained(tokens_folder, toy.small_params(params, compile=True), tmp_path)
