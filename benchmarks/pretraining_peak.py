"""What the machine can do: rates of matrix products, measured between the rounds, and FLOPs that a token needs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pretraining_contenders import Gate
from pretraining_data import MASKED_SHARE, Setting

from bert_ops.model.sizes import flops_per_token, load_preset
from bert_ops.training.device import resolve
from bert_ops.training.params import Precision
from bert_ops.training.utilisation import gemm_peak

#: Dense bfloat16 FLOP/s of data sheets, by what the device's name contains; the first that fits counts.
DATA_SHEETS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


@dataclass(frozen=True)
class Peaks:
    """Rates in FLOP/s: the fastest square product in the arithmetic of bf16 contenders and in float32, and the model's.

    ``shapes`` are those of the model's own products (forward), ``together`` what they reach one after the other.
    """

    square: float
    single: float
    shapes: dict[str, float]
    together: float


def measure(gate: Gate, setting: Setting, seconds: float) -> None:
    """Measure whenever a round asks for it; the body of a process beside the contenders."""
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device)
    precision = resolve("auto", device)
    gate.pipe.send({})
    while gate.pipe.recv():
        square = gemm_peak(device, precision, seconds=seconds)
        single = gemm_peak(device, "float32", seconds=seconds)
        shapes, together = model_products(setting, device, precision, seconds=seconds)
        gate.pipe.send(Peaks(square, single, shapes, together))


def model_products(
    setting: Setting, device: torch.device, precision: Precision, *, seconds: float
) -> tuple[dict[str, float], float]:
    """Rates of the model's linear layers, forward, at the batch of the setting: each, and all in their turn."""
    size, tokens = load_preset(setting.model), setting.batch_tokens
    D, feed = size.hidden_size, size.feed_forward_size
    shapes = {
        "query, key, value": (tokens, D, 3 * D),
        "attention output": (tokens, D, D),
        "feed-forward up": (tokens, D, feed),
        "feed-forward down": (tokens, feed, D),
        "masked-token head": (round(MASKED_SHARE * tokens), D, setting.vocab_size),
    }
    times = dict.fromkeys(shapes, size.layers) | {"masked-token head": 1}
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)
    rates, spent, work = {}, 0.0, 0.0
    for name, (rows, inputs, outputs) in shapes.items():
        a = torch.randn(rows, inputs, device=device).to(dtype)
        b = torch.randn(outputs, inputs, device=device).to(dtype)
        fastest = _fastest(a, b, seconds / len(shapes))
        flops = 2.0 * rows * inputs * outputs
        rates[name] = flops / fastest
        spent += times[name] * fastest
        work += times[name] * flops
    return rates, work / spent


def _fastest(a: torch.Tensor, b: torch.Tensor, seconds: float) -> float:
    """Seconds of the fastest product that the time allows, two to warm up aside."""
    best, until = float("inf"), time.monotonic() + seconds
    for number in range(1_000_000):
        if number > 2 and time.monotonic() > until:
            break
        started = _now()
        F.linear(a, b)
        if number >= 2:
            best = min(best, _now() - started)
    return best


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def token_flops(setting: Setting, *, reach: float) -> float:
    """FLOPs that training needs for a real token; what a loop computes beyond that is its own affair.

    3 × (L · (2·4D² + 2·2DF + 2·2·reach·D) + 0.15 · 2D(D + V)), the backward pass counted as twice the forward pass: the
    layers' linear products, attention over ``reach`` tokens, and the masked-token head on the masked positions alone.
    """
    config = load_preset(setting.model).config(vocab_size=setting.vocab_size)
    counted = flops_per_token(config, sequence_tokens=1, masked_share=MASKED_SHARE)
    parts = counted.by_part
    forward = parts["attention_projections"] + parts["feed_forward"] + parts["masked_token_head"]
    return 3.0 * (forward + reach * parts["attention"])


def data_sheet(name: str) -> float | None:
    """Dense bfloat16 rate that the maker gives for a device, FLOP/s, where it is known here."""
    return next((rate for key, rate in DATA_SHEETS.items() if key in name), None)
