"""How much of the machine a training run uses: achieved FLOP/s over the machine's own GEMM peak, and memory.

The peak is measured where the run runs, because it depends on threads, precision and what else the machine does: a
figure from a data sheet says little about a container with two cores.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bert_ops import __version__
from bert_ops.training.params import Precision

#: Widths of the square matrices that are multiplied, as far as time allows; the largest rate over them is the peak.
_CPU_SIZES = (256, 1024, 2048)
_GPU_SIZES = (1024, 4096, 8192)

_TYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def gemm_peak(device: torch.device, precision: Precision, *, seconds: float = 0.3) -> float:
    """Fastest rate of a square matrix product, FLOP/s, with the threads and the precision of the run.

    No global random generator is touched.

    Args:
        device: where to measure.
        precision: what the product is computed in; not "auto".
        seconds: time to measure for, warming up aside.

    """
    sizes = _CPU_SIZES if device.type == "cpu" else _GPU_SIZES
    until, best = time.monotonic() + seconds, 0.0
    with torch.no_grad(), _tf32(precision):
        for number, size in enumerate(sizes):
            # A machine without units for a type takes seconds for a large product: what was measured must do.
            if best and 2.0 * size**3 / best > 0.5 * (until - time.monotonic()):
                break
            share = (until - time.monotonic()) / (len(sizes) - number)
            best = max(best, _rate(device, _TYPES[precision], size, share))
    return best


def _rate(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    """FLOP/s of the fastest of the products of one size that ``seconds`` allow; warming up counts."""
    until = time.monotonic() + seconds
    generator = torch.Generator(device).manual_seed(0)
    # Random values: a GPU multiplies zeros faster than data, because they take less power.
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    time_of = _cuda_seconds if device.type == "cuda" else _cpu_seconds

    def multiply() -> None:
        torch.mm(a, b, out=out)

    time_of(multiply)
    best = float("inf")
    while True:
        best = min(best, time_of(multiply))
        if time.monotonic() > until:
            return 2.0 * size**3 / best


def _cpu_seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cuda_seconds(work: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    work()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1000


@contextmanager
def _tf32(precision: Precision) -> Iterator[None]:
    """Let float32 products of a GPU use TF32 units, or not, as the run does."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def utilisation(*, tokens: int, seconds: float, flops_per_token: float, peak: float) -> float | None:
    """Share of the GEMM peak that a run reaches (MFU; Chowdhery et al. 2022, arXiv:2204.02311, appendix B).

    Args:
        tokens: tokens that were trained on, over all processes.
        seconds: time that it took.
        flops_per_token: of forward and backward, without recomputation (:mod:`bert_ops.model.sizes`).
        peak: FLOP/s of all processes' devices together.

    Returns:
        The share, or None where a figure is missing or zero.

    """
    if seconds <= 0 or peak <= 0 or flops_per_token <= 0:
        return None
    return tokens * flops_per_token / seconds / peak


def machine(device: torch.device, *, processes: int, peak: float) -> dict[str, Any]:
    """What a run runs on, for the log: device, cores, threads, versions, and the peak that utilisation is a share of.

    Args:
        device: of this process.
        processes: that train together.
        peak: GEMM peak of all of them, FLOP/s; 0 if it was not measured.

    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "peak": peak,
        "host": platform.node(),
        "process": os.getpid(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "bert_ops": __version__,
    }


def _processor() -> str:
    """Name of the CPU, as Linux tells it, or its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_mib(device: torch.device) -> float:
    """Most memory that was in use so far, MiB: of the GPU's tensors, or of this process where there is no GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_process_mib()


def peak_process_mib() -> float:
    """Largest resident set of this process so far, MiB.

    Linux keeps it in ``/proc``; ``getrusage`` there reports the largest of the process that started this one, too.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
