"""Latency of one text at a time, all runtimes in turn so that whatever else the machine does hits all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bert_ops.compress.params import LatencyParams
from bert_ops.compress.scoring import Ids, Scorer
from bert_ops.errors import InputError


def text_of(length: int, texts: Sequence[Ids]) -> Ids:
    """Make a text of exactly ``length`` tokens out of the first texts: ``[CLS]``, their pieces, ``[SEP]``."""
    inner = np.concatenate([ids[1:-1] for ids in texts])
    if not len(inner):
        raise InputError("no text of the test split has a token", remedy="check the sources of the task's examples")
    return np.concatenate([texts[0][:1], np.resize(inner, length - 2), texts[0][-1:]])


def measure(
    scorers: Mapping[str, Scorer], texts: Sequence[Ids], params: LatencyParams, *, threads: int
) -> dict[str, dict[str, float]]:
    """Time each scorer on one text of ``params.tokens`` tokens.

    Returns:
        For each scorer the median ``p50`` and the 95th percentile ``p95`` of a call, in milliseconds.

    """
    ids_1T = text_of(params.tokens, texts)[None]
    segments_1T, attend_1T = np.zeros_like(ids_1T), np.ones_like(ids_1T)
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for run in range(params.warmup + params.runs):
            for name, scorer in scorers.items():
                start = time.perf_counter()
                scorer(ids_1T, segments_1T, attend_1T)
                elapsed = time.perf_counter() - start
                if run >= params.warmup:
                    seconds[name].append(elapsed)
    finally:
        torch.set_num_threads(before)
    return {
        name: {"p50": float(np.percentile(values, 50) * 1e3), "p95": float(np.percentile(values, 95) * 1e3)}
        for name, values in seconds.items()
    }
