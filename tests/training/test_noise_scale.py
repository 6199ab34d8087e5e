"""The noise scale against problems whose noise scale is known."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_runs as toy
from torch import nn

from bert_ops.training.loop import train
from bert_ops.training.noise_scale import NoiseScale
from bert_ops.training.params import ClippingParams, ConstantSchedule, NoiseScaleBatch
from bert_ops.training.run_log import LOG_NAME, read_log

#: Entries of the gradient, and tokens of the two batches.
SIZE, SMALL, BIG = 400, 64, 512


def squares(
    rng: np.random.Generator, *, signal: float, noise: float, small: int = SMALL, big: int = BIG
) -> tuple[float, float]:
    """Squared norms of the mean gradient over a batch and over a part of it.

    A token's gradient is G + e with |G|² = signal and tr cov(e) = noise; means over n tokens have 1/n of it.
    """
    true = np.full(SIZE, math.sqrt(signal / SIZE))
    spread = math.sqrt(noise / SIZE)
    part = rng.normal(0, spread / math.sqrt(small), SIZE)
    rest = rng.normal(0, spread / math.sqrt(big - small), SIZE)
    whole = (small * part + (big - small) * rest) / big
    return float(np.sum((true + part) ** 2)), float(np.sum((true + whole) ** 2))


def run(seed: int, *, steps: int, signal: float, noise: float, smoothing: float) -> NoiseScale:
    rng = np.random.default_rng(seed)
    estimate = NoiseScale(smoothing=smoothing)
    for _ in range(steps):
        small, big = squares(rng, signal=signal, noise=noise)
        estimate.update(small_square=small, big_square=big, small_tokens=SMALL, big_tokens=BIG)
    return estimate


@pytest.mark.parametrize("scale", [50.0, 512.0, 5000.0])
def test_the_estimate_is_the_noise_scale(scale: float) -> None:
    signal = 2.5
    found = [run(seed, steps=1500, signal=signal, noise=scale * signal, smoothing=0.998).value() for seed in range(6)]
    assert all(value is not None and math.isfinite(value) for value in found)
    assert statistics.mean(found) == pytest.approx(scale, rel=0.05)
    assert all(value == pytest.approx(scale, rel=0.2) for value in found)


def test_the_two_averages_are_unbiased() -> None:
    """Means over many independent single steps, each within four standard errors."""
    signal, noise, rng = 2.0, 600.0, np.random.default_rng(11)
    signals, noises = [], []
    for _ in range(3000):
        estimate = NoiseScale(smoothing=0.5)
        small, big = squares(rng, signal=signal, noise=noise)
        estimate.update(small_square=small, big_square=big, small_tokens=SMALL, big_tokens=BIG)
        signals.append(estimate.signal / 0.5)  # undo the average that began at zero
        noises.append(estimate.noise / 0.5)
    for found, true in ((signals, signal), (noises, noise)):
        error = statistics.stdev(found) / math.sqrt(len(found))
        assert abs(statistics.mean(found) - true) < 4 * error
        assert error < 0.02 * true


def test_it_does_not_depend_on_the_batch_it_is_measured_with() -> None:
    signal, scale, rng = 1.0, 800.0, np.random.default_rng(3)
    estimate = NoiseScale(smoothing=0.999)
    for step in range(3000):
        small, big = (32, 128) if step % 2 else (256, 2048)
        pair = squares(rng, signal=signal, noise=scale * signal, small=small, big=big)
        estimate.update(small_square=pair[0], big_square=pair[1], small_tokens=small, big_tokens=big)
    assert estimate.value() == pytest.approx(scale, rel=0.15)


def test_the_gradients_of_a_linear_model_have_their_noise_scale() -> None:
    """Real gradients: least squares on y = w·x + e, where G and the covariance follow from the moments of x and e."""
    rng, width, tokens = np.random.default_rng(8), 20, 256
    weights = rng.normal(0, 0.3, width)
    # Gradient at zero of (y - 0·x)²/2 is -x y: mean -w, and covariance trace E|x|²y² - |w|².
    square = weights @ weights
    trace = (width + 2) * square + width * 1.0 - square
    estimate = NoiseScale(smoothing=0.998)
    for _ in range(2500):
        x = rng.normal(size=(tokens, width))
        y = x @ weights + rng.normal(size=tokens)
        gradients = -x * y[:, None]
        small, big = gradients[:64].mean(0), gradients.mean(0)
        estimate.update(small_square=small @ small, big_square=big @ big, small_tokens=64, big_tokens=tokens)
    assert estimate.value() == pytest.approx(trace / square, rel=0.15)


@pytest.mark.parametrize("units", [2, 5])
def test_the_loop_compares_the_first_unit_of_a_step_with_the_whole(tmp_path: Path, units: int) -> None:
    """Least squares at weights that a tiny rate keeps, so that a unit's gradient can be told beforehand: -2 x y."""
    growth = NoiseScaleBatch(
        kind="noise_scale",
        min_tokens=units * toy.UNIT_ROWS,
        every_steps=1,
        smoothing=0.9,
        factor=1.0,
        rate_scaling="none",
    )
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    steps = 40
    plan = toy.plan(
        tmp_path,
        total_steps=steps,
        batch=toy.batch(units, growth=growth),
        clipping=ClippingParams(norm=0.5, value=None),  # the gradient is measured before it is clipped
        schedule=ConstantSchedule(kind="constant", warmup_steps=0),
        evaluate_at=lambda _: False,
    )
    train(plan, model, torch.optim.SGD(model.parameters(), lr=1e-12))
    expected = NoiseScale(smoothing=0.9)
    for step in range(steps - 1):  # a step's line tells what was known before it
        x = [toy.rows_of(step * units + number).x.double().numpy() for number in range(units)]
        small, big = (-2 * (part * part.sum(1)[:, None]).mean(0) for part in (x[0], np.concatenate(x)))
        expected.update(
            small_square=small @ small, big_square=big @ big, small_tokens=len(x[0]), big_tokens=units * len(x[0])
        )
    last = [record for record in read_log(tmp_path / LOG_NAME) if record["event"] == "step"][-1]
    assert last["step"] == steps
    assert last["noise_scale"] == pytest.approx(expected.value(), rel=1e-4)


def test_nothing_is_said_before_the_averages_look_back_far_enough() -> None:
    assert NoiseScale(smoothing=0.9).value() is None
    assert run(0, steps=19, signal=1.0, noise=100.0, smoothing=0.95).value() is None
    assert run(0, steps=20, signal=1.0, noise=100.0, smoothing=0.95).value() is not None


def test_a_gradient_lost_in_noise_has_a_scale_beyond_telling() -> None:
    estimate = NoiseScale(smoothing=0.5)
    for _ in range(5):
        # Half of the tokens give twice the square: all noise, and a little more.
        estimate.update(small_square=2.1, big_square=1.0, small_tokens=100, big_tokens=200)
    assert estimate.signal < 0 < estimate.noise
    assert estimate.value() == math.inf


def test_gradients_that_agree_have_no_noise() -> None:
    estimate = NoiseScale(smoothing=0.5)
    for _ in range(5):
        estimate.update(small_square=1.0, big_square=1.5, small_tokens=100, big_tokens=200)
    assert estimate.value() == 0.0


@pytest.mark.parametrize(
    "step",
    [
        {"small_square": math.nan, "big_square": 1.0, "small_tokens": 10, "big_tokens": 20},
        {"small_square": 2.0, "big_square": math.inf, "small_tokens": 10, "big_tokens": 20},
        {"small_square": 2.0, "big_square": 1.0, "small_tokens": 20, "big_tokens": 20},
        {"small_square": 2.0, "big_square": 1.0, "small_tokens": 21, "big_tokens": 20},
    ],
)
def test_a_step_that_tells_nothing_changes_nothing(step: dict[str, float]) -> None:
    estimate = run(0, steps=50, signal=1.0, noise=100.0, smoothing=0.9)
    before = estimate.state()
    estimate.update(**step)
    assert estimate.state() == before


@pytest.mark.parametrize("stop", [0, 1, 13, 49])
def test_a_restored_estimate_goes_on_bit_for_bit(stop: int) -> None:
    rng = np.random.default_rng(stop)
    steps = [squares(rng, signal=1.0, noise=300.0) for _ in range(50)]
    whole, resumed = NoiseScale(smoothing=0.93), run(4, steps=7, signal=9.0, noise=2.0, smoothing=0.93)
    for number, (small, big) in enumerate(steps):
        if number == stop:
            resumed.restore(json.loads(json.dumps(whole.state(), allow_nan=False)))
        for estimate in (whole, resumed):
            estimate.update(small_square=small, big_square=big, small_tokens=SMALL, big_tokens=BIG)
    assert resumed.state() == whole.state()
    assert resumed.value() == whole.value() is not None
