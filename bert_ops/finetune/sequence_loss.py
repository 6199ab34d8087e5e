"""Likelihood of a sequence of tags among the sequences that a tagging scheme allows.

A softmax over the tags of each token spends its effort on what :func:`bert_ops.finetune.viterbi.viterbi` rules out
anyway. Here a network learns what it is asked for: a conditional random field whose transitions are allowed or not and
have no weights, so that a model holds nothing besides its logits.

Source: Lafferty, McCallum & Pereira 2001, "Conditional Random Fields", section 3; forward-backward with scaling as in
Rabiner 1989, eqs. 91-92.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


def allowed(labels: int, *, prefixes: str) -> NDArray[np.bool_]:
    """Which tag may follow which, (C, C): rows are what was, columns what is.

    Args:
        labels: number of them; the tags are O, then the prefixes of each label.
        prefixes: ``BI`` or ``BIES``.

    """
    kind = np.array(["O", *prefixes * labels])
    label = np.array([-1, *np.repeat(np.arange(labels), len(prefixes))])
    goes_on = np.isin(kind, ["B", "I"])[:, None] & np.isin(kind, ["I", "E"]) & (label[:, None] == label)
    begins = ~np.isin(kind, ["I", "E"])
    # Without an end of its own an entity ends wherever the next tag is no inner one.
    may_end = ~np.isin(kind, ["B", "I"]) if "E" in prefixes else np.ones(len(kind), bool)
    result: NDArray[np.bool_] = goes_on | (may_end[:, None] & begins)
    return result


def sequence_losses(logits_MC: Tensor, targets_M: Tensor, starts: Ints, *, prefixes: str, ignored: int) -> Tensor:
    """Return the loss of each token: its share of the negative log-likelihood of its row's tags, in nats.

    A row may begin and end with any tag, as a window of a longer text does. Tokens without a target may have every
    tag: the likelihood is that of all sequences which agree with the others.

    Args:
        logits_MC: of the tags of each token.
        targets_M: tags; ``ignored`` for none.
        starts: (R + 1,) first token of each row, and M.
        prefixes: ``BI`` or ``BIES``.
        ignored: target of tokens that have none.

    Returns:
        (M,) float32. The sum over a row is never negative; of a token alone it may be.

    """
    logits = logits_MC.double()
    follows = torch.from_numpy(allowed((logits.shape[1] - 1) // len(prefixes), prefixes=prefixes)).to(logits)
    counts = torch.from_numpy(np.diff(starts)).to(logits.device)
    row = torch.repeat_interleave(torch.arange(len(counts), device=logits.device), counts)
    known = targets_M != ignored
    losses = -torch.where(known, logits.gather(1, targets_M.clamp(min=0)[:, None])[:, 0], 0.0)
    excess: Tensor = _log_partition(logits, starts, follows)
    if not bool(known.all()):
        tags = torch.arange(logits.shape[1], device=logits.device)
        agrees = ~known[:, None] | (targets_M[:, None] == tags)
        held = torch.where(known[:, None], logits.gather(1, targets_M.clamp(min=0)[:, None]), 0.0)
        # What is known counts above; here only what the rest adds to it.
        rest = torch.where(agrees, logits - held, -torch.inf)
        excess = excess - _log_partition(rest, starts, follows)
    return (losses + (excess / counts.clamp(min=1))[row]).float()


class _LogPartition(torch.autograd.Function):
    """Logarithm of the sum over the allowed sequences of each row of exp(sum of logits), (R,)."""

    @staticmethod
    def forward(ctx: Any, logits_MC: Tensor, starts: Ints, follows_CC: Tensor) -> Tensor:
        """Go through all rows together; sorted by length, those that still go on are the first ones."""
        lengths = np.diff(starts)
        order = np.argsort(-lengths, kind="stable")
        lengths, firsts = lengths[order], starts[:-1][order]
        alive = [int(n) for n in np.searchsorted(-lengths, -np.arange(int(lengths.max(initial=0))), side="left")]
        places = torch.from_numpy(
            np.concatenate([np.zeros(0, np.int64), *(firsts[:n] + t for t, n in enumerate(alive))])
        )
        places = places.to(logits_MC.device)
        highest = logits_MC.max(1, keepdim=True).values
        potentials = (logits_MC - highest).exp_()[places]
        scales = torch.empty(len(places), dtype=logits_MC.dtype, device=logits_MC.device)
        at = 0
        for t, n in enumerate(alive):
            here = potentials[at : at + n]  # becomes the share of each tag among the sequences so far
            if t:
                here *= potentials[at - alive[t - 1] :][:n] @ follows_CC
            torch.sum(here, 1, out=scales[at : at + n])
            here /= scales[at : at + n, None]
            at += n
        out = torch.zeros(len(lengths), dtype=logits_MC.dtype, device=logits_MC.device)
        row = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(order[:n] for n in alive)])).to(out.device)
        out.index_add_(0, row, scales.log() + highest[places, 0])
        ctx.save_for_backward(logits_MC, potentials, scales, highest, places, row, follows_CC)
        ctx.alive = alive
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Give each logit the probability of its tag among the allowed sequences."""
        logits_MC, shares, scales, highest, places, row, follows_CC = ctx.saved_tensors
        alive: list[int] = ctx.alive
        emitted = (logits_MC - highest).exp_()[places] / scales[:, None]
        probabilities = shares.clone()
        onward = torch.ones_like(shares[: alive[0]]) if alive else shares
        at = len(places)
        for t in reversed(range(len(alive))):
            n = alive[t]
            at -= n
            probabilities[at : at + n] *= onward[:n]
            if t:
                # Rows that end here have no say in what was before but their own.
                onward[:n] = (emitted[at : at + n] * onward[:n]) @ follows_CC.T
        probabilities *= gradients[0][row][:, None]
        return torch.empty_like(probabilities).index_copy_(0, places, probabilities), None, None


#: As a function with types.
_log_partition: Callable[[Tensor, Ints, Tensor], Tensor] = _LogPartition.apply
