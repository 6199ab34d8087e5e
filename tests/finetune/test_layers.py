"""Layer tuning: what is trained and what is not, at which rate, from which step on; and that the rest costs nothing."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import tuned_models as toy
from pydantic import ValidationError
from torch import Tensor, nn
from tuned_models import LAYERS, OPTIMIZER, layer_params, prepared, task_model

from bert_ops.errors import InputError
from bert_ops.finetune import layers
from bert_ops.finetune.layer_params import LayerParams
from bert_ops.model.attention import Pattern
from bert_ops.model.encoder import EncoderLayer
from bert_ops.training.loop import Loss, train
from bert_ops.training.optimizer import build_optimizer
from bert_ops.training.params import NoiseScaleBatch, SgdParams
from bert_ops.training.schedule import Schedule

NOISE = NoiseScaleBatch(
    kind="noise_scale", min_tokens=96, every_steps=1, smoothing=0.3, factor=1.0, rate_scaling="linear"
)
HEAD = {f"{module}.{leaf}" for module in ("pooler.dense", "classifier") for leaf in ("weight", "bias")}
EMBEDDINGS = {name for name in task_model().state_dict() if name.startswith("encoder.embeddings.")}


def of_layers(*numbers: int) -> set[str]:
    return {n for n in task_model().state_dict() if any(n.startswith(f"encoder.layers.{i}.") for i in numbers)}


def biases(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(".bias")}


def test_the_depth_of_parts() -> None:
    named = dict(task_model(norm="pre").named_parameters())
    depths = {name: layers.depth_of(name, layers=LAYERS) for name in named}
    assert {name for name, depth in depths.items() if depth == 0} == HEAD
    assert {name for name, depth in depths.items() if depth == LAYERS + 1} == EMBEDDINGS
    for number in range(LAYERS):
        extra = {"encoder.final_norm.weight", "encoder.final_norm.bias"} if number == LAYERS - 1 else set()
        assert {name for name, depth in depths.items() if depth == LAYERS - number} == of_layers(number) | extra


WHAT = [
    ({}, HEAD | of_layers(0, 1, 2) | EMBEDDINGS),
    ({"train": "head"}, HEAD),
    ({"train": "head", "freeze_embeddings": True}, HEAD),
    ({"freeze_embeddings": True}, HEAD | of_layers(0, 1, 2)),
    ({"top": 1}, HEAD | of_layers(2)),
    ({"top": 2, "freeze_embeddings": True}, HEAD | of_layers(1, 2)),
    ({"top": 3}, HEAD | of_layers(0, 1, 2)),
    ({"train": "biases"}, HEAD | biases(of_layers(0, 1, 2) | EMBEDDINGS)),
    ({"train": "biases", "freeze_embeddings": True}, HEAD | biases(of_layers(0, 1, 2))),
    ({"train": "biases", "top": 2}, HEAD | biases(of_layers(1, 2))),
]


@pytest.mark.parametrize(("changes", "expected"), WHAT, ids=[str(changes) for changes, _ in WHAT])
def test_what_is_chosen_is_trained_and_nothing_else(changes: dict[str, Any], expected: set[str]) -> None:
    model, tuning = prepared(layer_params(**changes))
    before = toy.weights(model)
    train(toy.plan(steps=4), model, build_optimizer(model, OPTIMIZER, rates=tuning.rate))
    assert toy.changed(before, model) == expected
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected
    assert tuning.trained == sum(before[name].numel() for name in expected)
    assert tuning.parameters == sum(tensor.numel() for tensor in before.values())
    assert tuning.share == tuning.trained / tuning.parameters


def test_the_best_weights_come_back_beside_frozen_ones() -> None:
    losses = iter([0.5, 0.1, 0.7])
    model, tuning = prepared(layer_params(top=1))
    seen: list[dict[str, Tensor]] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append(toy.weights(model))
        return {"validation_loss": next(losses)}

    run = train(toy.plan(evaluate=evaluate), model, build_optimizer(model, OPTIMIZER, rates=tuning.rate))
    assert run.best_step == 8 and toy.changed(seen[1], model) == set() != toy.changed(seen[2], model)


def test_a_model_can_be_prepared_again() -> None:
    model, _ = prepared(layer_params(train="head"))
    tuning = layers.apply(model, layer_params(), seed=5)
    assert tuning.trained == tuning.parameters and all(p.requires_grad for p in model.parameters())


class TestFrozenPartsAreNotPaidFor:
    """Autograd records nothing below the lowest part that is trained."""

    def outputs(self, params: LayerParams, **changes: Any) -> tuple[list[Tensor], list[int]]:
        """What the embeddings and each layer put out in training, and the bytes that autograd keeps of each layer."""
        model, _ = prepared(params, **changes)
        model.train()
        out: list[Tensor] = []
        kept: list[int] = []
        hidden = model.encoder.embeddings(toy.texts(0).ids, torch.zeros_like(toy.texts(0).ids))
        out.append(hidden)
        pattern = Pattern()
        for layer in model.encoder.layers:
            assert isinstance(layer, EncoderLayer)
            box: list[Tensor] = []
            kept.append(toy.saved_bytes(lambda layer=layer, x=out[-1], box=box: box.append(layer(x, pattern)), model))
            out += box
        return out, kept

    @pytest.mark.parametrize("dropout", [0.0, 0.1])
    @pytest.mark.parametrize(
        ("changes", "lowest"),
        [
            ({}, 0),
            ({"freeze_embeddings": True}, 1),
            ({"top": 2}, 2),
            ({"top": 1}, 3),
            ({"train": "head"}, 4),
            ({"train": "biases", "top": 1}, 3),
            ({"train": "lora", "top": 2}, 2),
        ],
    )
    def test_no_graph_below_the_lowest_trained_part(self, changes: dict[str, Any], lowest: int, dropout: float) -> None:
        out, kept = self.outputs(layer_params(**changes), hidden_dropout=dropout, attention_dropout=dropout)
        assert [tensor.grad_fn is not None for tensor in out] == [place >= lowest for place in range(LAYERS + 1)]
        assert [size > 0 for size in kept] == [place + 1 >= lowest for place in range(LAYERS)]

    def kept(self, params: LayerParams) -> int:
        model, _ = prepared(params)
        model.train()
        return toy.saved_bytes(lambda: toy.loss(model, toy.texts(0)).sums["loss"], model)

    def test_activations_that_are_kept_shrink_with_every_frozen_part(self) -> None:
        specs = [{}, {"top": 3}, {"top": 2}, {"top": 1}, {"train": "head"}]
        sizes = [self.kept(layer_params(**changes)) for changes in specs]
        assert all(more > less for more, less in itertools.pairwise(sizes))
        # Each layer keeps as much as the next, and the head next to nothing.
        assert sizes[1] - sizes[2] == sizes[2] - sizes[3] > 5 * sizes[4]

    def test_matrices_that_are_frozen_keep_no_inputs(self) -> None:
        whole, bit_fit, lora = (self.kept(layer_params(train=kind, top=3)) for kind in ("all", "biases", "lora"))
        assert bit_fit < 0.8 * whole and lora < whole

    def test_frozen_parts_have_no_gradient_and_no_moments(self, tmp_path: Path) -> None:
        model, tuning = prepared(layer_params(top=1))
        optimizer = build_optimizer(model, OPTIMIZER, rates=tuning.rate)
        train(toy.plan(tmp_path, steps=5), model, optimizer)  # evaluated after the fourth
        trained = HEAD | of_layers(2)
        assert {name for name, p in model.named_parameters() if p.grad is not None} == trained
        found = toy.plan(tmp_path).store.newest()
        slots = {name.removeprefix("optimizer.").rsplit("/")[0] for name in found.tensors if "optimizer." in name}
        assert slots == trained
        for copies in ("average.", "best."):
            assert {n.removeprefix(copies) for n in found.tensors if n.startswith(copies)} == trained


class TestRates:
    def test_each_part_learns_slower_than_the_one_above_it(self) -> None:
        model, tuning = prepared(layer_params(rate_decay=0.5))
        expected = {name: 0.5 ** layers.depth_of(name, layers=LAYERS) for name, _ in model.named_parameters()}
        assert {name: tuning.rate(name) for name in expected} == expected
        assert [part.rate for part in tuning.parts] == [1.0, 0.5, 0.25, 0.125, 0.0625]
        optimizer = build_optimizer(model, OPTIMIZER, rates=tuning.rate)
        names = {id(p): name for name, p in model.named_parameters()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                assert group["lr"] == 0.01 * expected[names[id(p)]]
                assert group["weight_decay"] == (0.1 if p.ndim > 1 else 0.0)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(expected)

    def test_the_schedule_multiplies_the_peak_of_each_group(self) -> None:
        model, tuning = prepared(layer_params(rate_decay=0.5))
        optimizer = build_optimizer(model, OPTIMIZER, rates=tuning.rate)
        peaks = [group["lr"] for group in optimizer.param_groups]
        schedule = Schedule(optimizer, toy.plan().schedule, total_steps=12)
        for _ in range(11):
            assert schedule.rate() == 0.01 * schedule.share()  # what is shown is the rate of the head
            assert [group["lr"] for group in optimizer.param_groups] == [peak * schedule.share() for peak in peaks]
            schedule.step()
        assert schedule.share() < 0.3

    def test_steps_are_as_long_as_the_rates_say(self) -> None:
        sgd = SgdParams(kind="sgd", learning_rate=0.1, weight_decay=0.0, momentum=0.0, nesterov=False)
        steps = {}
        for decay in (1.0, 0.5):
            model, tuning = prepared(layer_params(rate_decay=decay), hidden_dropout=0.0)
            model.double().eval()
            before = toy.weights(model)
            optimizer = build_optimizer(model, sgd, rates=tuning.rate)
            model.encoder.compute_dtype = torch.float64
            toy.loss(model, toy.texts(0)).sums["loss"].backward()
            optimizer.step()
            steps[decay] = {name: tensor - before[name] for name, tensor in model.state_dict().items()}
        for name, step in steps[1.0].items():
            factor = 0.5 ** layers.depth_of(name, layers=LAYERS)
            torch.testing.assert_close(steps[0.5][name], factor * step, rtol=1e-6, atol=1e-12)
        assert sum(bool(step.any()) for step in steps[1.0].values()) > 40

    def test_without_decay_the_groups_are_those_of_pretraining(self) -> None:
        model, tuning = prepared(layer_params())
        ours, plain = (build_optimizer(model, OPTIMIZER, rates=rates) for rates in (tuning.rate, None))
        assert len(ours.param_groups) == len(plain.param_groups) == 2
        for one, other in zip(ours.param_groups, plain.param_groups, strict=True):
            assert [id(p) for p in one["params"]] == [id(p) for p in other["params"]]
            assert {k: v for k, v in one.items() if k != "params"} == {k: v for k, v in other.items() if k != "params"}


class TestGradualUnfreezing:
    PARAMS = layer_params(unfreeze_over=0.5, rate_decay=0.9)

    def run(self, folder: Path | None, *, steps: int = 16, params: LayerParams = PARAMS, **changes: Any) -> nn.Module:
        model, tuning = prepared(params, hidden_dropout=0.1)
        before_step = tuning.before_step(total_steps=steps)
        plan = toy.plan(folder, steps=steps, before_step=before_step, **changes)
        train(plan, model, build_optimizer(model, OPTIMIZER, rates=tuning.rate))
        return model

    def test_one_part_after_the_other(self) -> None:
        _, tuning = prepared(self.PARAMS)
        depths = [tuning.depth_at(step, total_steps=80) for step in range(80)]
        assert depths == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10 + [4] * 40
        _, tuning = prepared(layer_params(unfreeze_over=0.25, top=2))
        assert [tuning.depth_at(step, total_steps=16) for step in range(16)] == [0, 0, 1, 1, *[2] * 12]
        # fewer steps than parts: all of them are trained at last
        assert [tuning.depth_at(step, total_steps=3) for step in range(3)][-1] == 2

    def test_all_at_once_needs_nothing_before_a_step(self) -> None:
        _, tuning = prepared(layer_params())
        assert tuning.before_step(total_steps=10) is None
        assert tuning.depth_at(0, total_steps=10) == LAYERS + 1

    @pytest.mark.parametrize("params", [PARAMS, layer_params(unfreeze_over=0.5, train="biases")])
    def test_parts_stay_as_they_are_until_their_turn(self, params: LayerParams) -> None:
        seen: list[dict[str, Tensor]] = []
        model, tuning = prepared(params)
        begin = tuning.before_step(total_steps=16)
        assert begin is not None

        def before_step(model: nn.Module, step: int) -> None:
            seen.append(toy.weights(model))
            begin(model, step)

        plan = toy.plan(steps=16, before_step=before_step, best=None, average_decay=0.0)
        train(plan, model, build_optimizer(model, OPTIMIZER, rates=tuning.rate))
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        for step, (one, other) in enumerate(itertools.pairwise([*seen, toy.weights(model)])):
            moved = {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}
            reached = tuning.depth_at(step, total_steps=16)
            assert moved == {name for name in trained if layers.depth_of(name, layers=LAYERS) <= reached}

    @pytest.mark.parametrize("growth", [None, NOISE], ids=["constant", "noise scale"])
    def test_it_resumes_exactly(self, tmp_path: Path, growth: NoiseScaleBatch | None) -> None:
        changes = {} if growth is None else {"batch": toy.batch_of(growth)}
        whole = toy.weights(self.run(tmp_path / "whole", **changes))
        found = sorted(path for path in (tmp_path / "whole").iterdir() if path.is_dir())
        assert len(found) == 16
        for stop in (1, 5, 9):  # the head alone, a layer more since step 4, everything since step 8
            folder = tmp_path / str(stop)
            folder.mkdir()
            shutil.copyfile(tmp_path / "whole" / "log.jsonl", folder / "log.jsonl")
            shutil.copytree(found[stop], folder / found[stop].name)
            again = self.run(folder, **changes)
            assert toy.changed(whole, again) == set()

    def test_a_rollback_freezes_again_what_was_frozen(self, tmp_path: Path) -> None:
        steps_seen: list[tuple[int, int]] = []
        model, tuning = prepared(self.PARAMS)
        begin = tuning.before_step(total_steps=16)
        assert begin is not None

        def before_step(model: nn.Module, step: int) -> None:
            begin(model, step)
            depths = [layers.depth_of(n, layers=LAYERS) for n, p in model.named_parameters() if p.requires_grad]
            steps_seen.append((step, max(depths)))

        def loss(model: nn.Module, unit: toy.Texts) -> Loss:
            made = toy.loss(model, unit)
            return Loss({"loss": made.sums["loss"] * (float("nan") if 7 <= unit.unit <= 9 else 1.0)})

        train(
            toy.plan(tmp_path, steps=16, before_step=before_step, loss=loss),
            model,
            build_optimizer(model, OPTIMIZER, rates=tuning.rate),
        )
        steps = [step for step, _ in steps_seen]
        assert steps != sorted(steps)  # it went back
        assert all(depth == tuning.depth_at(step, total_steps=16) for step, depth in steps_seen)


class TestBeginningAnew:
    @pytest.mark.parametrize("top", [1, 2])
    def test_the_top_and_the_pooler_are_drawn_again(self, top: int) -> None:
        model = task_model()
        before = toy.weights(model)
        layers.apply(model, layer_params(reinitialized=top), seed=5)
        expected = of_layers(*range(LAYERS - top, LAYERS)) | {"pooler.dense.weight", "pooler.dense.bias"}
        assert toy.changed(before, model) == expected
        for name in expected:
            tensor = model.state_dict()[name]
            if name.endswith(".bias"):
                assert not tensor.any()
            elif tensor.ndim == 1:
                assert (tensor == 1).all()
            else:
                assert abs(tensor.std().item() - 0.1) < 0.02 and abs(tensor.mean().item()) < 0.02

    def test_it_depends_on_the_seed_alone(self) -> None:
        made = [task_model(norm="pre") for _ in range(3)]
        for model, seed in zip(made, (5, 5, 6), strict=True):
            torch.rand(seed)
            state = torch.get_rng_state()
            layers.apply(model, layer_params(reinitialized=2), seed=seed)
            assert torch.equal(state, torch.get_rng_state())
        assert toy.changed(toy.weights(made[0]), made[1]) == set()
        assert "encoder.layers.2.qkv.weight" in toy.changed(toy.weights(made[0]), made[2])
        assert (made[0].encoder.final_norm.weight == 1).all()

    def test_a_head_over_tokens_has_no_pooler(self) -> None:
        model = task_model(kind="token_classification")
        before = toy.weights(model)
        layers.apply(model, layer_params(reinitialized=1), seed=5)
        assert toy.changed(before, model) == of_layers(2)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train": "head", "top": 2}, "top is 2, but train: head trains no layer"),
            ({"train": "head", "rate_decay": 0.9}, "rate_decay is 0.9, but train: head"),
            ({"train": "head", "unfreeze_over": 0.5}, "unfreeze_over is 0.5, but train: head"),
            ({"train": "head", "reinitialized": 1}, "reinitialized is 1, but train: head"),
            ({"train": "biases", "reinitialized": 1}, "does not train the matrices"),
            ({"train": "lora", "reinitialized": 1}, "does not train the matrices"),
            ({"top": 1, "reinitialized": 2}, "only the top 1 layers are trained"),
            ({"top": 0}, "greater than or equal to 1"),
            ({"rate_decay": 0.0}, "greater than 0"),
            ({"unfreeze_over": 1.0}, "less than 1"),
            ({"train": "adapters"}, "'all', 'head', 'biases' or 'lora'"),
            ({"lora": {"modules": ["query", "query"]}}, "names one twice"),
            ({"lora": {"modules": []}}, "at least 1 item"),
            ({"lora": {"modules": ["queries"]}}, "'query', 'key', 'value'"),
            ({"lora": {"rank": 0}}, "greater than or equal to 1"),
        ],
    )
    def test_what_makes_no_sense(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            layer_params(**changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"top": 4}, r"`finetune\.layers\.top` is 4, but the encoder has 3 layers"),
            ({"reinitialized": 4}, r"`finetune\.layers\.reinitialized` is 4, but the encoder has 3 layers"),
            ({"train": "lora", "lora": {"rank": 17}}, r"rank` is 17, more than the matrices.*\n.*at most 16"),
        ],
    )
    def test_what_does_not_fit_the_model(self, changes: dict[str, Any], message: str) -> None:
        model = task_model()
        before = toy.weights(model)
        with pytest.raises(InputError, match=message):
            layers.apply(model, layer_params(**changes), seed=5)
        assert toy.changed(before, model) == set() and all(p.requires_grad for p in model.parameters())


def test_a_line_says_what_is_trained() -> None:
    lines = {
        name: prepared(layer_params(**changes))[1].line()
        for name, changes in {
            "all": {},
            "head": {"train": "head"},
            "more": {"top": 1, "reinitialized": 1, "rate_decay": 0.9, "unfreeze_over": 0.25},
        }.items()
    }
    assert lines["all"] == (
        "7,714 of 7,714 parameters are trained (100.00%): head 306, layers 1 to 3, each 2,224, embeddings 736"
    )
    assert lines["head"] == "306 of 7,714 parameters are trained (3.97%): head 306"
    assert lines["more"] == (
        "2,530 of 7,714 parameters are trained (32.80%): head 306, layer 3 2,224; the top 1 layer and the pooler begin "
        "anew; each part learns at 0.9 of the rate of the one above it; one part after the other, over 25% of the run"
    )
