"""Clipping by value and by norm, against PyTorch's own; what is not finite; the bound that a log speaks for."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from bert_ops.training.clipping import clip, suggest_bound, total_norm
from bert_ops.training.params import ClippingParams


def parameters(seed: int = 0, *, scale: float = 1.0) -> list[nn.Parameter]:
    """Three with gradients and one without."""
    generator = torch.Generator().manual_seed(seed)
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2, 2))]
    for p in made:
        p.grad = scale * torch.randn(p.shape, generator=generator)
    return [*made, nn.Parameter(torch.zeros(2))]


def flat(made: list[nn.Parameter]) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in made if p.grad is not None])


def norm_by_hand(made: list[nn.Parameter]) -> float:
    return math.sqrt(math.fsum(float(x) ** 2 for x in flat(made).double()))


@pytest.mark.parametrize("bound", [0.1, 1.0, 100.0])
def test_the_norm_is_bounded_as_pytorch_does(bound: float) -> None:
    made, reference = parameters(), parameters()
    before = norm_by_hand(made)
    norm, clipped = clip(made, ClippingParams(norm=bound, value=None))
    expected = nn.utils.clip_grad_norm_(reference, bound)
    assert norm == float(expected) == pytest.approx(before, rel=1e-6)
    assert clipped == (before > bound)
    assert torch.equal(flat(made), flat(reference))
    assert norm_by_hand(made) == pytest.approx(min(before, bound), rel=1e-5)
    assert made[-1].grad is None


@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_values_are_bounded_as_pytorch_does(bound: float) -> None:
    made, reference = parameters(), parameters()
    before, largest = norm_by_hand(made), float(flat(made).abs().max())
    norm, clipped = clip(made, ClippingParams(norm=None, value=bound))
    nn.utils.clip_grad_value_(reference, bound)
    assert norm == pytest.approx(before, rel=1e-6)
    assert clipped == (largest > bound)
    assert torch.equal(flat(made), flat(reference))


def test_values_are_bounded_first_and_the_norm_of_what_is_left_then() -> None:
    made, reference = parameters(), parameters()
    before = norm_by_hand(made)
    norm, clipped = clip(made, ClippingParams(norm=1.0, value=0.5))
    nn.utils.clip_grad_value_(reference, 0.5)
    nn.utils.clip_grad_norm_(reference, 1.0)
    assert clipped and norm == pytest.approx(before, rel=1e-6)
    assert torch.equal(flat(made), flat(reference))
    # Where bounded values bring the norm below its bound, nothing more is done.
    made, reference = parameters(), parameters()
    clip(made, ClippingParams(norm=3.0, value=0.5))
    nn.utils.clip_grad_value_(reference, 0.5)
    assert norm_by_hand(reference) < 3.0 < before
    assert torch.equal(flat(made), flat(reference))


def test_without_bounds_only_the_norm_is_told() -> None:
    made = parameters()
    kept = flat(made).clone()
    assert clip(made, ClippingParams(norm=None, value=None)) == (float(total_norm(made)), False)
    assert torch.equal(flat(made), kept)


@pytest.mark.parametrize(
    ("bad", "norm", "value"), list(product([math.nan, math.inf, -math.inf], [None, 1.0], [None, 0.5]))
)
def test_a_gradient_that_is_not_finite_is_left_as_it_is(bad: float, norm: float | None, value: float | None) -> None:
    made = parameters()
    assert made[1].grad is not None
    made[1].grad[2] = bad
    kept = flat(made).clone()
    found, clipped = clip(made, ClippingParams(norm=norm, value=value))
    assert not math.isfinite(found) and not clipped
    assert torch.equal(flat(made).nan_to_num(nan=7.0), kept.nan_to_num(nan=7.0))


def test_no_gradient_has_no_norm_and_a_zero_one_stays_zero() -> None:
    bare = [nn.Parameter(torch.zeros(2))]
    assert clip(bare, ClippingParams(norm=1.0, value=1.0)) == (0.0, False)
    zero = parameters(scale=0.0)
    assert clip(zero, ClippingParams(norm=1.0, value=1.0)) == (0.0, False)
    assert not flat(zero).any()


def test_the_norm_of_several_processes_can_be_measured_by_the_caller() -> None:
    made = parameters()
    kept = flat(made).clone()
    norm, clipped = clip(made, ClippingParams(norm=2.0, value=None), norm=lambda p: 4 * total_norm(p))
    assert clipped and norm == pytest.approx(4 * float(kept.norm()))
    torch.testing.assert_close(flat(made), kept * 2.0 / norm)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_suggested_bound_leaves_nine_of_ten_steps_alone(scale: float) -> None:
    norms = scale * np.random.default_rng(5).lognormal(0, 0.5, 5000)
    spikes = [1000 * scale] * 20
    bound = suggest_bound([*norms, *spikes, math.nan, math.inf, 0.0])
    assert bound is not None
    assert np.mean(norms > bound) == pytest.approx(0.1, abs=0.03)
    assert bound == float(f"{bound:.1e}")  # two digits


def test_nothing_is_suggested_without_norms() -> None:
    assert suggest_bound([]) is None
    assert suggest_bound([math.nan, math.inf, 0.0]) is None
    assert suggest_bound([0.123]) == 0.12
