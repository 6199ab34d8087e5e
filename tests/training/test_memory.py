"""The search for the largest pass: never past the limit, whatever memory looks like; and what limits us."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bert_ops.errors import InputError
from bert_ops.training import machine_memory
from bert_ops.training.memory import SHARE, is_out_of_memory, largest_micro_batch

CPU = torch.device("cpu")
MIB = 2**20

#: Bytes of a pass by its size, beyond what is in use before.
SHAPES: dict[str, Callable[[int], float]] = {
    "line": lambda n: 3.0 * n,
    "line with a constant": lambda n: 400 + 3.0 * n,
    "n log n": lambda n: n * math.log2(2 * n),
    "n^1.5": lambda n: n**1.5,
    "square": lambda n: 0.2 * n**2,
    "square with the rest": lambda n: 50 + 10 * n + 0.5 * n**2,
    "steps of an allocator": lambda n: 64.0 * math.ceil(n / 10),
}


class Machine:
    """Memory that a test makes up; it fails a pass that goes past its end, as a system kills a process."""

    def __init__(self, shape: Callable[[int], float], *, total: float, base: float = 100.0) -> None:
        self.shape, self.total, self.base = shape, total, base
        self.tried: list[int] = []

    def probe(self, size: int) -> None:
        self.tried.append(size)
        assert self.base + self.shape(size) <= self.total, f"a pass of {size} would have ended the process"

    def peak(self, work: Callable[[], None]) -> int:
        work()
        return round(self.base + self.shape(self.tried[-1]))

    def largest(self, *, low: int = 1, high: int = 10_000, **changes: object) -> int:
        return largest_micro_batch(
            self.probe,
            low=low,
            high=high,
            device=CPU,
            used=lambda: round(self.base),
            free=lambda: round(self.total - self.base),
            peak=self.peak,
            **changes,
        )

    def best(self, *, high: int = 10_000, share: float = SHARE) -> int:
        """Largest size within the share of free memory."""
        return max((n for n in range(1, high + 1) if self.shape(n) <= share * (self.total - self.base)), default=0)


@pytest.mark.parametrize("total", [620.0, 900.0, 3_000.0, 50_000.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_search_stays_within_memory_and_comes_close(shape: str, total: float) -> None:
    machine = Machine(SHAPES[shape], total=total)
    best = machine.best()
    if best == 0:
        with pytest.raises(InputError, match="does not fit"):
            machine.largest()
        return
    found = machine.largest()
    assert found in machine.tried  # nothing is returned that was not tried
    assert machine.shape(found) <= SHARE * (total - machine.base)
    assert found <= best
    # Jumps of more than a square are beyond what is assumed; a constant leaves few sizes to learn from.
    tight = machine.shape(1) * 4 > SHARE * (total - machine.base)
    assert tight or found >= 0.75 * best - 1


def test_all_of_it_fits_a_large_machine() -> None:
    machine = Machine(SHAPES["line"], total=1e9)
    assert machine.largest(high=48) == 48
    assert machine.tried == [1, 1, 2, 4, 8, 16, 32, 48]
    assert Machine(SHAPES["line"], total=1e9).largest(low=5, high=5) == 5


def test_what_is_reserved_is_not_used() -> None:
    free = Machine(SHAPES["line"], total=2000.0)
    assert free.largest() >= 450
    kept = Machine(SHAPES["line"], total=2000.0)
    assert kept.largest(reserved=1000) <= (SHARE * 1900 - 1000) / 3


def test_noise_between_near_sizes_is_no_licence() -> None:
    """Measured memory stands still near the end, as a resident set may; the true one does not."""
    machine = Machine(SHAPES["line"], total=1100.0)
    true = machine.peak
    machine.peak = lambda work: true(work) // 64 * 64  # type: ignore[method-assign]
    assert machine.largest() * 3 <= 1000


def test_a_pass_that_fails_ends_the_search_with_what_fitted() -> None:
    machine = Machine(SHAPES["line"], total=1e9)
    failed: list[int] = []

    def probe(size: int) -> None:
        if size > 20:
            failed.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory")
        machine.probe(size)

    found = largest_micro_batch(
        probe, low=1, high=1000, device=CPU, used=lambda: 100, free=lambda: 10**9, peak=machine.peak
    )
    assert found == 16 and failed == [32]


def test_the_smallest_pass_has_to_fit() -> None:
    def probe(size: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError) as error:
        largest_micro_batch(
            probe, low=1, high=8, device=CPU, used=lambda: 0, free=lambda: 1000, peak=lambda work: work() or 0
        )
    assert "(1 row) does not fit" in str(error.value) and "batch.micro_tokens" in str(error.value)


def test_another_error_is_not_taken_for_lack_of_memory() -> None:
    def probe(size: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        largest_micro_batch(
            probe, low=1, high=8, device=CPU, used=lambda: 0, free=lambda: 1000, peak=lambda work: work() or 0
        )


def test_errors_of_allocators_are_known() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60)
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("could not create a memory object"))
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError("std::bad_alloc"))


@pytest.mark.parametrize("kernel", [True, False])
def test_the_peak_of_real_work_is_measured(monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(machine_memory.Path, "write_text", _denied)

    def work() -> None:
        block = torch.ones(64 * MIB // 4)
        for _ in range(10):
            block.add_(1.0)
        del block

    before = machine_memory.used_bytes(CPU)
    peak = machine_memory.peak_bytes(work, CPU)
    assert 60 * MIB <= peak - before <= 90 * MIB
    assert machine_memory.used_bytes(CPU) - before < 20 * MIB
    assert machine_memory.peak_bytes(lambda: None, CPU) - before < 20 * MIB  # it begins anew


def _denied(*_: object, **__: object) -> int:
    raise PermissionError


def groups(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


STAT = "anon 50\ninactive_file 30\nactive_file 20\n"


def test_control_groups_of_version_2_limit_us_all_the_way_up(tmp_path: Path) -> None:
    root = groups(
        tmp_path / "cgroup",
        {
            "job/step/memory.max": "max\n",
            "job/step/memory.current": "100\n",
            "job/step/memory.stat": STAT,
            "job/memory.max": "1000\n",
            "job/memory.current": "400\n",
            "job/memory.stat": STAT,
        },
    )
    (tmp_path / "membership").write_text("0::/job/step\n")
    # 1000 - 400, and the 50 of the cache of files, which the kernel gives up.
    assert list(machine_memory.control_group_bytes(groups=root, membership=tmp_path / "membership")) == [650]


def test_control_groups_of_version_1_limit_us(tmp_path: Path) -> None:
    root = groups(
        tmp_path / "cgroup",
        {
            "memory/box/memory.limit_in_bytes": "2000\n",
            "memory/box/memory.usage_in_bytes": "500\n",
            "memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 0\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": "700\n",
            "memory/memory.stat": STAT,
        },
    )
    (tmp_path / "membership").write_text("9:name=systemd:/\n4:cpu,memory:/box\n0::/\n")
    left = list(machine_memory.control_group_bytes(groups=root, membership=tmp_path / "membership"))
    assert left[0] == 2000 - 500 + 100 and min(left) == 1600


def test_inside_a_container_the_group_is_the_root_of_what_is_mounted(tmp_path: Path) -> None:
    root = groups(tmp_path / "cgroup", {"memory.max": "1000\n", "memory.current": "999\n", "memory.stat": "anon 999\n"})
    (tmp_path / "membership").write_text("0::/../outside/docker-1234\n")
    assert 1 in list(machine_memory.control_group_bytes(groups=root, membership=tmp_path / "membership"))


def test_without_control_groups_there_is_no_such_limit(tmp_path: Path) -> None:
    assert list(machine_memory.control_group_bytes(groups=tmp_path, membership=tmp_path / "none")) == []


def test_free_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine_memory.free_bytes(CPU)
    assert 0 < here <= machine_memory._available() * 1.1
    monkeypatch.setattr(machine_memory, "control_group_bytes", lambda: iter([12345]))
    assert machine_memory.free_bytes(CPU) == 12345
    monkeypatch.setattr(machine_memory, "control_group_bytes", lambda: iter([-5]))
    assert machine_memory.free_bytes(CPU) == 0


def test_a_system_that_does_not_say_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(machine_memory.Path, "read_text", missing)
    with pytest.raises(InputError, match=r"batch\.micro_tokens is auto") as error:
        machine_memory.used_bytes(CPU)
    assert "set batch.micro_tokens to a number" in str(error.value)


def test_a_real_search_under_a_limit_of_the_address_space_ends_well() -> None:
    """The system refuses memory past the limit; no pass of the search may meet that."""
    program = textwrap.dedent(
        f"""
        import resource, torch
        from bert_ops.training.machine_memory import free_bytes
        from bert_ops.training.memory import largest_micro_batch
        cpu, mib = torch.device("cpu"), {MIB}
        torch.set_num_threads(1)
        torch.ones(8) @ torch.ones(8)
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 400 * mib, size + 400 * mib))
        assert 300 * mib < free_bytes(cpu) <= 400 * mib
        tried = []
        def probe(n):
            tried.append(n)
            block = torch.ones(n, mib // 4)
            block.sum()
        found = largest_micro_batch(probe, low=1, high=10_000, device=cpu)
        print(found, max(tried))
        try:
            torch.ones(found * 2, mib // 4)
        except RuntimeError:
            print("refused")
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, most = map(int, done.stdout.split()[:2])
    assert 180 <= found <= most <= 0.8 * 400
    assert done.stdout.split()[2:] == ["refused"]


def test_the_limit_of_this_process_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**15, 10**15))
    assert 0 < 10**15 - next(machine_memory._address_space()) < 10**15
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert list(machine_memory._address_space()) == []
