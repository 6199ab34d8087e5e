"""The encoder's options; packing, recomputation and half precision change what they should and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bert_ops.model import attention
from bert_ops.model.attention import Pattern, attend
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import PretrainingModel

CONFIG = EncoderConfig(
    vocab_size=61, hidden_size=32, layers=2, heads=4, feed_forward_size=48, max_positions=24, initializer_range=0.2
)
OPTIONS = [
    {},
    {"positions": "rotary"},
    {"norm": "pre"},
    {"activation": "relu"},
    {"positions": "rotary", "norm": "pre", "activation": "relu"},
]


def build(**changes) -> PretrainingModel:
    torch.manual_seed(4)
    model = PretrainingModel(replace(CONFIG, **changes)).double().eval()
    model.encoder.compute_dtype = torch.float64
    return model


def packed() -> tuple[dict[str, Tensor], list[tuple[int, int, int]]]:
    """Two rows of 24 tokens: three examples in the first, one and padding in the second."""
    rng = np.random.default_rng(0)
    runs = [(0, 0, 5), (0, 5, 11), (0, 16, 8), (1, 0, 19)]
    ids, segments = torch.from_numpy(rng.integers(5, 61, (2, 24))), torch.from_numpy(rng.integers(0, 2, (2, 24)))
    positions, examples = torch.zeros(2, 24, dtype=torch.long), torch.zeros(2, 24, dtype=torch.int16)
    for number, (row, start, length) in enumerate(runs, 1):
        positions[row, start : start + length] = torch.arange(length)
        examples[row, start : start + length] = number
    return {"ids": ids, "segments": segments, "positions": positions, "examples": examples}, runs


@pytest.mark.parametrize("options", OPTIONS)
def test_packed_examples_score_as_each_alone(options: dict) -> None:
    model = build(**options)
    batch, runs = packed()
    cls = torch.tensor([row * 24 + start for row, start, _ in runs])
    with torch.no_grad():
        together, pairs = model(
            batch["ids"],
            batch["segments"],
            positions_BT=batch["positions"],
            pattern=Pattern(batch["examples"], longest=19),
            cls_E=cls,
        )
        for number, (row, start, length) in enumerate(runs):
            span = slice(start, start + length)
            alone, pair = model(batch["ids"][row : row + 1, span], batch["segments"][row : row + 1, span])
            assert torch.allclose(together[row, span], alone[0], atol=1e-12)
            assert torch.allclose(pairs[number], pair[0], atol=1e-12)


def gradients(model: PretrainingModel, *, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    batch, _ = packed()
    model.encoder.compute_dtype = dtype
    model.zero_grad()
    scores, _ = model(
        batch["ids"], batch["segments"], positions_BT=batch["positions"], pattern=Pattern(batch["examples"], longest=19)
    )
    torch.nn.functional.cross_entropy(scores.flatten(0, 1).double(), batch["ids"].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", OPTIONS)
def test_recomputing_layers_gives_the_same_gradients(options: dict) -> None:
    model = build(**options).train()
    kept = gradients(model)
    model.encoder.recompute_layers = True
    again = gradients(model)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_bfloat16_gradients_point_where_double_ones_do() -> None:
    model = build().train()
    exact = gradients(model)
    model.float()
    rough = gradients(model, dtype=torch.bfloat16)
    assert all(grad.dtype == torch.float32 for grad in rough.values())
    flat = [torch.cat([grads[name].double().flatten() for name in exact]) for grads in (exact, rough)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.999


@pytest.mark.parametrize("examples", [None, [[1, 1, 2, 2, 0], [1, 1, 1, 1, 1]]])
def test_attention_has_the_derivative_of_its_formula(examples: list | None) -> None:
    pattern = Pattern(None if examples is None else torch.tensor(examples))
    x = torch.randn(2, 5, 3, 2, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda qkv: attend(qkv, pattern, dropout=0.0), (x,))
    query, key, value = x.permute(2, 0, 3, 1, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=pattern.mask_B1TT)
    assert torch.allclose(attend(x, pattern, dropout=0.0), expected.transpose(1, 2).reshape(2, 5, 8), atol=1e-12)


def test_attention_weights_are_dropped_in_training() -> None:
    x = torch.randn(2, 5, 3, 2, 4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    one = attend(x, Pattern(), dropout=0.5)
    torch.manual_seed(0)
    assert torch.equal(one, attend(x, Pattern(), dropout=0.5))
    assert not torch.allclose(one, attend(x, Pattern(), dropout=0.0))


def test_rotary_scores_depend_on_distances_alone() -> None:
    model = build(positions="rotary")
    batch, _ = packed()
    ids, segments = batch["ids"][:1, :10], batch["segments"][:1, :10]
    positions = torch.arange(10)[None]
    with torch.no_grad():
        near = model.encoder(ids, segments, positions_BT=positions)
        far = model.encoder(ids, segments, positions_BT=positions + 7)
        stretched = model.encoder(ids, segments, positions_BT=positions * 2)
    assert torch.allclose(near, far, atol=1e-4)  # angles are float32
    assert not torch.allclose(near, stretched, atol=1e-2)


@pytest.mark.parametrize("options", OPTIONS[1:])
def test_each_option_changes_the_result(options: dict) -> None:
    batch, _ = packed()
    with torch.no_grad():
        plain, _ = build()(batch["ids"], batch["segments"])
        other, _ = build(**options)(batch["ids"], batch["segments"])
    assert not torch.allclose(plain, other, atol=1e-3)


def test_the_gpu_kernel_is_called_with_the_bounds_of_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU here: a stand-in computes what the kernel documents, run by run, and the result has to be the CPU's."""

    def reference(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, bounds_k: Tensor, most: int, most_k: int):
        assert bounds.dtype == torch.int32 and torch.equal(bounds, bounds_k)
        assert query.shape == (48, 4, 8) and most == most_k == int(bounds.diff().max())
        runs = []
        for start, stop in zip(bounds.tolist(), bounds[1:].tolist(), strict=False):
            parts = [part[start:stop].transpose(0, 1) for part in (query, key, value)]
            runs.append(torch.nn.functional.scaled_dot_product_attention(*parts).transpose(0, 1))
        return torch.cat(runs)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference)
    batch, _ = packed()
    bounds = torch.tensor([0, 5, 16, 24, 43, 48], dtype=torch.int32)
    pattern = Pattern(batch["examples"], bounds=bounds, longest=19)
    qkv = torch.randn(2, 24, 3, 4, 8, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(attention._varlen(qkv, pattern), attend(qkv, pattern, dropout=0.0), atol=1e-12)
