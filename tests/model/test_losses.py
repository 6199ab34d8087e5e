"""The one-pass loss equals torch's, value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bert_ops.model.losses import summed_cross_entropy


def logits(rows: int, classes: int, *, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + classes)
    return torch.randn(rows, classes, generator=generator, dtype=torch.float64) * scale


@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (7, 50), (30, 1000)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_value_and_gradient_are_those_of_torch(rows: int, classes: int, scale: float) -> None:
    targets = torch.arange(rows) % classes
    ours = logits(rows, classes, scale=scale).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    loss, expected = summed_cross_entropy(ours, targets), F.cross_entropy(theirs, targets, reduction="sum")
    (loss * 0.37).backward()
    (expected * 0.37).backward()
    assert torch.allclose(loss, expected, rtol=1e-12)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)


def test_bfloat16_logits_give_a_float32_loss() -> None:
    rough = logits(20, 300).bfloat16().requires_grad_()
    targets = torch.arange(20)
    loss = summed_cross_entropy(rough, targets)
    loss.backward()
    assert loss.dtype == torch.float32 and rough.grad.dtype == torch.bfloat16
    assert torch.allclose(loss, F.cross_entropy(rough.detach().float(), targets, reduction="sum"), rtol=1e-6)


def test_a_hopeless_target_is_finite_and_still_pulls() -> None:
    far = torch.tensor([[0.0, 500.0]], requires_grad=True)
    loss = summed_cross_entropy(far, torch.tensor([0]))
    loss.backward()
    assert torch.isfinite(loss) and loss > 80
    assert torch.equal(far.grad, torch.tensor([[-1.0, 1.0]]))


def test_no_row_costs_nothing() -> None:
    empty = torch.zeros(0, 5, requires_grad=True)
    loss = summed_cross_entropy(empty, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert float(loss.detach()) == 0.0 and empty.grad.shape == (0, 5)
