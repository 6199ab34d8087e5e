"""The store of checkpoints: what goes in comes out, training does not wait, and what should stay stays."""

from __future__ import annotations

import itertools
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from bert_ops.errors import InputError
from bert_ops.training import checkpoint_files as files
from bert_ops.training.checkpoint import Checkpoint, CheckpointStore, Retention
from bert_ops.training.checkpoint_files import Entry
from bert_ops.training.retention import surplus

IDENTITY = {"architecture": "4x256", "vocabulary": "ab12", "parameters": '{"batch": {"tokens": 4096}, "steps": 10}'}


def store_in(folder: Path, *, last: int = 3, best: int = 0, **identity: str) -> CheckpointStore:
    return CheckpointStore(
        folder, retention=Retention(keep_last=last, keep_best=best), identity={**IDENTITY, **identity}
    )


def content(step: int, **state: Any) -> Checkpoint:
    return Checkpoint(step=step, tensors={"weight": torch.full((4, 5), float(step))}, state={"at": step, **state})


def saved(store: CheckpointStore) -> list[tuple[int, str]]:
    """Steps and kinds of what is in the folder, oldest first."""
    store.flush()
    return [(entry.step, entry.kind) for entry in map(files.inspect, store.steps())]


class Gate:
    """Holds the writer until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        write = files.write

        def waiting(*args: Any, **kwargs: Any) -> Path:
            self.reached.set()
            assert self.opened.wait(60)
            return write(*args, **kwargs)

        monkeypatch.setattr(files, "write", waiting)


def every_dtype() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    floats = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
    return {
        **{f"values/{dtype}": torch.randn(3, 7).to(dtype) for dtype in floats},
        **{f"scalar/{dtype}": torch.tensor(2.5).to(dtype) for dtype in [*floats, torch.int64, torch.bool]},
        **{f"whole/{d}": torch.arange(6).to(d) for d in (torch.int64, torch.int32, torch.int16, torch.int8)},
        "bytes": torch.arange(5, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
        "transposed": torch.arange(12.0).reshape(3, 4).t(),
        "part": torch.arange(12.0)[3:7],
        "special": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45]),
    }


def test_tensors_of_every_kind_come_back_bit_for_bit(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    tensors = every_dtype()
    store.save(Checkpoint(step=7, tensors=tensors, state={}), kind="step")
    found = store.newest()
    assert found is not None and found.step == 7
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype and found.tensors[name].shape == tensor.shape
        assert found.tensors[name].flatten().view(torch.uint8).equal(tensor.contiguous().flatten().view(torch.uint8)), (
            name
        )


def test_tied_tensors_may_be_saved(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    store = store_in(tmp_path)
    store.save(Checkpoint(step=1, tensors={"embedding": weight, "decoder": weight}, state={}), kind="step")
    found = store.newest()
    assert found is not None and found.tensors["decoder"].equal(weight) and found.tensors["embedding"].equal(weight)


def test_the_state_comes_back_number_for_number(tmp_path: Path) -> None:
    state = {
        "loss": 0.1 + 0.2,
        "tiny": 5e-324,
        "large": 2**70,
        "best": math.inf,
        "row": [{"validation_loss": math.nan, "step": 3}],
        "none": None,
        "text": "中文 ‘NaN’",
    }
    store = store_in(tmp_path)
    store.save(Checkpoint(step=1, tensors={}, state=state), kind="step")
    found = store.newest()
    assert found is not None
    assert repr(found.state) == repr(state)  # the order of names too: it becomes that of columns


def test_files_are_plain_safetensors_and_json(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.save(content(3), kind="step", wait=True)
    (path,) = store.steps()
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert load_file(path / "tensors.safetensors")["weight"].equal(torch.full((4, 5), 3.0))


def test_what_training_changes_while_the_writer_works_is_not_written(tmp_path: Path, monkeypatch) -> None:
    gate = Gate(monkeypatch)
    store = store_in(tmp_path)
    weight, history = torch.ones(1000), [1]
    store.save(Checkpoint(step=1, tensors={"weight": weight}, state={"history": history}), kind="step")
    assert gate.reached.wait(60)
    weight.zero_()
    history.append(2)
    gate.opened.set()
    found = store.newest()
    assert found is not None and found.state == {"history": [1]}
    assert found.tensors["weight"].equal(torch.ones(1000))


def test_training_goes_on_while_the_writer_works_and_only_clock_checkpoints_are_left_out(
    tmp_path: Path, monkeypatch
) -> None:
    gate = Gate(monkeypatch)
    store = store_in(tmp_path, last=9)
    assert store.save(content(1), kind="step")
    assert gate.reached.wait(60)
    assert not store.save(content(2), kind="time")
    threading.Timer(0.2, gate.opened.set).start()
    before = store.stall_seconds
    assert store.save(content(3), kind="step")
    assert store.stall_seconds - before > 0.1  # this one waited
    assert saved(store) == [(1, "step"), (3, "step")]
    assert store.save(content(4), kind="time")
    assert saved(store)[-1] == (4, "time")


def test_waiting_means_written(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.save(content(5), kind="final", wait=True)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005-000001"]
    assert store.saved_step == 5


def test_memory_holds_one_copy_however_many_checkpoints(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    places = set()
    for step in range(4):
        store.save(content(step), kind="step", wait=True)
        places.add(store._host["weight"].data_ptr())
    assert len(places) == 1
    store.close()
    assert not store._host


def test_a_bug_of_the_writer_is_raised_and_not_lost(tmp_path: Path, monkeypatch) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(files, "write", broken)
    store = store_in(tmp_path)
    store.save(content(1), kind="step")
    with pytest.raises(ZeroDivisionError):
        store.save(content(2), kind="step")


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert store_in(tmp_path / "run").newest() is None
    assert store_in(tmp_path / "run").rollback_target(before=10) is None


def test_the_one_written_last_is_the_newest_though_an_earlier_one_has_more_steps(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.save(content(300), kind="time", wait=True)
    store.save(content(200, rolled_back=True), kind="step", wait=True)
    found = store_in(tmp_path).newest()
    assert found is not None and found.step == 200


class TestRollback:
    @pytest.fixture
    def store(self, tmp_path: Path) -> CheckpointStore:
        store = store_in(tmp_path, last=9)
        for step, kind in ((0, "step"), (10, "milestone"), (20, "step"), (25, "time"), (30, "step"), (33, "final")):
            store.save(content(step), kind=kind, wait=True)  # type: ignore[arg-type]
        return store

    @pytest.mark.parametrize(("before", "step"), [(40, 30), (30, 30), (29, 20), (19, 10), (9, 0)])
    def test_it_goes_to_the_last_step_that_follows_from_the_parameters(
        self, store: CheckpointStore, before: int, step: int
    ) -> None:
        found = store.rollback_target(before=before)
        assert found is not None and found.step == step

    def test_it_goes_past_a_damaged_one_and_says_so(self, store: CheckpointStore, capsys) -> None:
        store.flush()
        (store.folder / "step-00000030-000005" / "manifest.json").write_text("{}")
        found = store.rollback_target(before=40)
        assert found is not None and found.step == 20
        assert "skipping the damaged checkpoint step-00000030-000005" in capsys.readouterr().err

    def test_what_came_after_is_history(self, store: CheckpointStore) -> None:
        store.discard_after(20)
        assert saved(store) == [(0, "step"), (10, "milestone"), (20, "step")]


class TestIdentity:
    @pytest.mark.parametrize(
        ("part", "value", "message"),
        [
            ("architecture", "12x768", "architecture: 4x256 there, 12x768 here"),
            ("vocabulary", "cd34", "vocabulary: ab12 there, cd34 here"),
            (
                "parameters",
                '{"batch": {"tokens": 8192}, "steps": 10}',
                "parameters.batch.tokens: 4096 there, 8192 here",
            ),
            ("parameters", '{"batch": {"tokens": 4096}}', "parameters.steps: 10 there, nothing here"),
            ("torch", "3.0", "torch: nothing there, 3.0 here"),
        ],
    )
    def test_a_difference_is_named_with_both_values(self, tmp_path: Path, part: str, value: str, message: str) -> None:
        store_in(tmp_path).save(content(1), kind="step", wait=True)
        with pytest.raises(InputError) as caught:
            store_in(tmp_path, **{part: value}).newest()
        said = str(caught.value)
        assert message in said and "remedy" in said and said.count(" there, ") == 1
        with pytest.raises(InputError, match="belongs to another run"):
            store_in(tmp_path, **{part: value}).rollback_target(before=1)

    def test_work_of_another_run_that_stands_beside_is_mentioned(self, tmp_path: Path, capsys) -> None:
        store_in(tmp_path / "one").save(content(7), kind="step", wait=True)
        store_in(tmp_path / "three", vocabulary="x", architecture="y").save(content(9), kind="step", wait=True)
        assert store_in(tmp_path / "two", vocabulary="cd34").newest() is None
        said = capsys.readouterr().err
        assert f"{tmp_path / 'one'} (and 1 more beside it) holds step 7 of another run" in said
        assert said.endswith("they differ in vocabulary: ab12 there, cd34 here\n")


def entries(*made: tuple[int, str, float | None]) -> list[Entry]:
    return [
        Entry(path=Path(f"{n}"), number=n, step=step, kind=kind, score=score, identity={}, files={})  # type: ignore[arg-type]
        for n, (step, kind, score) in enumerate(made, 1)
    ]


class TestRetention:
    @pytest.mark.parametrize(
        ("last", "best", "stay"),
        [(2, 0, [10, 30, 40, 50, 60]), (1, 0, [10, 30, 40, 60]), (2, 1, [0, 10, 30, 40, 50, 60]), (9, 0, None)],
    )
    def test_last_best_milestones_and_what_a_rollback_needs(self, last: int, best: int, stay: list[int] | None) -> None:
        made = entries(
            (0, "step", 1.0),
            (10, "milestone", 3.0),
            (20, "step", 2.0),
            (30, "step", None),
            (40, "step", math.nan),
            (50, "time", None),
            (60, "time", None),
        )
        gone = {entry.step for entry in surplus(made, Retention(keep_last=last, keep_best=best))}
        assert [entry.step for entry in made if entry.step not in gone] == (stay or [e.step for e in made])

    def test_a_step_that_was_written_again_counts_once(self) -> None:
        made = entries((10, "step", None), (20, "step", None), (20, "step", None), (21, "time", None))
        assert [entry.number for entry in surplus(made, Retention(keep_last=1, keep_best=0))] == [2]

    @given(
        st.lists(
            st.tuples(st.sampled_from(["time", "step", "milestone", "final"]), st.none() | st.floats()), max_size=30
        ),
        st.integers(1, 5),
        st.integers(0, 5),
    )
    def test_the_number_is_bounded_and_the_newest_stays(self, made: list, last: int, best: int) -> None:
        all_of_them = entries(*[(step, kind, score) for step, (kind, score) in enumerate(made)])
        gone = {entry.number for entry in surplus(all_of_them, Retention(keep_last=last, keep_best=best))}
        stay = [entry for entry in all_of_them if entry.number not in gone]
        assert stay[-1:] == all_of_them[-1:]
        assert [e for e in stay if e.kind == "milestone"] == [e for e in all_of_them if e.kind == "milestone"]
        assert len([e for e in stay if e.kind != "milestone"]) <= last + best + 2

    def test_the_store_applies_it(self, tmp_path: Path) -> None:
        store = store_in(tmp_path, last=2, best=1)
        kinds = itertools.cycle(["step", "time"])
        for step, score in enumerate([5.0, 4.0, 1.0, 2.0, 3.0, 6.0, 7.0]):
            store.save(content(step), kind=next(kinds), score=score)  # type: ignore[arg-type]
            store.flush()
        assert [step for step, _ in saved(store)] == [2, 4, 5, 6]
        assert {path.name[:5] for path in tmp_path.iterdir()} == {"step-"}


def test_everything_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def spy_fsync(descriptor: int) -> None:
        done.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def spy_rename(self: Path, target: Path) -> Path:
        done.append(f"rename to {Path(target).name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "rename", spy_rename)
    store_in(tmp_path / "run").save(content(1), kind="step", wait=True)
    assert done == [
        "flush tensors.safetensors",
        "flush state.json",
        "flush manifest.json",
        "flush .step-00000001-000001.tmp",
        "rename to step-00000001-000001",
        "flush run",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_copied_from_once_through_pinned_memory(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    weight = torch.randn(1000, 1000, device="cuda")
    expected = weight.cpu()
    store.save(Checkpoint(step=1, tensors={"weight": weight}, state={}), kind="step")
    weight.zero_()
    found = store.newest()
    assert store._host["weight"].is_pinned()
    assert found is not None and found.tensors["weight"].equal(expected)
