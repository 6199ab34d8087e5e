"""The machine's peak is measured quickly and without side effects; utilisation and memory are what they say."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from bert_ops.training import utilisation as measured
from bert_ops.training.log_lines import encode

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "tf32", "float16"])
def test_a_peak_is_a_rate_and_leaves_no_trace(precision) -> None:
    torch.manual_seed(3)
    before, flag = torch.get_rng_state(), torch.get_float32_matmul_precision()
    peak = measured.gemm_peak(CPU, precision, seconds=0.05)
    assert math.isfinite(peak) and peak > 1e6
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_float32_matmul_precision() == flag


def test_a_peak_is_no_less_than_what_a_product_of_the_model_reaches() -> None:
    """Ratio within one process: a product of 64 rows cannot be faster than the fastest one."""
    peak = measured.gemm_peak(CPU, "float32", seconds=0.2)
    small = measured._rate(CPU, torch.float32, 64, 0.05)
    assert peak > small


def test_a_type_that_the_machine_has_no_units_for_is_not_waited_for(monkeypatch) -> None:
    """1 GFLOP/s: a product of 1024 takes two seconds, so the small one must do."""
    sizes = []

    def rate(device, dtype, size, seconds):
        sizes.append(size)
        return 1e9

    monkeypatch.setattr(measured, "_rate", rate)
    assert measured.gemm_peak(CPU, "float16") == 1e9
    assert sizes == [256]
    monkeypatch.setattr(measured, "_rate", lambda device, dtype, size, seconds: sizes.append(size) or 1e12 * size)
    assert measured.gemm_peak(CPU, "bfloat16") == 2048e12
    assert sizes[1:] == [256, 1024, 2048]


def test_utilisation_is_achieved_over_peak() -> None:
    share = measured.utilisation(tokens=5000, seconds=2.0, flops_per_token=4e7, peak=4e11)
    assert share == pytest.approx(0.25)


@pytest.mark.parametrize("changes", [{"seconds": 0.0}, {"peak": 0.0}, {"flops_per_token": 0.0}])
def test_utilisation_of_nothing_is_none(changes) -> None:
    assert measured.utilisation(**{"tokens": 1, "seconds": 1.0, "flops_per_token": 1.0, "peak": 1.0, **changes}) is None


def test_memory_is_the_peak_of_this_process_alone() -> None:
    """The peak stays when memory is given back, and that of the parent (this test, with more in it) does not count."""
    code = (
        "import torch\n"
        "from bert_ops.training.utilisation import memory_mib\n"
        "before = memory_mib(torch.device('cpu'))\n"
        "held = bytearray(200 * 2**20)\n"
        "del held\n"
        "print(before, memory_mib(torch.device('cpu')))\n"
    )
    held = bytearray(b"x") * (300 * 2**20)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    del held
    before, after = map(float, out.split())
    assert 150 < after - before < 250
    assert after < measured.memory_mib(CPU)


def test_a_log_says_what_a_run_runs_on() -> None:
    found = measured.machine(CPU, processes=2, peak=1e11)
    assert found["threads"] == torch.get_num_threads() and found["processes"] == 2 and found["peak"] == 1e11
    assert found["cores"] >= 1 and found["device"] and found["torch"] == torch.__version__
    assert encode({"machine": found})
