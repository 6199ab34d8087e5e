"""The moving average of the weights: its formula, its place in a model, and going on from a copy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bert_ops.training.averaging import WeightAverage


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()


def move(made: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))


def values(made: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in made.named_parameters()}


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_formula(decay: float) -> None:
    made = model()
    average = WeightAverage(made, decay=decay)
    expected = values(made)
    for step in range(1, 60):
        move(made, step)
        average.update(made, step=step)
        keep = min(decay, (1 + step) / (10 + step))
        now = values(made)
        expected = {name: keep * old + (1 - keep) * now[name] for name, old in expected.items()}
        for name, tensor in average.tensors.items():
            np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-12, atol=1e-13)


def test_the_start_is_forgotten_early_however_slow_the_average() -> None:
    made = model()
    start = values(made)
    average = WeightAverage(made, decay=0.9999)
    with torch.no_grad():
        for p in made.parameters():
            p.zero_()
    for step in range(1, 31):
        average.update(made, step=step)
    # The share of the start is the product of (1 + s) / (10 + s), which is 10! · 31! / 40!.
    for name, tensor in average.tensors.items():
        assert np.abs(tensor.numpy()).max() <= 1e-7 * np.abs(start[name]).max()


def test_the_model_has_the_average_inside_the_block_only() -> None:
    made = model()
    average = WeightAverage(made, decay=0.9)
    move(made, 1)
    average.update(made, step=1)
    own, averaged = values(made), {name: tensor.numpy().copy() for name, tensor in average.tensors.items()}
    with pytest.raises(KeyboardInterrupt), average.applied(made):
        for name, value in values(made).items():
            assert np.array_equal(value, averaged[name])
            assert not np.array_equal(value, own[name])
        raise KeyboardInterrupt
    for name, value in values(made).items():
        assert np.array_equal(value, own[name])
    assert all(np.array_equal(tensor.numpy(), averaged[name]) for name, tensor in average.tensors.items())


def test_the_average_is_no_view_of_the_weights_and_needs_no_gradient() -> None:
    made = model()
    average = WeightAverage(made, decay=0.9)
    before = {name: tensor.clone() for name, tensor in average.tensors.items()}
    move(made, 1)
    assert all(torch.equal(average.tensors[name], tensor) for name, tensor in before.items())
    average.update(made, step=1)
    assert not any(tensor.requires_grad for tensor in average.tensors.values())


@pytest.mark.parametrize("stop", [0, 1, 17, 39])
def test_it_goes_on_from_a_copy_bit_for_bit(stop: int) -> None:
    made = model()
    whole = WeightAverage(made, decay=0.95)
    for step in range(1, stop + 1):
        move(made, step)
        whole.update(made, step=step)
    resumed = WeightAverage(model(seed=9), decay=0.95)
    resumed.tensors = {name: tensor.clone() for name, tensor in whole.tensors.items()}
    for step in range(stop + 1, 41):
        move(made, step)
        whole.update(made, step=step)
        resumed.update(made, step=step)
    assert all(torch.equal(resumed.tensors[name], tensor) for name, tensor in whole.tensors.items())


def test_a_tied_weight_is_averaged_once() -> None:
    made = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    made[1].weight = made[0].weight
    average = WeightAverage(made, decay=0.5)
    assert set(average.tensors) == {"0.weight", "0.bias", "1.bias"}
    before = made[0].weight.detach().clone()
    with torch.no_grad():
        made[0].weight.add_(1.0)
    average.update(made, step=100)
    torch.testing.assert_close(average.tensors["0.weight"], before + 0.5)


def test_what_is_frozen_takes_no_memory_and_stays_as_it_is() -> None:
    made = model()
    made[0].requires_grad_(False)
    average = WeightAverage(made, decay=0.5)
    assert set(average.tensors) == {"1.weight", "1.bias", "2.weight", "2.bias"}
    frozen = made[0].weight.detach().clone()
    made[1].requires_grad_(False)  # for now: it was trained when the run began
    with torch.no_grad():
        made[1].weight.add_(1.0)
    average.update(made, step=100)
    torch.testing.assert_close(average.tensors["1.weight"], torch.full((4,), 1.5, dtype=torch.float64))
    with average.applied(made):
        assert torch.equal(made[0].weight, frozen) and torch.equal(made[1].weight, average.tensors["1.weight"])
