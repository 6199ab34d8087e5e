"""The words of ``bert-ops log``: a summary, and single records, for people."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_ops.progress import duration
from bert_ops.training.log_figures import loss_names
from bert_ops.training.log_lines import Record

_LABEL = 14
_BARS = "▁▂▃▄▅▆▇█"

#: Seconds without a new line after which an unfinished run is taken for dead, at least.
_SILENCE_S = 60.0


def one_line(record: Record) -> str:
    """A record for people."""
    event, figures = record["event"], {n: v for n, v in record.items() if n not in {"event", "time"}}
    clock = time.strftime("%H:%M:%S", time.localtime(record["time"]))
    if event != "step":
        shown = [f"{name} {_short(value)}" for name, value in figures.items() if not isinstance(value, dict | list)]
        return f"{clock} {event}: {' · '.join(shown)}"
    losses = [f"{name.replace('_', ' ')} {figures[name]:.4f}" for name in loss_names([record]) if name in figures]
    parts = [
        f"step {figures['step']:,}",
        *losses,
        f"rate {figures.get('learning_rate', 0):.2e}",
        f"norm {_short(figures.get('gradient_norm'))}",
        f"{_short(figures.get('tokens_per_second'))} tokens/s",
        f"batch {_short(figures.get('batch_tokens'))}",
    ]
    if figures.get("utilisation") is not None:
        parts.append(f"{figures['utilisation']:.0%} of peak")
    return f"{clock} {' · '.join(parts)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def render(path: Path, figures: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the summary."""
    yield f"Run {path}"
    yield from _entry("State", _state(figures))
    model = figures["start"].get("model") or {}
    if model.get("parameters"):
        named = f"{model['preset']}, " if model.get("preset") else ""
        cost = f", {model['flops_per_token'] / 1e6:,.1f} MFLOP a token" if model.get("flops_per_token") else ""
        yield from _entry("Model", f"{named}{model['parameters']:,} parameters{cost}")
    yield from _entry("Progress", _progress(figures["progress"]))
    for name, loss in figures["losses"].items():
        yield from _entry(_title(name), f"{loss['start']:.4f} at the start, {loss['now']:.4f} now")
        if name == "loss":
            yield from _entry("", spark(loss["curve"]))
    yield from _evaluations(figures["evaluations"])
    yield from _training(figures)
    yield from _trouble(figures)


def _title(name: str) -> str:
    """Name of a loss for people: "Loss", "MLM loss"."""
    objective = name.removesuffix("loss").strip("_")
    return f"{objective.upper().replace('_', ' ')} loss" if objective else "Loss"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _entry(label: str, text: str) -> Iterator[str]:
    yield f"{label:<{_LABEL}}{text}"


def _state(figures: dict[str, Any]) -> str:
    state, pace = figures["state"], figures["progress"]
    ago = duration(state["age_seconds"])
    if state["kind"] == "finished":
        return f"finished {ago} ago"
    if state["kind"] == "stopped":
        reason = str(state["reason"]).splitlines()[0]  # a diagnosis has more, which `--json` gives whole
        return f"stopped {ago} ago: {reason}; `dvc repro` goes on from the last checkpoint"
    # A line takes as long as its steps: a slow run is silent for longer without being dead.
    patience = max(_SILENCE_S, 10 * pace["seconds"] / max(pace["lines"], 1))
    if state["age_seconds"] <= patience:
        return f"running, last sign of life {ago} ago"
    return f"no sign of life for {ago}: killed? `dvc repro` goes on from the last checkpoint"


def _progress(figures: dict[str, Any]) -> str:
    total = figures["total_steps"]
    text = f"step {figures['step']:,}" + (f" of {total:,} ({figures['step'] / total:.0%})" if total else "")
    text += f", {figures['tokens']:,} tokens in {duration(figures['seconds'])}"
    if figures["seconds_left"]:
        text += f", about {duration(figures['seconds_left'])} left"
    return text


def spark(values: list[float]) -> str:
    """A curve as a line of blocks."""
    if not values:
        return ""
    low, high = min(values), max(values)
    size = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / size * (len(_BARS) - 1))] for value in values)


def _evaluations(figures: dict[str, Any] | None) -> Iterator[str]:
    if figures is None:
        return
    for name, best in figures["best"].items():
        short = name.removeprefix("validation_")
        gap = figures["gap"].get(short)
        now = f"{_title(short)} {figures['last'][name]:.4f}"
        text = f"{now}, best {best['value']:.4f} at step {best['step']:,}"
        if gap is not None:
            text += f", {abs(gap):.4f} {'above' if gap >= 0 else 'below'} that of the training sample"
        yield from _entry("Held out", text)


def _training(figures: dict[str, Any]) -> Iterator[str]:
    rate, speed, norm, batch = (figures[name] for name in ("learning_rate", "throughput", "gradient", "batch"))
    if rate is not None:
        yield from _entry(
            "Learning rate", f"{rate['now']:.3g} now, peak {rate['peak']:.3g} at step {rate['peak_step']:,}"
        )
    if batch is not None:
        grown = f", {batch['start']:,.0f} at the start" if batch["start"] != batch["now"] else ""
        noise = "" if batch["noise_scale"] is None else f"; noise scale {_noise(batch['noise_scale'])}"
        passes = f"; a unit is read in {batch['passes']} passes (memory)" if batch["passes"] else ""
        yield from _entry("Batch", f"{batch['now']:,.0f} tokens{grown}{noise}{passes}")
    if speed is not None:
        used = f", {speed['utilisation']:.0%} of the GEMM peak" if speed["utilisation"] is not None else ""
        memory = f", {speed['memory_mib']:,.0f} MiB" if speed["memory_mib"] is not None else ""
        yield from _entry("Throughput", f"{speed['tokens_per_second']:,.0f} tokens/s (median){used}{memory}")
        if speed["drops"]:
            at = ", ".join(f"{step:,}" for step in speed["drop_steps"])
            cost = f"cost {speed['drop_time_share']:.1%} of the time"
            yield from _entry("", f"below half of that {_times(speed['drops'])} (step {at}): {cost}")
    if norm is not None:
        text = f"median {norm['median']:.3g}, 90% {norm['p90']:.3g}, 99% {norm['p99']:.3g}, most {norm['max']:.3g}"
        yield from _entry("Gradient norm", text)
        if norm["clip_share"] is not None:
            bound = norm["suggested_bound"]
            advice = f"; its norms suggest clipping.norm {bound:.3g}" if bound is not None else ""
            yield from _entry("Clipped", f"{norm['clip_share']:.1%} of the steps{advice}")


def _noise(scale: float) -> str:
    return f"{scale:,.0f} tokens" if math.isfinite(scale) else "beyond what batches of this size can tell"


def _trouble(figures: dict[str, Any]) -> Iterator[str]:
    stability, breaks, saved = (figures[name] for name in ("stability", "interruptions", "checkpoints"))
    yield from _entry("Skipped steps", f"{stability['skipped']:,}" if stability["skipped"] else "none")
    for skip in stability["last_skips"]:
        yield from _entry("", f"step {skip['step']:,}: {skip['reason']} (loss {_short(skip['loss'])})")
    for rollback in stability["rollbacks"]:
        scale = f", rate × {rollback['rate_scale']:g}" if rollback["rate_scale"] else ""
        yield from _entry("Rolled back", f"at step {rollback['step']:,} to {_short(rollback['to_step'])}{scale}")
    for spike in stability["spikes"][:5]:
        yield from _entry("Spike", f"step {spike['step']:,}: loss {spike['loss']:.4g}, {spike['around']:.4g} around it")
    if len(stability["spikes"]) > 5:
        yield from _entry("", f"and {len(stability['spikes']) - 5} more")
    if breaks["resumes"]:
        lost = f"{breaks['lost_steps']:,} steps done again, {duration(breaks['lost_seconds'])} lost"
        yield from _entry("Resumed", f"{_times(breaks['resumes'])}: {lost}")
    if saved is not None:
        share = f" ({saved['stall_share']:.1%} of the time)" if saved["stall_share"] is not None else ""
        size = f", {saved['bytes'] / 2**20:,.1f} MiB" if saved["bytes"] else ""
        yield from _entry(
            "Checkpoints",
            f"{saved['count']}, last at step {_short(saved['last_step'])}{size}; "
            f"training waited {saved['stall_seconds']:.1f} s{share}",
        )
