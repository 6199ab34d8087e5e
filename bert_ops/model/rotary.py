"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equation 34), in the half-split order of GPT-NeoX.

Queries and keys are turned by an angle that grows with their position, so that their product depends on the distance
between them alone. Nothing is learned, and values stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bert_ops.model.encoder import EncoderConfig

#: θ of the paper: the slowest pair of channels turns once in 2π·10,000 tokens.
BASE = 10_000.0


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of each position's angles, (B or 1, T, 1, 1, K / 2)."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, config: EncoderConfig, x_BTD: Tensor, positions_BT: Tensor | None) -> Rotation:
        """Angles for a batch, in float32; without ``positions_BT`` every row counts from 0."""
        size = config.hidden_size // config.heads
        if positions_BT is None:
            positions_BT = torch.arange(x_BTD.shape[1], device=x_BTD.device)[None]
        rates = BASE ** -(torch.arange(0, size, 2, device=x_BTD.device, dtype=torch.float32) / size)
        angles = (positions_BT[..., None].float() * rates)[:, :, None, None]
        return cls(angles.cos().to(x_BTD.dtype), angles.sin().to(x_BTD.dtype))

    def turn(self, qkv_BT3HK: Tensor) -> Tensor:
        """Turn queries and keys; values stay."""
        turned, value = qkv_BT3HK[:, :, :2], qkv_BT3HK[:, :, 2:]
        first, second = turned.chunk(2, dim=-1)
        turned = torch.cat([first * self.cos - second * self.sin, second * self.cos + first * self.sin], dim=-1)
        return torch.cat([turned, value], dim=2)
