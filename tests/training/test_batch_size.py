"""The controllers of the batch: what a step takes, how it grows, and what is refused."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from bert_ops.errors import InputError
from bert_ops.training.batch_size import BatchSize, smallest_step
from bert_ops.training.params import BatchParams, ConstantBatch, NoiseScaleBatch, RampBatch

UNIT = 128


def params(tokens: int = 64 * UNIT, *, micro: int | str = UNIT, growth: Any = None) -> BatchParams:
    return BatchParams(tokens=tokens, micro_tokens=micro, growth=growth or ConstantBatch(kind="constant"))


def ramp(start: int = 8 * UNIT, steps: int = 100, scaling: str = "none") -> RampBatch:
    return RampBatch(kind="ramp", start_tokens=start, steps=steps, rate_scaling=scaling)


def noise(least: int = 8 * UNIT, every: int = 10, factor: float = 1.0, scaling: str = "none") -> NoiseScaleBatch:
    return NoiseScaleBatch(
        kind="noise_scale", min_tokens=least, every_steps=every, smoothing=0.9, factor=factor, rate_scaling=scaling
    )


def test_a_constant_batch_never_changes() -> None:
    batch = BatchSize(params(), unit_tokens=UNIT, world=2)
    assert {batch.units(step) for step in range(100)} == {64}
    assert all(batch.observe(math.inf, step) is None for step in range(1, 100))
    assert {batch.rate_scale(step) for step in range(100)} == {1.0}


def test_one_unit_is_a_step_of_any_size() -> None:
    for tokens in (1, 8, 1000):
        batch = BatchSize.of_one_unit(tokens)
        assert batch.units(0) == batch.units(10**6) == 1 and batch.rate_scale(5) == 1.0


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_a_ramp_goes_in_a_line_to_the_whole_batch(world: int, steps: int) -> None:
    batch = BatchSize(params(growth=ramp(steps=steps)), unit_tokens=UNIT, world=world)
    units = [batch.units(step) for step in range(steps + 50)]
    assert units[0] == 8 and set(units[steps:]) == {64}
    assert units == sorted(units)
    for step, found in enumerate(units):
        line = 8 + min(1.0, step / steps) * (64 - 8)
        assert found % world == 0 and abs(found - line) <= world / 2


def test_a_ramp_says_from_which_batch_it_grew() -> None:
    batch = BatchSize(params(growth=ramp(steps=20)), unit_tokens=UNIT, world=1)
    seen = batch.units(0)
    for step in range(1, 40):
        before = batch.observe(None, step)
        assert before == (seen * UNIT if batch.units(step) != seen else None)
        seen = batch.units(step)


@pytest.mark.parametrize("growth", [ramp(), noise()])
@pytest.mark.parametrize("scaling", ["none", "sqrt", "linear"])
def test_the_rate_follows_the_batch(growth: Any, scaling: str) -> None:
    growth = growth.model_copy(update={"rate_scaling": scaling})
    batch = BatchSize(params(growth=growth), unit_tokens=UNIT, world=1)
    expected = {"none": 1.0, "sqrt": math.sqrt(8 / 64), "linear": 8 / 64}[scaling]
    assert batch.rate_scale(0) == pytest.approx(expected)
    if isinstance(growth, RampBatch):
        assert batch.rate_scale(100) == batch.rate_scale(10**6) == 1.0


def test_the_batch_follows_the_noise_scale_within_its_bounds_by_halves_and_doubles() -> None:
    batch = BatchSize(params(growth=noise(every=1, factor=2.0)), unit_tokens=UNIT, world=1)
    assert batch.units(0) == 8

    def after(scale: float) -> int:
        batch.observe(scale, 1)
        return batch.units(1)

    assert after(100 * UNIT) == 16  # wants 200, may double
    assert after(12 * UNIT) == 24  # wants 24
    assert after(1e300) == 48
    assert after(math.inf) == 64  # the whole batch
    assert after(math.inf) == 64
    assert after(0.0) == 32
    assert after(10 * UNIT) == 20
    assert after(0.0) == 10
    assert after(0.0) == 8  # the smallest
    assert after(0.0) == 8


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_noise_gives_a_batch_that_processes_share_evenly(world: int) -> None:
    rng = random.Random(world)
    growth = noise(least=24 * UNIT, every=1)
    batch = BatchSize(params(tokens=96 * UNIT, growth=growth), unit_tokens=UNIT, world=world)
    for _ in range(500):
        before = batch.units(0)
        told = batch.observe(rng.choice([rng.uniform(0, 200 * UNIT), 0.0, math.inf, 1e-300]), 1)
        now = batch.units(0)
        assert now % world == 0 and 24 <= now <= 96
        assert before / 2 <= now <= 2 * before
        assert told == (None if now == before else before * UNIT)


def test_it_is_decided_only_every_so_many_steps_and_not_without_an_estimate() -> None:
    batch = BatchSize(params(growth=noise(every=10)), unit_tokens=UNIT, world=1)
    changed = [step for step in range(1, 41) if batch.observe(1e9, step) is not None]
    assert changed == [10, 20, 30] and batch.units(40) == 64
    assert all(batch.observe(None, step) is None for step in range(41, 100))
    assert batch.units(100) == 64


@pytest.mark.parametrize("growth", [None, ramp(steps=37), noise(every=3)])
def test_a_restored_batch_goes_on_the_same(growth: Any) -> None:
    rng = random.Random(4)
    scales = [rng.uniform(0, 100 * UNIT) for _ in range(60)]
    for stop in (0, 1, *rng.sample(range(60), 5)):
        whole = BatchSize(params(growth=growth), unit_tokens=UNIT, world=2)
        for step in range(stop):
            whole.observe(scales[step], step + 1)
        resumed = BatchSize(params(growth=growth), unit_tokens=UNIT, world=2)
        resumed.observe(1e9, 3)
        resumed.restore(json.loads(json.dumps(whole.state())))
        for step in range(stop, 60):
            assert resumed.units(step) == whole.units(step)
            assert resumed.rate_scale(step) == whole.rate_scale(step)
            assert resumed.observe(scales[step], step + 1) == whole.observe(scales[step], step + 1)


def test_a_batch_is_restored_with_another_number_of_processes() -> None:
    one = BatchSize(params(growth=noise(every=1)), unit_tokens=UNIT, world=1)
    one.observe(13 * UNIT, 1)
    assert one.units(1) == 13
    four = BatchSize(params(growth=noise(every=1)), unit_tokens=UNIT, world=4)
    four.restore(one.state())
    assert four.units(1) == 12
    # A step needs two passes of each process, whatever it was before.
    one.restore({"units": 8})
    four = BatchSize(params(growth=noise(least=16 * UNIT, every=1)), unit_tokens=UNIT, world=8)
    four.restore(one.state())
    assert four.units(1) == 16


@pytest.mark.parametrize(
    ("made", "world", "parts"),
    [
        (params(), 3, ["batch.tokens 8192", "no multiple of 384 (3 × 128 tokens a pass)", "384, 768"]),
        (
            params(micro=16 * UNIT, growth=ramp()),
            1,
            ["batch.growth.start_tokens is 1024", "1 × 2048 tokens", "micro_tokens of at most 1024", "at least 2048"],
        ),
        (
            params(micro=8 * UNIT, growth=noise()),
            1,
            ["batch.growth.min_tokens is 1024", "2 × 1024 tokens", "micro_tokens of at most 512", "at least 2048"],
        ),
        (
            params(micro=4 * UNIT, growth=noise()),
            2,
            ["min_tokens is 1024", "each of 2 processes are 2048", "at most 256"],
        ),
    ],
)
def test_a_batch_that_passes_cannot_make_is_refused(made: BatchParams, world: int, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        BatchSize(made, unit_tokens=int(made.micro_tokens), world=world)
    for part in [*parts, "remedy:"]:
        assert part in str(error.value)


def test_no_larger_start_is_offered_than_the_batch_has_room_for() -> None:
    made = params(tokens=1024, micro=1024, growth=noise(least=1024))
    with pytest.raises(InputError) as error:
        BatchSize(made, unit_tokens=1024, world=1)
    assert error.value.allowed == "batch.micro_tokens of at most 512"


def test_the_smallest_step_is_where_growth_begins() -> None:
    assert smallest_step(params()) == 64 * UNIT
    assert smallest_step(params(growth=ramp(start=1000))) == 1000
    assert smallest_step(params(growth=noise(least=2000))) == 2000
