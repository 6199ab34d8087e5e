"""Model sizes: parameters and FLOPs counted from the architecture equal those of the module that is built."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bert_ops.errors import InputError
from bert_ops.model import sizes
from bert_ops.model.encoder import EncoderConfig, parameter_count
from bert_ops.model.heads import PretrainingModel


def config(**changes) -> EncoderConfig:
    values = {
        "vocab_size": 211,
        "hidden_size": 24,
        "layers": 3,
        "heads": 4,
        "feed_forward_size": 56,
        "max_positions": 40,
    }
    return EncoderConfig(**{**values, **changes})


ARCHITECTURES = [
    {"positions": positions, "norm": norm, "activation": activation, **shape}
    for positions, norm, activation in itertools.product(("learned", "rotary"), ("post", "pre"), ("gelu", "relu"))
    for shape in ({}, {"layers": 1, "hidden_size": 32, "feed_forward_size": 8, "segments": 3})
]


@pytest.mark.parametrize("changes", ARCHITECTURES)
def test_parameters_are_those_of_the_module(changes) -> None:
    with torch.device("meta"):
        model = PretrainingModel(config(**changes))
    counted = sizes.count_parameters(config(**changes))
    assert counted.total == parameter_count(model)
    assert counted.embedding == parameter_count(model.encoder.embeddings)
    assert counted.embedding + counted.encoder == parameter_count(model.encoder)


@pytest.mark.parametrize(
    ("name", "millions"), [("tiny", 4.4), ("mini", 11.3), ("small", 29.1), ("medium", 41.7), ("base", 110.1)]
)
def test_presets_have_the_published_sizes(name: str, millions: float) -> None:
    """google-research/bert, README, "24 smaller BERT models": parameters with the pooler, without the MLM head."""
    model = sizes.load_preset(name).config(vocab_size=30522)
    counted = sizes.count_parameters(model)
    D = model.hidden_size
    encoder_and_pooler = counted.embedding + counted.encoder + D * D + D
    assert encoder_and_pooler / 1e6 == pytest.approx(millions, rel=0.02)
    assert model.heads == D // 64 and model.feed_forward_size == 4 * D


@pytest.mark.parametrize("T", [16, 40])
@pytest.mark.parametrize("changes", [{}, {"norm": "pre"}, {"layers": 1, "hidden_size": 32, "heads": 2}])
def test_flops_are_those_of_the_real_module(T: int, changes) -> None:
    B, M = 3, 12
    torch.manual_seed(0)
    model = PretrainingModel(config(**changes))
    ids_BT = torch.randint(1, 200, (B, T))
    masked_M = torch.arange(M)
    with FlopCounterMode(display=False) as forward:
        mlm_MV, nsp_B2 = model(ids_BT, torch.zeros_like(ids_BT), None, masked_M)
    with FlopCounterMode(display=False) as backward:
        (mlm_MV.sum() + nsp_B2.sum()).backward()
    counted = sizes.flops_per_token(config(**changes), sequence_tokens=T, masked_share=M / (B * T))
    assert counted.forward * B * T == pytest.approx(forward.get_total_flops(), rel=1e-9)
    total = forward.get_total_flops() + backward.get_total_flops()
    assert counted.training * B * T == pytest.approx(total, rel=1e-9)


def test_flops_of_parts_follow_what_they_depend_on() -> None:
    def of(T: int, share: float) -> dict[str, float]:
        return sizes.flops_per_token(config(), sequence_tokens=T, masked_share=share).by_part

    short, long, masked = of(16, 0.15), of(32, 0.15), of(16, 0.3)
    assert long["attention"] == 2 * short["attention"]
    assert long["feed_forward"] == short["feed_forward"]
    assert masked["masked_token_head"] == pytest.approx(2 * short["masked_token_head"])
    assert 2 * long["pair_head"] == pytest.approx(short["pair_head"])


def test_presets_are_ordered_and_recognised_by_their_shape() -> None:
    names = sizes.preset_names()
    assert names == ["tiny", "mini", "small", "medium", "base"]
    for name in names:
        changed = sizes.load_preset(name).model_copy(update={"max_positions": 99, "initializer_range": 0.5})
        assert sizes.name_of(changed) == name
    assert sizes.name_of(sizes.load_preset("mini").model_copy(update={"layers": 5})) is None


@pytest.mark.parametrize("name", ["huge", "", "../sizes", "mini.yaml"])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match="no model size") as caught:
        sizes.load_preset(name)
    assert "mini" in str(caught.value)
