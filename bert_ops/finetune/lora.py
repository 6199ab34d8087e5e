"""Low-rank updates of frozen linear layers (LoRA; Hu et al. 2021, arXiv:2106.09685).

A linear layer with weight W learns y = x Wᵀ + b + α/r · (x Aᵀ) Bᵀ, where A (r, inputs) starts random and B (outputs, r)
at zero, so that a wrapped model begins as the model that it wraps. Query, key and value are one matrix of ours
(:mod:`bert_ops.model.encoder`); each of them that is chosen has an A and a B of its own, as if they were three. Dropout
of the input, where there is any, is one mask for the three.

Trained updates are added to the weights (:func:`merge`): a merged model is a plain one, and what is exported needs no
library for adapters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_ops.finetune.layer_params import LoraModule, LoraParams
from bert_ops.model.encoder import EncoderLayer, Linear
from bert_ops.seeding import derive

#: Query, key and value in the order in which they stand in the joined matrix.
_QKV: tuple[LoraModule, ...] = ("query", "key", "value")
_SINGLE: tuple[LoraModule, ...] = ("attention_out", "up", "down")

#: How the names of the updates' parameters end.
NAMES = (".lora_down", ".lora_up")


class LoraLinear(Linear):
    """A linear layer that is frozen, and updates of some of its parts; P parts of rank r.

    The weight and bias keep their names, so that the weights of the plain layer are a part of its state.

    Args:
        base: the layer, whose weight and bias are taken over.
        parts: numbers of the parts that get an update, ascending.
        of: equal parts that the layer's outputs consist of.
        params: rank, alpha and dropout.

    """

    def __init__(self, base: Linear, *, parts: Sequence[int], of: int, params: LoraParams) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.parts, self.of = tuple(parts), of
        self.scale = params.alpha / params.rank
        self.dropout = nn.Dropout(params.dropout)
        shape, device = (len(self.parts), params.rank), base.weight.device
        #: (P, r, inputs)
        self.lora_down = nn.Parameter(torch.empty(*shape, self.in_features, device=device))
        #: (P, outputs of a part, r)
        self.lora_up = nn.Parameter(torch.zeros(shape[0], self.out_features // of, shape[1], device=device))

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input · weightᵀ + bias`` and the updates, in the input's type."""
        kind = input.dtype
        small = F.linear(self.dropout(input), self.lora_down.flatten(0, 1).to(kind))
        return super().forward(input) + F.linear(small, self._up(torch.float32).to(kind))

    def merged_weight(self) -> Tensor:
        """Weight with the updates in it; their product is rounded once."""
        update = self._up(torch.float64) @ self.lora_down.flatten(0, 1).double()
        return (self.weight.double() + update).to(self.weight.dtype)

    def _up(self, dtype: torch.dtype) -> Tensor:
        """(outputs, P · r): the updates of the parts below each other, each from its own r inputs, times the scale."""
        ups = dict(zip(self.parts, self.lora_up.to(dtype), strict=True))
        none = self.lora_up.new_zeros(self.out_features // self.of, 0, dtype=dtype)
        blocks = [ups.get(part, none) for part in range(self.of)]
        together: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return self.scale * together


def wrap(layer: EncoderLayer, params: LoraParams, *, seed: int) -> None:
    """Give an encoder layer updates, in place.

    Args:
        layer: the layer.
        params: which modules, and how.
        seed: of the random half of the updates, drawn from U(±1/√inputs) as the reference code does; no global
            generator moves.

    """
    chosen = set(params.modules)
    if chosen & set(_QKV):
        parts = [number for number, name in enumerate(_QKV) if name in chosen]
        layer.qkv = LoraLinear(layer.qkv, parts=parts, of=3, params=params)
    for name in _SINGLE:
        if name in chosen:
            setattr(layer, name, LoraLinear(getattr(layer, name), parts=[0], of=1, params=params))
    for name, module in layer.named_modules():
        if isinstance(module, LoraLinear):
            bound = 1 / math.sqrt(module.in_features)
            drawn = torch.empty(module.lora_down.shape)
            drawn.uniform_(-bound, bound, generator=torch.Generator().manual_seed(derive(seed, "lora", name)))
            with torch.no_grad():
                module.lora_down.copy_(drawn)


def merge(model: nn.Module) -> None:
    """Add all updates of a model to its weights, in place; every wrapped layer becomes a plain one again."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, LoraLinear):
                setattr(parent, name, _merged(module))


@torch.no_grad()
def _merged(module: LoraLinear) -> Linear:
    plain = Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
    plain.weight, plain.bias = nn.Parameter(module.merged_weight()), module.bias
    return plain.train(module.training)
