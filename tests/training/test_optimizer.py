"""The optimisers against formulas written by hand in NumPy, and what decays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import PretrainingModel
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.params import AdamWParams, OptimizerParams, SgdParams

ADAMW = AdamWParams(kind="adamw", learning_rate=0.03, weight_decay=0.1, beta1=0.9, beta2=0.98, epsilon=1e-6)
SGD = SgdParams(kind="sgd", learning_rate=0.03, weight_decay=0.1, momentum=0.9, nesterov=False)


class Parts(nn.Module):
    """A matrix, which decays, and a bias, which does not."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4))
        self.bias = nn.Parameter(torch.linspace(-0.5, 0.5, 5, dtype=torch.float64))


def gradients(step: int) -> dict[str, np.ndarray]:
    """Of very different sizes from step to step, so that no term can be left out unseen."""
    rng = np.random.default_rng(step)
    return {"matrix": rng.normal(0, 3.0**-step, (3, 4)), "bias": rng.normal(0, 2.0 ** (step - 10), 5)}


def after_steps(params: OptimizerParams, steps: int) -> dict[str, np.ndarray]:
    model = Parts()
    optimizer = build_optimizer(model, params)
    for step in range(steps):
        for name, gradient in gradients(step).items():
            getattr(model, name).grad = torch.from_numpy(gradient)
        optimizer.step()
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def adamw_by_hand(params: AdamWParams, steps: int) -> dict[str, np.ndarray]:
    """Loshchilov & Hutter 2019, algorithm 2, with decay by rate times weight_decay as in PyTorch."""
    weights = {name: p.detach().numpy().copy() for name, p in Parts().named_parameters()}
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(steps):
        for name, g in gradients(step).items():
            t = step + 1
            first[name] = params.beta1 * first[name] + (1 - params.beta1) * g
            second[name] = params.beta2 * second[name] + (1 - params.beta2) * g**2
            mean, square = first[name] / (1 - params.beta1**t), second[name] / (1 - params.beta2**t)
            decay = params.weight_decay if name == "matrix" else 0.0
            update = mean / (np.sqrt(square) + params.epsilon) + decay * weights[name]
            weights[name] = weights[name] - params.learning_rate * update
    return weights


def sgd_by_hand(params: SgdParams, steps: int) -> dict[str, np.ndarray]:
    weights = {name: p.detach().numpy().copy() for name, p in Parts().named_parameters()}
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(steps):
        for name, raw in gradients(step).items():
            g = raw + (params.weight_decay if name == "matrix" else 0.0) * weights[name]
            velocity[name] = params.momentum * velocity[name] + g
            ahead = g + params.momentum * velocity[name] if params.nesterov else velocity[name]
            weights[name] = weights[name] - params.learning_rate * ahead
    return weights


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_adamw_is_the_formula_with_bias_correction(steps: int) -> None:
    made, expected = after_steps(ADAMW, steps), adamw_by_hand(ADAMW, steps)
    for name, weights in expected.items():
        np.testing.assert_allclose(made[name], weights, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_is_the_formula(momentum: float, nesterov: bool) -> None:
    if nesterov and not momentum:
        with pytest.raises(ValidationError, match="nesterov is true and momentum 0"):
            SgdParams(**SGD.model_dump() | {"momentum": momentum, "nesterov": nesterov})
        return
    params = SgdParams(**SGD.model_dump() | {"momentum": momentum, "nesterov": nesterov})
    made, expected = after_steps(params, 20), sgd_by_hand(params, 20)
    for name, weights in expected.items():
        np.testing.assert_allclose(made[name], weights, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("params", [ADAMW, SGD])
def test_matrices_and_embeddings_decay_biases_and_norms_do_not(params: OptimizerParams) -> None:
    model = PretrainingModel(
        EncoderConfig(vocab_size=20, hidden_size=8, layers=2, heads=2, feed_forward_size=16, max_positions=8)
    )
    for p in model.encoder.layers[0].qkv.parameters():
        p.requires_grad_(False)
    optimizer = build_optimizer(model, params)
    names = {id(p): name for name, p in model.named_parameters()}
    decays, rests = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert decays | rests == trained and not decays & rests
    norms = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for part in ("weight", "bias")
    }
    assert rests == {name for name in trained if name.endswith("bias") or name in norms}
    assert norms & rests and {name for name in trained if "embedding" in name and name not in norms} <= decays


def test_groups_by_rate_begin_with_the_largest_and_hold_every_parameter_once() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.LayerNorm(4))
    factors = {"0": 0.5, "1": 1.0, "2": 0.5}
    optimizer = build_optimizer(model, ADAMW, rates=lambda name: factors[name.split(".")[0]])
    names = {id(p): name for name, p in model.named_parameters()}
    made = [
        (group["lr"], group["weight_decay"], [names[id(p)] for p in group["params"]])
        for group in optimizer.param_groups
    ]
    assert made == [
        (0.03, 0.1, ["1.weight"]),
        (0.015, 0.1, ["0.weight"]),
        (0.015, 0.0, ["0.bias", "2.weight", "2.bias"]),
    ]


@pytest.mark.parametrize("params", [ADAMW, SGD])
def test_a_parameter_without_gradient_stays_and_begins_later_as_if_it_were_new(params: OptimizerParams) -> None:
    """Gradual unfreezing: no decay, no moments and no count of steps before the first gradient."""
    late, new = Parts(), Parts()
    optimizers = [build_optimizer(model, params) for model in (late, new)]
    for step in range(5):
        late.bias.grad = torch.from_numpy(gradients(step)["bias"])
        optimizers[0].step()
        assert torch.equal(late.matrix, Parts().matrix) and late.matrix not in optimizers[0].state
    for step in range(5, 9):
        for model, optimizer in zip((late, new), optimizers, strict=True):
            model.matrix.grad = torch.from_numpy(gradients(step)["matrix"])
            model.bias.grad = None
            optimizer.step()
    assert torch.equal(late.matrix, new.matrix) and not torch.equal(late.matrix, Parts().matrix)
