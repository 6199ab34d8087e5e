"""Processes that train one model together: what the loop asks of them.

:class:`Workers` is a single process, and the interface; :mod:`bert_ops.training.distributed` has the one for several.
Rank, number of processes and the way they talk are arguments of the loop, not globals.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class Workers:
    """One process that works alone.

    Attributes:
        rank: number of this process, from 0; rank 0 writes checkpoints and logs.
        world: number of processes.
        divides: whether weights, gradients and optimiser are divided among processes.
        device: where this process computes.

    """

    rank = 0
    world = 1
    divides = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what the forward pass goes through, so that gradients are summed over processes."""
        return model

    def accumulate(self, model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG002 — the interface
        """Keep gradients to this process inside the block: there are more passes to come."""
        return nullcontext()

    def sum(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sum figures over processes; every process gives the same keys."""
        return dict(figures)

    def gradient_norm(self, parameters: list[nn.Parameter]) -> Tensor:
        """L2 norm of the whole gradient, over all shards of it."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def shard(self, model: nn.Module) -> None:
        """Divide the model's weights in place, before an optimiser is made for them; nothing to do for one process."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gather tensors that may be divided; every process calls it with the same names."""
        return dict(tensors)

    def like(self, tensor: Tensor, pattern: Tensor) -> Tensor:
        """Bring a whole tensor to where, and into the parts that, a parameter of its shape has."""
        return tensor.to(pattern.device)

    def model_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Whole parameters and buffers by name, as the model alone would have them."""
        return self.whole(model.state_dict())

    def load_model(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Undo :meth:`model_tensors`."""
        own = model.state_dict()
        model.load_state_dict({name: self.like(tensor, own[name]) for name, tensor in tensors.items()})

    def optimizer_tensors(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Whole optimiser slots as ``parameter name/slot``, as the model alone would have them."""
        names = {id(p): name for name, p in model.named_parameters()}
        return self.whole(
            {
                f"{names[id(p)]}/{slot}": torch.as_tensor(value)
                for p, slots in optimizer.state.items()
                for slot, value in slots.items()
                if value is not None
            }
        )

    def load_optimizer(self, model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
        """Undo :meth:`optimizer_tensors`."""
        named = dict(model.named_parameters())
        optimizer.state.clear()
        for key, tensor in tensors.items():
            name, slot = key.rsplit("/", 1)
            # Moments have the shape of their parameter; the step counter of a fused optimiser is a scalar beside it.
            optimizer.state[named[name]][slot] = self.like(tensor, named[name])

    def barrier(self) -> None:
        """Wait until every process is here."""

    def agree(self, flag: bool) -> bool:
        """Whether any process says yes."""
        return flag
