"""Layer tuning: which parameters of a task model are trained, from which step on, and at which learning rate.

The parts of a model have a *depth*: 0 is the head (all that is not the encoder: pooler and classifier), 1 the top
layer, L the lowest one of L layers, L + 1 the embeddings. The final LayerNorm of an encoder with norms before its
blocks belongs to the top layer.

Below the lowest part that is trained nothing needs a gradient, so that autograd records nothing there: neither
activations nor a backward pass are paid for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn

from bert_ops.errors import InputError
from bert_ops.finetune import lora
from bert_ops.finetune.layer_params import LayerParams
from bert_ops.model.encoder import EncoderConfig, EncoderLayer, initialise
from bert_ops.model.heads import Pooler, TaskModel
from bert_ops.seeding import derive

_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Part:
    """A part of the model.

    Args:
        depth: of the part.
        trained: parameters that are trained.
        parameters: all of its parameters.
        rate: factor on the learning rate.

    """

    depth: int
    trained: int
    parameters: int
    rate: float


@dataclass(frozen=True)
class Tuning:
    """What is trained of a model; ``parts`` from the head down to the embeddings."""

    params: LayerParams
    layers: int
    parts: list[Part]

    @property
    def trained(self) -> int:
        """Parameters that are trained, sooner or later."""
        return sum(part.trained for part in self.parts)

    @property
    def parameters(self) -> int:
        """All parameters, low-rank updates included."""
        return sum(part.parameters for part in self.parts)

    @property
    def share(self) -> float:
        """Share of the parameters that is trained."""
        return self.trained / self.parameters

    def rate(self, name: str) -> float:
        """Factor on the learning rate of the parameter of this name."""
        return self.params.rate_decay ** depth_of(name, layers=self.layers)

    def before_step(self, *, total_steps: int) -> Callable[[nn.Module, int], None] | None:
        """Return what has to happen before each step of a run: gradual unfreezing; None if it is all from the start.

        What the function does depends on the number of the step alone, so that a run that was resumed or rolled back
        trains the same layers as one that was not.
        """
        if not self.params.unfreeze_over:
            return None

        def before_step(model: nn.Module, step: int) -> None:
            reached = self.depth_at(step, total_steps=total_steps)
            for name, parameter in model.named_parameters():
                if _is_trained(name, self.params, layers=self.layers):
                    parameter.requires_grad_(depth_of(name, layers=self.layers) <= reached)

        return before_step

    def depth_at(self, step: int, *, total_steps: int) -> int:
        """Depth of the lowest part that is trained in step ``step`` (from 0) of ``total_steps``.

        The head is alone at first; then a part is added every ``unfreeze_over · total_steps / n`` steps, where n is
        the number of parts below the head that are trained.
        """
        depths = [part.depth for part in self.parts if part.trained]
        span = self.params.unfreeze_over * total_steps
        reached = len(depths) - 1 if span == 0 else int((len(depths) - 1) * step / span)
        return depths[min(reached, len(depths) - 1)]

    def line(self) -> str:
        """Say in a line what is trained: parameters, their share, and of which parts they are."""
        parts = [
            f"{_called(list(same), layers=self.layers)} {count:,}"
            for (count, _), same in groupby(self.parts, key=lambda part: (part.trained, _kind(part, self.layers)))
            if count
        ]
        return (
            f"{self.trained:,} of {self.parameters:,} parameters are trained ({self.share:.2%}): {', '.join(parts)}"
            f"{self._also()}"
        )

    def _also(self) -> str:
        params, said = self.params, []
        if params.reinitialized:
            said.append(f"the top {_layers(params.reinitialized)} and the pooler begin anew")
        if params.rate_decay != 1.0:
            said.append(f"each part learns at {params.rate_decay:g} of the rate of the one above it")
        if params.unfreeze_over:
            said.append(f"one part after the other, over {params.unfreeze_over:.0%} of the run")
        return "".join(f"; {text}" for text in said)


def apply(model: TaskModel, params: LayerParams, *, seed: int) -> Tuning:
    """Prepare a model for training, in place: layers begin anew, get low-rank updates, or are frozen.

    Call it when the pretrained weights are in the model, and before an optimiser is made for it. When the model has
    its final weights, :func:`bert_ops.finetune.lora.merge` makes a plain one of it.

    Args:
        model: the model.
        params: what is trained.
        seed: of what is drawn at random; no global generator moves.

    Raises:
        InputError: the model has fewer layers than are asked for, or its matrices a lower rank than the updates.

    """
    check(params, model.config)
    if params.reinitialized:
        _begin_anew(model, params.reinitialized, seed=seed)
    layers = len(model.encoder.layers)
    if params.train == "lora":
        for number in range(layers - (params.top or layers), layers):
            layer = model.encoder.layers[number]
            assert isinstance(layer, EncoderLayer)
            lora.wrap(layer, params.lora, seed=derive(seed, "layer", number))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trained(name, params, layers=layers))
    return _describe(model, params, layers=layers)


def check(params: LayerParams, config: EncoderConfig) -> None:
    """Compare what is asked for with the model that it is asked of.

    Raises:
        InputError: it has fewer layers, or its matrices a lower rank than the updates.

    """
    for name in ("top", "reinitialized"):
        wanted = getattr(params, name)
        if wanted is not None and wanted > config.layers:
            raise InputError(
                f"`finetune.layers.{name}` is {wanted}, but the encoder has {_layers(config.layers)}",
                allowed=f"at most {config.layers}{', or null for all' if name == 'top' else ''}",
                remedy=f"correct finetune.layers.{name}",
            )
    largest = min(config.hidden_size, config.feed_forward_size)
    if params.train == "lora" and params.lora.rank > largest:
        raise InputError(
            f"`finetune.layers.lora.rank` is {params.lora.rank}, more than the matrices of the encoder have",
            allowed=f"at most {largest}",
            remedy="correct finetune.layers.lora.rank",
        )


def depth_of(name: str, *, layers: int) -> int:
    """Depth of the part that the parameter of this name belongs to: 0 head, 1 top layer, layers + 1 embeddings."""
    if not name.startswith("encoder."):
        return 0
    if name.startswith("encoder.embeddings."):
        return layers + 1
    found = _LAYER.match(name)
    return 1 if found is None else layers - int(found.group(1))


def _is_trained(name: str, params: LayerParams, *, layers: int) -> bool:
    depth = depth_of(name, layers=layers)
    if depth == 0 or params.train == "head":
        return depth == 0
    lowest = params.top or (layers if params.freeze_embeddings else layers + 1)
    if depth > lowest:
        return False
    if params.train == "all":
        return True
    return name.endswith(".bias") if params.train == "biases" else name.endswith(lora.NAMES)


def _begin_anew(model: TaskModel, top: int, *, seed: int) -> None:
    """Draw the weights of the pooler and of the top layers as a new model's, the same ones on every device."""
    config = model.config
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "reinitialized"))
        for layer in model.encoder.layers[-top:]:
            fresh = EncoderLayer(config).apply(lambda part: initialise(part, config.initializer_range))
            layer.load_state_dict(fresh.state_dict())
        if model.pooler is not None:
            model.pooler.load_state_dict(Pooler(config).state_dict())
    if model.encoder.final_norm is not None:
        initialise(model.encoder.final_norm, config.initializer_range)


def _describe(model: nn.Module, params: LayerParams, *, layers: int) -> Tuning:
    trained, all_of_them = [0] * (layers + 2), [0] * (layers + 2)
    for name, parameter in model.named_parameters():
        depth = depth_of(name, layers=layers)
        all_of_them[depth] += parameter.numel()
        trained[depth] += parameter.numel() * parameter.requires_grad
    return Tuning(
        params=params,
        layers=layers,
        parts=[
            Part(depth=depth, trained=trained[depth], parameters=all_of_them[depth], rate=params.rate_decay**depth)
            for depth in range(layers + 2)
        ],
    )


def _kind(part: Part, layers: int) -> str:
    return "head" if part.depth == 0 else "embeddings" if part.depth > layers else "layer"


def _called(parts: list[Part], *, layers: int) -> str:
    """Name of parts of one kind beside each other; layers are counted from the embeddings, as everywhere."""
    kind = _kind(parts[0], layers)
    if kind != "layer":
        return kind
    low, high = layers + 1 - parts[-1].depth, layers + 1 - parts[0].depth
    return f"layer {low}" if low == high else f"layers {low} to {high}, each"


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
