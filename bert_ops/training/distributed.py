"""Several processes on one model, as ``torchrun`` starts them: replicas (DDP), or weights divided among them (FSDP2).

Every process reads its own units of a step, and gradients are summed, so that a step is the step of a single process
with the same batch, up to the order of sums. Checkpoints hold whole tensors under the names that the model alone has:
a run goes on with another number of processes, or with none of them divided.

What :func:`from_environment` reads from the environment of ``torchrun`` (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT) ends there as arguments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from bert_ops.errors import InputError
from bert_ops.model.encoder import EncoderLayer
from bert_ops.training.device import pick_device
from bert_ops.training.workers import Workers


@contextmanager
def from_environment(*, sharded: bool) -> Iterator[Workers]:
    """Join the processes that ``torchrun`` started, or work alone.

    Args:
        sharded: divide weights and optimiser among the processes (FSDP2) instead of copying them (DDP).

    Raises:
        InputError: the variables of ``torchrun`` are incomplete or no numbers.

    """
    if "WORLD_SIZE" not in os.environ:
        yield Workers(pick_device())
        return
    rank, world, local = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    device = pick_device(local_rank=local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=world)
    try:
        yield (Sharded if sharded else Replicated)(device, rank=rank, world=world)
    finally:
        dist.destroy_process_group()


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdigit():
        raise InputError(
            f"{name} is {value!r} in the environment, and WORLD_SIZE says that there are several processes",
            allowed="a number, as torchrun sets it",
            remedy="start with torchrun, or unset WORLD_SIZE",
        )
    return int(value)


class _Several(Workers):
    """What replicas and shards have in common."""

    def __init__(self, device: torch.device, *, rank: int, world: int) -> None:
        super().__init__(device)
        self.rank, self.world = rank, world

    def sum(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sum figures over processes."""
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(values)
        return dict(zip(figures, values.tolist(), strict=True))

    def barrier(self) -> None:
        """Wait until every process is here."""
        dist.barrier()

    def agree(self, flag: bool) -> bool:
        """Whether any process says yes."""
        return self.sum({"flag": float(flag)})["flag"] > 0


class Replicated(_Several):
    """Each process has the whole model; gradients are averaged while they are made (DistributedDataParallel)."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with hooks that average gradients."""
        return DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
        )

    def accumulate(self, model: nn.Module) -> AbstractContextManager[None]:
        """Leave gradients of each process as they are inside the block."""
        assert isinstance(model, DistributedDataParallel)
        no_sync: AbstractContextManager[None] = model.no_sync()
        return no_sync


class Sharded(_Several):
    """Each process has a part of every weight, gradient and moment, and gathers a layer when it computes it (FSDP2)."""

    divides = True

    def shard(self, model: nn.Module) -> None:
        """Divide every layer, then what is left, in place."""
        from torch.distributed.fsdp import fully_shard

        for module in model.modules():
            if isinstance(module, EncoderLayer):
                fully_shard(module)
        # Divided again after every forward pass, also what belongs to no layer: between passes the parameters are read.
        fully_shard(model, reshard_after_forward=True)

    @contextmanager
    def accumulate(self, model: nn.Module) -> Iterator[None]:
        """Leave gradients undivided and unsummed inside the block."""
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)  # type: ignore[operator]

    def gradient_norm(self, parameters: list[nn.Parameter]) -> Tensor:
        """L2 norm of the whole gradient, over all parts."""
        return _whole(super().gradient_norm(parameters))

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gather divided tensors."""
        return {name: _whole(tensor) for name, tensor in tensors.items()}

    def like(self, tensor: Tensor, pattern: Tensor) -> Tensor:
        """Keep this process's part of a whole tensor."""
        if not isinstance(pattern, DTensor) or tensor.shape != pattern.shape:
            return tensor.to(self.device)
        # Every process has read the same whole tensor and keeps its part.
        return distribute_tensor(tensor.to(self.device), pattern.device_mesh, pattern.placements, src_data_rank=None)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
