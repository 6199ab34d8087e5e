"""The hardware: cores, bfloat16, GPUs, memory, disk."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from bert_ops.doctor.finding import Finding

#: Free space below which a run on a real corpus is likely to end with a full disk, in GiB.
_LOW_DISK_GIB = 5
_LOW_MEMORY_GIB = 4
#: CPU features that decide how fast a product of matrices is, as /proc/cpuinfo names them.
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "asimd", "i8mm", "bf16")


def check_processor() -> Iterator[Finding]:
    """Cores, CPU features, and whether bfloat16 pays."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    flags = {
        word for line in text.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    features = ", ".join(name for name in _CPU_FEATURES if name in flags) or "no known features"
    yield Finding(level="ok", what="cores", found=f"{usable} of {platform.machine()}; {features}")
    float32, bfloat16 = matmul_seconds()
    found = f"a matrix product takes {bfloat16 / float32:.2f} of the time of float32"
    pays = bfloat16 < 0.95 * float32
    remedy = None if pays else "set `pretrain.precision` and `finetune.precision` to float32 in params.yaml"
    yield Finding(level="ok" if pays else "warn", what="bfloat16", found=found, remedy=remedy)


def matmul_seconds(*, repeats: int = 15) -> tuple[float, float]:
    """Median seconds of one product in float32 and in bfloat16, of the size that pretraining has; taken in turn."""
    import torch

    left, right = torch.ones(1024, 256), torch.ones(256, 1024)
    pairs = [(left, right), (left.bfloat16(), right.bfloat16())]
    seconds: list[list[float]] = [[], []]
    with torch.inference_mode():
        for repeat in range(repeats + 2):
            for kind, (a, b) in enumerate(pairs):
                start = time.perf_counter()
                torch.matmul(a, b)
                if repeat >= 2:
                    seconds[kind].append(time.perf_counter() - start)
    first, second = (sorted(values)[repeats // 2] for values in seconds)
    return first, second


def check_gpu() -> Iterator[Finding]:
    """GPUs that torch can use; having none is fine."""
    import torch

    if not torch.cuda.is_available():
        yield Finding(level="ok", what="GPU", found="none that torch can use; stages run on the CPU")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield Finding(level="ok", what=f"GPU {number}", found=f"{about.name}, {about.total_memory / 2**30:.0f} GiB")


def check_memory() -> Iterator[Finding]:
    """Memory that is free to use, as Linux estimates it."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        yield Finding(level="ok", what="memory", found="unknown on this system")
        return
    rows = (line.split() for line in info.read_text(encoding="utf-8").splitlines())
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows}
    total, free = kib["MemTotal"] / 2**20, kib["MemAvailable"] / 2**20
    low = free < _LOW_MEMORY_GIB
    remedy = "close other programs, or lower the batch sizes in params.yaml" if low else None
    found = f"{free:.1f} of {total:.1f} GiB available"
    yield Finding(level="warn" if low else "ok", what="memory", found=found, remedy=remedy)


def check_disk(root: Path) -> Iterator[Finding]:
    """Free space where artifacts and DVC's cache go."""
    free = shutil.disk_usage(root).free / 2**30
    low = free < _LOW_DISK_GIB
    remedy = "free some space; `dvc gc --workspace` drops cached artifacts that no longer count" if low else None
    yield Finding(level="warn" if low else "ok", what="disk", found=f"{free:.1f} GiB free", remedy=remedy)
