"""Self-attention over packed or padded rows, by the kernel that is fastest where it runs.

Shapes: B rows of T tokens, H heads of size K, D = H·K.

A row may hold several examples (packing) and padding. :class:`Pattern` says who sees whom: tokens of one example see
each other and nothing else. The same rule covers padded batches, where a row is one example and padding is another.

* CPU: two batched matrix products and a softmax in the arithmetic of the input, with a backward pass written out. For
  rows of 128 tokens it takes a third of the time of both kernels of ``scaled_dot_product_attention``: its plain kernel
  computes in float32 whatever it is given, the backward pass of its flash kernel is slow (docs/LOG.md).
* GPU: ``torch.nn.attention.varlen`` (FlashAttention over the bounds of examples) for packed rows in half precision,
  else ``scaled_dot_product_attention``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Pattern:
    """Who sees whom in a batch.

    Args:
        examples_BT: number of the example that each token belongs to (0 on padding), any integer type; None if each
            row is one example without padding.
        bounds: (S + 1,) int32, flat start of each run of one example or of padding, and B·T; for varlen kernels.
        longest: tokens of the longest run.

    """

    examples_BT: Tensor | None = None  # noqa: N815 — the shape stands in the name
    bounds: Tensor | None = None
    longest: int | None = None

    @cached_property
    def mask_B1TT(self) -> Tensor | None:  # noqa: N802 — the shape stands in the name
        """True where a query (third axis) sees a key (last axis); None if everything is seen."""
        if self.examples_BT is None:
            return None
        return (self.examples_BT[:, None, :, None] == self.examples_BT[:, None, None, :]).contiguous()

    def bias(self, *, heads: int, dtype: torch.dtype) -> Tensor | None:
        """(B·H, T, T): 0 where a key is seen, else a number whose exponential is 0; made once for all layers."""
        if self.mask_B1TT is None:
            return None
        made: dict[Any, Tensor] = self._biases
        key = (heads, dtype)
        if key not in made:
            B, _, T, _ = self.mask_B1TT.shape
            bias = torch.zeros((B, 1, T, T), dtype=dtype, device=self.mask_B1TT.device)
            bias.masked_fill_(~self.mask_B1TT, torch.finfo(dtype).min / 2)
            made[key] = bias.expand(B, heads, T, T).reshape(B * heads, T, T)
        return made[key]

    @cached_property
    def _biases(self) -> dict[Any, Tensor]:
        return {}


def attend(qkv_BT3HK: Tensor, pattern: Pattern, *, dropout: float) -> Tensor:
    """Return softmax(q kᵀ / √K) v for each head (Vaswani et al. 2017, equation 1), (B, T, D).

    Args:
        qkv_BT3HK: queries, keys and values.
        pattern: who sees whom.
        dropout: share of attention weights that is dropped.

    """
    B, T, _, H, K = qkv_BT3HK.shape
    if qkv_BT3HK.is_cuda and pattern.bounds is not None and not dropout and qkv_BT3HK.dtype in _HALF:
        return _varlen(qkv_BT3HK, pattern)
    if not qkv_BT3HK.is_cuda and not dropout:
        bias = pattern.bias(heads=H, dtype=qkv_BT3HK.dtype)
        mixed: Tensor = _PlainAttention.apply(qkv_BT3HK, bias)  # type: ignore[no-untyped-call]
        return mixed
    query, key, value = qkv_BT3HK.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=pattern.mask_B1TT, dropout_p=dropout)
    return mixed.transpose(1, 2).reshape(B, T, H * K)


_HALF = (torch.bfloat16, torch.float16)


def _varlen(qkv_BT3HK: Tensor, pattern: Pattern) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    B, T, _, H, K = qkv_BT3HK.shape
    query, key, value = qkv_BT3HK.reshape(B * T, 3, H, K).unbind(1)
    assert pattern.bounds is not None and pattern.longest is not None
    run: Callable[..., Any] = varlen_attn
    mixed: Tensor = run(query, key, value, pattern.bounds, pattern.bounds, pattern.longest, pattern.longest)
    return mixed.reshape(B, T, H * K)


class _PlainAttention(torch.autograd.Function):
    """Attention as batched products over B·H matrices, with the weights kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, qkv_BT3HK: Tensor, bias: Tensor | None) -> Tensor:
        B, T, _, H, K = qkv_BT3HK.shape
        query, key, value = qkv_BT3HK.permute(2, 0, 3, 1, 4).contiguous().view(3, B * H, T, K)
        query = query.mul_(K**-0.5)
        keys = key.transpose(1, 2)
        scores = torch.bmm(query, keys) if bias is None else torch.baddbmm(bias, query, keys)
        weights = torch.softmax(scores, -1)
        del scores
        ctx.save_for_backward(query, key, value, weights)
        ctx.heads = H
        return torch.bmm(weights, value).view(B, H, T, K).transpose(1, 2).reshape(B, T, H * K)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTD: Tensor) -> tuple[Tensor, None]:
        query, key, value, weights = ctx.saved_tensors
        H, (_, T, K) = ctx.heads, query.shape
        B = query.shape[0] // H
        grad = grad_BTD.view(B, T, H, K).transpose(1, 2).reshape(B * H, T, K)
        out = torch.empty((3, B * H, T, K), dtype=grad.dtype, device=grad.device)
        torch.bmm(weights.transpose(1, 2), grad, out=out[2])
        grad_weights = torch.bmm(grad, value.transpose(1, 2))
        grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        torch.bmm(grad_scores, key, out=out[0])
        out[0].mul_(K**-0.5)
        torch.bmm(grad_scores.transpose(1, 2), query, out=out[1])
        return out.view(3, B, H, T, K).permute(1, 3, 0, 2, 4).contiguous(), None
