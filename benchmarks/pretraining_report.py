"""The table of the pretraining benchmark, and the figures of its last line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pretraining_peak as peak
import torch
from pretraining_contenders import Contender
from pretraining_data import Setting, mean_reach

from bert_ops.training.utilisation import machine

#: Peers by the name under which they are reported.
BEST_TWICE = "best_same_environment"
PEERS = ("padded", "grouped", "best", BEST_TWICE)

#: Ours to each peer, by round.
Ratios = dict[str, list[float]]


def show(
    setting: Setting, us: Contender, others: Sequence[Contender], peaks: Sequence[peak.Peaks], ratios: Ratios
) -> dict[str, Any]:
    """Print rates, ratios and shares of the peak; return the figures."""
    square, single = (statistics.median(getattr(one, kind) for one in peaks) for kind in ("square", "single"))
    half = max(square, *(statistics.median(one.shapes[name] for one in peaks) for name in peaks[0].shapes))
    facts = machine(torch.device(setting.device), processes=1, peak=half)
    own = mean_reach(setting)
    # Attention of a CPU computes whole rows; the kernel of a GPU no more than an example sees.
    reach = own if setting.device == "cuda" else float(setting.sequence_tokens)
    flops = peak.token_flops(setting, reach=reach)
    print(f"{facts['device']}, {setting.threads} threads, torch {facts['torch']}")
    _show_peaks(half, square, single, peaks)
    print(f"a real token needs {flops / 1e6:,.1f} MFLOPs with attention over {reach:.0f} tokens\n")
    print(f"{'':22} {'real tokens/s':>14} {'from':>10} {'to':>10}  of peak  ours to it, and spread")
    for one in (us, *others):
        rates = [r.rate for r in one.rounds]
        top = single if one.name in ("padded", "grouped") else half
        line = f"{one.name:22} {one.median():14,.0f} {min(rates):10,.0f} {max(rates):10,.0f}"
        line += f"  {one.median() * flops / top:7.1%}"
        if found := ratios.get(one.name):
            line += f"  {statistics.median(found):6.2f}  ({min(found):.2f} to {max(found):.2f})"
        print(f"{line}  {one.facts.get('setting', '')}".rstrip())
    share, spread = middle([r.rate * flops / half for r in us.rounds])
    figures: dict[str, Any] = {}
    for name in PEERS:
        figures[f"ratio_{name}"], figures[f"ratio_{name}_spread"] = middle(ratios.get(name, []))
    figures |= {
        "gemm_share": share,
        "gemm_share_spread": spread,
        "gemm_share_own_examples": round(us.median() * peak.token_flops(setting, reach=own) / half, 4),
        "loss_difference": None,
        "loss_difference_ci95": None,
        "loss_difference_best": None,
        "loss_difference_best_ci95": None,
        "tokens_per_second": {one.name: round(one.median(), 1) for one in (us, *others)},
        "real_share_padded": next((o.facts["real_share"] for o in others if o.name == "padded"), None),
        "model": setting.model,
        "length": setting.sequence_tokens,
        "vocab_size": setting.vocab_size,
        "batch_tokens": setting.batch_tokens,
        "device": facts["device"],
        "threads": setting.threads,
        "flops_per_token": flops,
        "peak": half,
        "peak_square": square,
        "peak_float32": single,
    }
    if (sheet := peak.data_sheet(facts["device"])) is not None and setting.device == "cuda":
        figures |= {"data_sheet_peak": sheet, "data_sheet_share": round(us.median() * flops / sheet, 4)}
        print(f"data sheet: {sheet / 1e12:,.0f} TFLOP/s, of which ours reach {figures['data_sheet_share']:.1%}")
    return figures


def _show_peaks(half: float, square: float, single: float, peaks: Sequence[peak.Peaks]) -> None:
    """Print the rates of matrix products."""
    print(f"peak of matrix products: {half / 1e9:,.0f} GFLOP/s (square ones {square / 1e9:,.0f}), ", end="")
    print(f"in float32 {single / 1e9:,.0f}")
    shapes = {name: statistics.median(one.shapes[name] for one in peaks) for name in peaks[0].shapes}
    together = statistics.median(one.together for one in peaks)
    print("the model's own: " + ", ".join(f"{name} {rate / half:.0%}" for name, rate in shapes.items()), end="")
    print(f"; all of them in turn {together / half:.0%}")


def middle(values: Sequence[float]) -> tuple[float | None, list[float] | None]:
    """Median and extremes, or None where nothing was measured."""
    if not values:
        return None, None
    return round(statistics.median(values), 4), [round(min(values), 4), round(max(values), 4)]
