"""Rows of a pass: as given, or the most that fit, found once and remembered by the run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bert_ops.errors import ArtifactError, InputError
from bert_ops.model.heads import PretrainingModel
from bert_ops.pretrain import fitting, micro_batch, stage
from bert_ops.pretrain.micro_batch import CPU_TOKENS, FILE, possible_rows, rows_of_a_unit, useful_rows
from bert_ops.pretrain.params import PretrainParams
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training.memory import largest_micro_batch
from bert_ops.training.workers import Workers

CPU = torch.device("cpu")
T = 16
RAMP = {"kind": "ramp", "start_tokens": 8 * T, "steps": 10, "rate_scaling": "none"}
NOISE = {
    "kind": "noise_scale",
    "min_tokens": 8 * T,
    "every_steps": 5,
    "smoothing": 0.9,
    "factor": 1.0,
    "rate_scaling": "none",
}


@pytest.fixture
def section(params: dict) -> Any:
    """Make the section with another batch."""

    def made(
        *, rows: int = 48, micro: int | str = "auto", growth: dict | None = None, **changes: Any
    ) -> PretrainParams:
        value = dict(params["pretrain"]) | {"sequence_tokens": T, "precision": "float32"} | changes
        value["batch"] = {"tokens": rows * T, "micro_tokens": micro, "growth": growth or {"kind": "constant"}}
        return PretrainParams.model_validate(value)

    return made


def model(params: PretrainParams) -> PretrainingModel:
    torch.manual_seed(0)
    return PretrainingModel(params.model.config(vocab_size=50))


def never(*_: Any, **__: Any) -> int:
    raise AssertionError("memory is searched again")


class Several(Workers):
    """One of three processes; the others found 5 and 16 rows."""

    rank, world = 1, 3

    def sum(self, figures: Mapping[str, float]) -> dict[str, float]:
        assert figures["0"] == figures["2"] == 0
        return dict(figures) | {"0": 5.0, "2": 16.0}


def test_a_number_is_taken_as_it_stands(section: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batch, "largest_micro_batch", never)
    params = section(micro=4 * T)
    assert rows_of_a_unit(model(params), params, workers=Workers(CPU), folder=tmp_path) == 4
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("growth", "world", "expected"),
    [
        (None, 1, [1, 2, 3, 4, 6, 8, 12, 16, 24, 48]),
        (None, 2, [1, 2, 3, 4, 6, 8, 12, 24]),
        (None, 48, [1]),
        # A ramp begins with one unit of each process, the noise scale with two.
        (RAMP, 1, [1, 2, 3, 4, 6, 8]),
        (RAMP, 4, [1, 2]),
        (NOISE, 1, [1, 2, 3, 4]),
        (NOISE, 4, [1]),
    ],
)
def test_steps_are_whole_units_of_every_process(section: Any, growth: Any, world: int, expected: list[int]) -> None:
    assert possible_rows(section(growth=growth), world=world) == expected


@pytest.mark.parametrize(
    ("growth", "world", "parts"),
    [
        (None, 5, ["pretrain.batch.tokens 768 are 48 rows, which 5 processes", "allowed: 80, 160"]),
        (None, 96, ["which 96 processes cannot share"]),
        (RAMP, 16, ["growth.start_tokens 128 has no room for 1 × 16 tokens for each of 16", "at least 256"]),
        (NOISE, 8, ["growth.min_tokens 128 has no room for 2 × 16", "at least 256"]),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(section: Any, growth: Any, world: int, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        possible_rows(section(growth=growth), world=world)
    for part in [*parts, "remedy:"]:
        assert part in str(error.value)


@pytest.mark.parametrize(("fits", "rows"), [(1, 1), (5, 4), (23, 16), (48, 48)])
def test_auto_takes_the_most_rows_that_fit_and_divide_the_batch(
    section: Any, monkeypatch: pytest.MonkeyPatch, fits: int, rows: int
) -> None:
    asked = {}
    monkeypatch.setattr(micro_batch, "largest_micro_batch", lambda _, **given: asked.update(given) or fits)
    params = section()
    assert rows_of_a_unit(model(params), params, workers=Workers(CPU), folder=None) == rows
    assert (asked["low"], asked["high"]) == (1, 48)


def test_on_a_cpu_a_pass_is_no_larger_than_its_threads_can_use(
    section: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = CPU_TOKENS // T
    params = section(rows=8 * rows, threads=2)
    assert useful_rows(params, world=1, device=CPU)[-1] == 2 * rows
    assert useful_rows(params, world=1, device=torch.device("cuda"))[-1] == 8 * rows
    assert useful_rows(section(rows=8 * rows, threads=64), world=1, device=CPU)[-1] == 8 * rows
    monkeypatch.setattr(micro_batch, "CPU_TOKENS", 1)
    assert useful_rows(params, world=1, device=CPU) == [1]
    assert rows_of_a_unit(model(params), params, workers=Workers(CPU), folder=None) == 1
    assert "more are no faster on a CPU" in capsys.readouterr().err


def test_auto_is_remembered_by_the_run(
    section: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params, folder = section(), tmp_path / "run"
    monkeypatch.setattr(micro_batch, "largest_micro_batch", lambda *_, **__: 13)
    assert rows_of_a_unit(model(params), params, workers=Workers(CPU), folder=folder) == 12
    assert "a pass reads 12 rows (192 tokens)" in capsys.readouterr().err
    monkeypatch.setattr(micro_batch, "largest_micro_batch", never)
    assert rows_of_a_unit(model(params), params, workers=Workers(CPU), folder=folder) == 12


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": 0}', '{"rows": true}', '{"rows": "8"}', "{}", "null"])
def test_a_damaged_memory_is_named(section: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    params = section()
    with pytest.raises(ArtifactError, match=r"micro_batch\.json"):
        rows_of_a_unit(model(params), params, workers=Workers(CPU), folder=tmp_path)


def test_all_processes_go_on_with_the_least_that_one_found(
    section: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}
    monkeypatch.setattr(micro_batch, "largest_micro_batch", lambda _, **given: asked.update(given) or 9)
    params = section()
    assert rows_of_a_unit(model(params), params, workers=Several(CPU), folder=tmp_path) == 4
    assert asked["high"] == 16 and asked["share"] == pytest.approx(0.8 / 3)
    assert not (tmp_path / FILE).exists()  # the first process writes it


@pytest.mark.parametrize("objective", ["nsp", "none"])
@pytest.mark.parametrize("fits", [5, 20])
def test_a_search_with_real_passes_leaves_the_model_as_it_was(
    section: Any, monkeypatch: pytest.MonkeyPatch, fits: int, objective: str
) -> None:
    """Passes are real, memory is made up: so much a row, as if the machine had room for a few."""
    params = section(sentence_objective=objective)
    made = model(params)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    sizes = []

    def search(probe: Any, **given: Any) -> int:
        def peak(work: Any) -> int:
            work()
            assert all(p.grad is not None for p in made.encoder.parameters())
            return 100 * sizes[-1]

        def counted(size: int) -> None:
            sizes.append(size)
            probe(size)

        room = round((100 * fits + given["reserved"]) / given["share"]) + 1
        return largest_micro_batch(counted, **given, used=lambda: 0, free=lambda: room, peak=peak)

    monkeypatch.setattr(micro_batch, "largest_micro_batch", search)
    rows = rows_of_a_unit(made, params, workers=Workers(CPU), folder=None)
    assert rows == {5: 4, 20: 16}[fits] and max(sizes) <= fits
    assert all(p.grad is None for p in made.parameters())
    assert all(torch.equal(p, before[name]) for name, p in made.named_parameters())


def test_a_search_on_this_machine_finds_that_a_small_batch_fits(section: Any) -> None:
    params = section(rows=4)
    assert rows_of_a_unit(model(params), params, workers=Workers(CPU), folder=None) == 4


def test_moments_and_the_copy_of_a_checkpoint_keep_their_room(section: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(micro_batch, "largest_micro_batch", lambda _, **given: asked.update(given) or 1)
    bare, averaged = section(), section(averaging={"decay": 0.9})
    made = model(bare)
    size = sum(p.nbytes for p in made.parameters())
    for params, copies in ((bare, 5), (averaged, 7)):
        rows_of_a_unit(made, params, workers=Workers(CPU), folder=None)
        assert asked["reserved"] == copies * size


def test_training_with_auto_is_training_with_the_number_that_it_finds(
    params: dict, tokens_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TokenStore.open(tokens_folder)
    weights = []
    for micro in ("auto", 96):
        value = dict(params["pretrain"]) | {"steps": 6}
        value["embedding_init"] = dict(value["embedding_init"]) | {"kind": "normal"}
        value["schedule"] = {"kind": "constant", "warmup_steps": 1}
        value["batch"] = dict(value["batch"]) | {"micro_tokens": micro}
        section = PretrainParams.model_validate(value)
        torch.manual_seed(5)
        made = fitting.build_model(store, section)
        held_out = fitting.held_out_units(store["validation"], section, store.vocab_size)

        def search(probe: Any, **_: Any) -> int:
            probe(1)
            probe(3)
            return 3

        monkeypatch.setattr(micro_batch, "largest_micro_batch", search)
        fitting.fit(made, store, section, held_out=held_out, probe=held_out)
        weights.append(torch.cat([p.detach().flatten() for p in made.parameters()]))
    assert torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"micro": 4 * T}, 5, "batch.tokens 768 is no multiple of 320"),
        ({"micro": 16 * T, "growth": RAMP}, 1, "start_tokens is 128"),
        ({}, 5, "which 5 processes cannot share"),
    ],
)
def test_what_no_run_can_have_is_refused_before_anything_is_built(
    section: Any, changes: dict, world: int, message: str
) -> None:
    micro_batch.check_steps(section(), world=1)
    with pytest.raises(InputError, match=message):
        micro_batch.check_steps(section(**changes), world=world)


def test_a_schedule_that_does_not_fit_is_refused_with_the_section(section: Any) -> None:
    with pytest.raises(ValidationError, match="decay_steps 99 exceeds"):
        section(schedule={"kind": "wsd", "warmup_steps": 1, "decay_steps": 99, "final_share": 0.0})


def test_the_stage_looks_at_the_steps_first(section: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "build_model", never)
    workers = Several(CPU)
    workers.world = 5
    with pytest.raises(InputError, match="which 5 processes cannot share"):
        stage.pretrain(Namespace(), section(), store=None, workers=workers)
