"""What the log of a training run says, as figures: the data of ``bert-ops log``.

Figures of a run that is still going, or that was killed, are those so far. Everything is worked out from the log's own
records (:mod:`bert_ops.training.run_log`); a figure that they do not hold is None.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from bert_ops.training.log_lines import Record
from bert_ops.training.norm_bound import suggest_bound

#: Lines at the start, and at the end, over which a loss is averaged.
_EDGE = 5

#: Share of the median throughput below which a line counts as a drop.
_DROP = 0.5

#: Lines on each side that a loss is compared with, and how far above their median a spike stands: both bounds hold.
_NEIGHBOURS, _SPIKE_DEVIATIONS, _SPIKE_SHARE = 12, 6.0, 1.05

#: Gradient norms that a suggested bound needs.
_LEAST_NORMS = 20


def summarise(records: Sequence[Record], *, now: float) -> dict[str, Any]:
    """Summarise a run.

    Args:
        records: its log, not empty.
        now: time in seconds since 1970, for the age of the last record.

    """
    steps = [record for record in records if record["event"] == "step"]
    return {
        "state": _state(records, now=now),
        "start": {name: value for name, value in _first(records, "start").items() if name not in {"event", "time"}},
        "progress": _progress(records, steps),
        "losses": _losses(steps),
        "evaluations": _evaluations(records),
        "learning_rate": _learning_rate(steps),
        "throughput": _throughput(steps),
        "gradient": _gradient(steps),
        "batch": _batch(records, steps),
        "stability": _stability(records, steps),
        "interruptions": _interruptions(records),
        "checkpoints": _checkpoints(records),
    }


def _first(records: Sequence[Record], event: str) -> Record:
    return next((record for record in records if record["event"] == event), {})


def _of(records: Sequence[Record], event: str) -> list[Record]:
    return [record for record in records if record["event"] == event]


def numbers(records: Sequence[Record], name: str) -> list[float]:
    """Finite values of a figure, in order."""
    values = (record.get(name) for record in records)
    return [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def quantile(values: Sequence[float], share: float) -> float | None:
    """Value below which ``share`` of the values lie (linear between neighbours), or None without any."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _state(records: Sequence[Record], *, now: float) -> dict[str, Any]:
    """How the run stands: finished, stopped, or when it last gave a sign of life."""
    last = records[-1]
    kind = {"finish": "finished", "stop": "stopped"}.get(last["event"], "open")
    return {"kind": kind, "reason": last.get("reason"), "age_seconds": round(max(0.0, now - last["time"]), 1)}


def _progress(records: Sequence[Record], steps: Sequence[Record]) -> dict[str, Any]:
    start = _first(records, "start")
    total = start.get("steps") or (start.get("params") or {}).get("steps")
    # The last, not the largest: a rollback takes both counts back.
    done = next((int(value) for value in reversed(numbers(records, "step"))), 0)
    seconds = 0.0
    for before, after in pairwise(records):
        # Between the last sign of a killed process and the first of the next one nothing ran.
        if after["event"] != "resume" and before["event"] != "stop":
            seconds += max(0.0, after["time"] - before["time"])
    recent = steps[-20:]
    pace = None
    if len(recent) > 1 and recent[-1]["step"] > recent[0]["step"]:
        pauses = [b["time"] - a["time"] for a, b in pairwise(recent)]
        pace = statistics.median(pauses) * (len(recent) - 1) / (recent[-1]["step"] - recent[0]["step"])
    left = None if total is None or pace is None else max(0, total - done) * pace
    return {
        "step": done,
        "total_steps": total,
        "tokens": next((int(value) for value in reversed(numbers(records, "tokens"))), 0),
        "lines": len(steps),
        "seconds": round(seconds, 1),
        "seconds_left": None if left is None else round(left, 1),
    }


def loss_names(steps: Sequence[Record]) -> list[str]:
    """Names of the losses in step lines: ``loss``, then one an objective; a lone objective is the loss itself."""
    names = list(dict.fromkeys(name for record in steps for name in record if name.endswith("_loss")))
    return ["loss", *names] if len(names) != 1 else ["loss"]


def _losses(steps: Sequence[Record]) -> dict[str, Any]:
    found = {}
    for name in loss_names(steps):
        values = numbers(steps, name)
        if values:
            found[name] = {
                "start": statistics.fmean(values[:_EDGE]),
                "now": statistics.fmean(values[-_EDGE:]),
                "curve": _thinned(values),
            }
    return found


def _thinned(values: Sequence[float], points: int = 60) -> list[float]:
    """Medians of as many stretches of a curve as fit on a line."""
    size = max(1, math.ceil(len(values) / points))
    return [round(statistics.median(values[i : i + size]), 5) for i in range(0, len(values), size)]


def _evaluations(records: Sequence[Record]) -> dict[str, Any] | None:
    rows = _of(records, "evaluation")
    if not rows:
        return None
    names = [name for name in rows[-1] if name.endswith("_loss") and name.startswith("validation")]
    best = {}
    for name in names:
        scored = [row for row in rows if numbers([row], name)]
        if scored:
            lowest = min(scored, key=lambda row: float(row[name]))
            best[name] = {"value": lowest[name], "step": lowest["step"]}
    last = {name: value for name, value in rows[-1].items() if name not in {"event", "time", "tokens"}}
    gap = {}
    for name in names:
        train = last.get(name.replace("validation", "train", 1))
        if train is not None:
            gap[name.removeprefix("validation_")] = float(last[name]) - float(train)
    return {"count": len(rows), "last": last, "best": best, "gap": gap}


def _learning_rate(steps: Sequence[Record]) -> dict[str, Any] | None:
    rates = numbers(steps, "learning_rate")
    if not rates:
        return None
    peak = max(range(len(rates)), key=rates.__getitem__)
    return {"now": rates[-1], "peak": rates[peak], "peak_step": steps[peak]["step"]}


def _throughput(steps: Sequence[Record]) -> dict[str, Any] | None:
    rates = numbers(steps, "tokens_per_second")
    if not rates:
        return None
    median = statistics.median(rates)
    slow = [record for record in steps if 0 < record.get("tokens_per_second", 0) < _DROP * median]
    # A line stands for the same number of steps as any other, so time lost is what it took beyond the median's.
    lines = len(rates)
    lost = sum(median / record["tokens_per_second"] - 1 for record in slow)
    share = lost / (lines + lost) if lines else 0.0
    return {
        "tokens_per_second": median,
        "recent": statistics.median(rates[-_EDGE:]),
        "drops": len(slow),
        "drop_steps": [record["step"] for record in slow[:5]],
        "drop_time_share": share,
        "utilisation": _median(numbers(steps, "utilisation")),
        "memory_mib": max(numbers(steps, "memory_mib"), default=None),
    }


def _gradient(steps: Sequence[Record]) -> dict[str, Any] | None:
    norms = numbers(steps, "gradient_norm")
    if not norms:
        return None
    shares = numbers(steps, "clip_share")
    return {
        "median": quantile(norms, 0.5),
        "p90": quantile(norms, 0.9),
        "p99": quantile(norms, 0.99),
        "max": max(norms),
        "clip_share": statistics.fmean(shares) if shares else None,
        "suggested_bound": suggested_bound(norms),
    }


def suggested_bound(norms: Sequence[float]) -> float | None:
    """Clipping bound that the norms of a run speak for, or None where there are too few of them."""
    if len(norms) < _LEAST_NORMS:
        return None
    return suggest_bound(norms)


def _batch(records: Sequence[Record], steps: Sequence[Record]) -> dict[str, Any] | None:
    sizes = numbers(steps, "batch_tokens")
    noise = [record["noise_scale"] for record in steps if isinstance(record.get("noise_scale"), float | int)]
    if not sizes:
        return None
    return {
        "start": sizes[0],
        "now": sizes[-1],
        "changes": len(_of(records, "batch_size")),
        "noise_scale": noise[-1] if noise else None,
        "passes": _of(records, "micro_batch")[-1].get("passes") if _of(records, "micro_batch") else None,
    }


def _stability(records: Sequence[Record], steps: Sequence[Record]) -> dict[str, Any]:
    skips, rollbacks = _of(records, "skip"), _of(records, "rollback")
    return {
        "skipped": len(skips),
        "last_skips": [{k: r.get(k) for k in ("step", "loss", "gradient_norm", "reason")} for r in skips[-3:]],
        "rollbacks": [{k: r.get(k) for k in ("step", "to_step", "rate_scale", "reason")} for r in rollbacks],
        "spikes": _spikes(steps),
    }


def _spikes(steps: Sequence[Record]) -> list[dict[str, Any]]:
    """Lines whose loss stands out above those before it, and above those after it: a falling curve has none."""
    found = []
    losses = [float(record.get("loss") or math.nan) for record in steps]
    for place, record in enumerate(steps):
        sides = (losses[max(0, place - _NEIGHBOURS) : place], losses[place + 1 : place + 1 + _NEIGHBOURS])
        before, after = ([loss for loss in side if math.isfinite(loss)] for side in sides)
        if len(before) < _NEIGHBOURS // 2 or not math.isfinite(losses[place]):
            continue
        if all(losses[place] > _bound(side) for side in (before, after) if len(side) >= _NEIGHBOURS // 2):
            found.append({"step": record["step"], "loss": losses[place], "around": statistics.median(before + after)})
    return found


def _bound(losses: Sequence[float]) -> float:
    """Loss above which a line stands out of others."""
    middle = statistics.median(losses)
    # 1.4826 medians of absolute deviations are a standard deviation, where values are normally distributed.
    deviation = 1.4826 * statistics.median(abs(loss - middle) for loss in losses)
    return max(middle + _SPIKE_DEVIATIONS * deviation, _SPIKE_SHARE * middle)


def _interruptions(records: Sequence[Record]) -> dict[str, Any]:
    resumes = _of(records, "resume")
    return {
        "resumes": len(resumes),
        "steps": [record.get("step") for record in resumes],
        "lost_steps": int(sum(numbers(resumes, "lost_steps"))),
        "lost_seconds": round(sum(numbers(resumes, "lost_seconds")), 1),
    }


def _checkpoints(records: Sequence[Record]) -> dict[str, Any] | None:
    made = _of(records, "checkpoint")
    if not made:
        return None
    spent = sum(max(0.0, b["time"] - a["time"]) for a, b in pairwise(records) if b["event"] != "resume")
    stalls = sum(numbers(made, "stall_seconds"))
    return {
        "count": len(made),
        "last_step": made[-1].get("step"),
        "bytes": made[-1].get("bytes"),
        "stall_seconds": round(stalls, 3),
        "stall_share": stalls / spent if spent > 0 else None,
    }
