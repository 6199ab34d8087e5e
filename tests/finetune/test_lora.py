"""Low-rank updates: their formula, what they leave alone, merging, exact resume, and peft as the reference."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import tuned_models as toy
from torch import Tensor, nn
from tuned_models import LAYERS, OPTIMIZER, config, layer_params, prepared, task_model

from bert_ops.finetune import layers, lora
from bert_ops.finetune.layer_params import LoraParams
from bert_ops.finetune.lora import LoraLinear
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderLayer, Linear
from bert_ops.model.heads import TaskModel
from bert_ops.training.loop import train
from bert_ops.training.optimizer import build_optimizer

ALL_MODULES = ["query", "key", "value", "attention_out", "up", "down"]
OURS = {"qkv": "attention.self", "attention_out": "attention.output.dense", "up": "intermediate.dense"}
OURS["down"] = "output.dense"


def lora_params(**changes: Any) -> Any:
    return layer_params(train="lora", lora={"rank": 4, "alpha": 6.0, **changes})


def with_updates(seed: int = 1, **changes: Any) -> TaskModel:
    """A wrapped model whose updates are no longer zero, in eval mode."""
    model, _ = prepared(lora_params(**changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_up"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    ids = toy.texts(1).ids
    with torch.no_grad():
        return model(ids, torch.zeros_like(ids))


def wrapped(model: nn.Module) -> dict[str, LoraLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def test_a_wrapped_model_begins_as_the_model_that_it_wraps() -> None:
    plain, model = task_model().eval(), prepared(lora_params(modules=ALL_MODULES))[0].eval()
    assert torch.equal(logits(plain), logits(model))
    assert toy.changed(toy.weights(plain), model) == set()  # under the names that they had
    extra = model.state_dict().keys() - plain.state_dict().keys()
    assert extra and all(name.endswith(lora.NAMES) for name in extra)


@torch.no_grad()
@pytest.mark.parametrize("modules", [["query", "value"], ["key"], ["value", "query", "down"], ALL_MODULES])
def test_outputs_are_the_formula(modules: list[str]) -> None:
    """y = x Wᵀ + b + α/r (x Aᵀ) Bᵀ, for each of query, key and value as if they were three layers."""
    model = with_updates(modules=modules)
    layer = model.encoder.layers[1]
    assert isinstance(layer, EncoderLayer)
    for name, module in layer.named_children():
        if not isinstance(module, Linear):
            continue
        x = torch.randn(2, 5, module.in_features, generator=torch.Generator().manual_seed(3))
        expected = F.linear(x, module.weight, module.bias)
        if isinstance(module, LoraLinear):
            parts = [p for p in ("query", "key", "value") if p in modules] if name == "qkv" else [name]
            assert len(module.lora_down) == len(parts)
            size = module.out_features // (3 if name == "qkv" else 1)
            for part, a, b in zip(parts, module.lora_down, module.lora_up, strict=True):
                start = ("query", "key", "value").index(part) * size if name == "qkv" else 0
                expected[..., start : start + size] += 6.0 / 4 * (x @ a.T) @ b.T
        else:
            assert name not in modules and (name != "qkv" or not {"query", "key", "value"} & set(modules))
        torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top", [None, 1])
def test_updates_and_head_are_trained_and_nothing_else(top: int | None) -> None:
    params = layer_params(train="lora", top=top, lora={"rank": 2, "modules": ["query", "value", "up"]})
    model, tuning = prepared(params)
    before = toy.weights(model)
    train(toy.plan(steps=4), model, build_optimizer(model, OPTIMIZER, rates=tuning.rate))
    numbers = range(LAYERS) if top is None else range(LAYERS - top, LAYERS)
    updates = {f"encoder.layers.{i}.{m}{leaf}" for i in numbers for m in ("qkv", "up") for leaf in lora.NAMES}
    head = {name for name in before if not name.startswith("encoder.")}
    assert toy.changed(before, model) == updates | head
    # A (2, 2, 16) and B (2, 16, 2) for query and value, A (1, 2, 16) and B (1, 32, 2) for up
    assert [part.trained for part in tuning.parts] == [306, *(224 if i in numbers else 0 for i in (2, 1, 0)), 0]
    assert tuning.parameters == 7714 + 224 * len(numbers)


@pytest.mark.parametrize("modules", [["query", "value"], ALL_MODULES])
def test_merged_models_answer_as_unmerged_ones(modules: list[str]) -> None:
    model = with_updates(modules=modules)
    before = logits(model)
    assert (before - logits(task_model().eval())).abs().max() > 0.01
    lora.merge(model)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)
    plain = task_model()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert not any(module.training for module in model.modules())


def test_merging_rounds_once() -> None:
    module = with_updates(modules=["query", "value"]).encoder.layers[0].qkv
    assert isinstance(module, LoraLinear)
    exact = module.weight.double().clone()
    for place, part in enumerate((0, 2)):
        exact[16 * part : 16 * (part + 1)] += 1.5 * module.lora_up[place].double() @ module.lora_down[place].double()
    assert torch.equal(module.merged_weight(), exact.float())
    assert torch.equal(module.merged_weight()[16:32], module.weight[16:32])  # the key


def test_merging_a_plain_model_changes_nothing() -> None:
    model = task_model()
    before = list(model.modules())
    lora.merge(model)
    assert [id(module) for module in model.modules()] == [id(module) for module in before]


def test_an_exported_folder_needs_no_adapters(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = with_updates(modules=ALL_MODULES)
    before = logits(model)
    lora.merge(model)
    huggingface.save_model(model, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(toy.texts(1).ids).logits, before, rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("modules", [["query", "value"], ALL_MODULES])
def test_peft_computes_the_same(tmp_path: Path, modules: list[str]) -> None:
    """The same A and B in peft's modules around transformers' model: the same logits and the same gradients."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    ours = with_updates(modules=modules)
    plain = task_model()
    huggingface.save_model(plain, tmp_path)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    names = {"attention_out": "attention.output.dense", "up": "intermediate.dense", "down": r"\d+.output.dense"}
    targets = "|".join(rf"attention.self.{m}" if m in ("query", "key", "value") else names[m] for m in modules)
    theirs = peft.get_peft_model(
        base, peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=0.0, target_modules=rf".*\.({targets})")
    ).eval()
    state = dict(theirs.named_parameters())
    prefix = "base_model.model.bert.encoder.layer."
    pairs = []
    for name, module in wrapped(ours).items():
        number, inner = name.split(".")[2:]
        chosen = [p for p in ("query", "key", "value") if p in modules] if inner == "qkv" else [inner]
        for place, part in enumerate(chosen):
            path = {**OURS, "qkv": f"attention.self.{part}"}[inner]
            for leaf, tensor in (("lora_A", module.lora_down), ("lora_B", module.lora_up)):
                counterpart = state[f"{prefix}{number}.{path}.{leaf}.default.weight"]
                with torch.no_grad():
                    counterpart.copy_(tensor[place])
                pairs.append((tensor, place, counterpart))
    assert len(pairs) == 2 * len(modules) * LAYERS == sum("lora" in name for name in state)
    ids = toy.texts(1).ids
    made, expected = ours(ids, torch.zeros_like(ids)), theirs(input_ids=ids).logits
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    made.square().sum().backward()
    expected.square().sum().backward()
    for tensor, place, counterpart in pairs:
        torch.testing.assert_close(tensor.grad[place], counterpart.grad, rtol=1e-4, atol=1e-5)
    lora.merge(ours)
    merged = huggingface.export_weights(ours.state_dict())
    for name, tensor in theirs.merge_and_unload().state_dict().items():
        if name in merged:
            torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-6)


def test_the_random_half_is_drawn_as_the_reference_draws_it() -> None:
    one, again, other = (prepared(lora_params(modules=ALL_MODULES), seed=0)[0] for _ in range(3))
    layers_of = [wrapped(model) for model in (one, again)]
    drawn = [module.lora_down for module in layers_of[0].values()]
    for module in layers_of[0].values():
        assert module.lora_down.abs().max() <= module.in_features**-0.5
        assert module.lora_down.detach().std().item() == pytest.approx((module.in_features * 3) ** -0.5, rel=0.2)
        assert not module.lora_up.any()
    assert all(torch.equal(a, b.lora_down) for a, b in zip(drawn, layers_of[1].values(), strict=True))
    assert len({tuple(tensor.flatten()[:4].tolist()) for tensor in drawn}) == len(drawn)
    fresh = task_model()
    state = torch.get_rng_state()
    layers.apply(fresh, lora_params(modules=ALL_MODULES), seed=6)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(next(iter(wrapped(fresh).values())).lora_down, drawn[0])
    assert toy.changed(toy.weights(one), other) == set()


def test_dropout_falls_on_the_updates_alone() -> None:
    model = with_updates(dropout=0.5)
    module = model.encoder.layers[0].qkv
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    still = module(x)
    assert torch.equal(still, module(x))
    module.train()
    torch.manual_seed(0)
    difference = (module(x) - still).abs()
    assert difference[:, :16].max() > 0.01 < difference[:, 32:].max()
    assert not difference[:, 16:32].any()  # the key has no update


def test_it_computes_in_the_type_of_its_input() -> None:
    module = with_updates().encoder.layers[0].qkv
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    half = module(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), module(x), rtol=0.05, atol=0.05)


def test_it_resumes_exactly(tmp_path: Path) -> None:
    def run(folder: Path) -> TaskModel:
        model, tuning = prepared(lora_params(dropout=0.1), hidden_dropout=0.1)
        train(toy.plan(folder), model, build_optimizer(model, OPTIMIZER, rates=tuning.rate))
        return model

    whole = run(tmp_path / "whole")
    found = sorted(path for path in (tmp_path / "whole").iterdir() if path.is_dir())
    assert len(found) == 12
    for stop in (1, 6):
        folder = tmp_path / str(stop)
        folder.mkdir()
        shutil.copyfile(tmp_path / "whole" / "log.jsonl", folder / "log.jsonl")
        shutil.copytree(found[stop], folder / found[stop].name)
        assert toy.changed(toy.weights(whole), run(folder)) == set()
    assert any(module.lora_up.any() for module in wrapped(whole).values())


def test_a_linear_layer_without_bias_can_be_wrapped_and_merged() -> None:
    torch.manual_seed(0)
    params = LoraParams(rank=2, alpha=4.0, dropout=0.0, modules=["up"])
    layer = EncoderLayer(config())
    layer.up = Linear(16, 32, bias=False)
    lora.wrap(layer, params, seed=1)
    with torch.no_grad():
        layer.up.lora_up.normal_()
    x = torch.randn(3, 16)
    before = layer.up(x)
    lora.merge(layer)
    torch.testing.assert_close(layer.up(x), before, rtol=1e-5, atol=1e-5)
    assert layer.up.bias is None
