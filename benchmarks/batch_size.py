"""What does a batch that grows save? Tokens and seconds to equal held-out loss, against a constant batch.

Four contenders train the same model on the same units of text in the same order, at a constant rate after warmup:

- ``constant``: the large batch from the first step to the last;
- ``small``: the small batch throughout;
- ``ramp``: from the small batch to the large one in a line, over half of the token budget;
- ``noise_scale``: from the small batch on as the gradient noise scale says, up to the large one.

Nobody gets a rate that was made for another: the rate of params.yaml is taken to each batch by the square root of its
size; ``--rates`` then tries multiples of it for both constant batches, on a seed that the study does not use. The two
that grow follow the large one's rate with ``rate_scaling: sqrt``. All runs of a seed take turns, an evaluation at a
time, so that a machine that is busy at times is so for all of them; evaluation and waiting are not counted.

All runs read passes of half the small batch, as runs that grow must. A constant batch need not: how much faster it is
with passes of ``--wide`` tokens is measured beside, in turns, and ``seconds_ratio_wide`` is the ratio to such a run.

The loss to be reached is the lowest of ``constant`` in half and in all of the token budget, each seed by itself. Losses
are means over the last three evaluations. Below 1 saves. What is not reached in 1.5 budgets is null.

    python benchmarks/batch_size.py --tokens data/tokens

The last line is one JSON object: ``tokens_ratio``, ``seconds_ratio`` (and both with ``_half``), ``seconds_ratio_wide``,
``loss_at_budget``, ``batch_tokens``, ``noise_scale``, ``steps``: for each contender a list over seeds;
``wide_pass_speed``; ``learning_rate``; ``setting``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1500")  # as bert_ops.__main__ does

import numpy as np
from batch_size_curve import SMOOTHING, Curve
from batch_size_run import Setting, begin, contenders, vectors

#: Budgets after which a contender gives up.
LIMIT = 1.5

#: Seed of the runs that rates are chosen by.
TUNING_SEED = 1000


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, default=Path("data/tokens"), help="token store")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--batch", type=int, default=8192, help="tokens of the large batch")
    parser.add_argument("--small", type=int, default=1024, help="tokens of the small one: two passes")
    parser.add_argument("--wide", type=int, default=2048, help="tokens of a pass where no small batch bounds it")
    parser.add_argument("--budget", type=int, default=1_500_000, help="tokens of a run")
    parser.add_argument("--evaluations", type=int, default=24, help="over the budget")
    parser.add_argument("--examples", type=int, default=400, help="held-out examples of an evaluation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="multiples to choose from")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="a run of under a minute that prints the same keys")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.budget, arguments.evaluations, arguments.rates = 40_960, 6, [1.0]
        arguments.batch, arguments.seeds, arguments.examples = 4096, arguments.seeds[:1], 200
    if arguments.small % 256 or arguments.batch % arguments.small or arguments.batch < 2 * arguments.small:
        parser.error("--small takes a multiple of 256, --batch a larger multiple of that")
    if arguments.wide % 128 or arguments.batch % (2 * arguments.wide):
        parser.error("--wide takes a multiple of 128 that goes twice into --batch")
    if arguments.budget < 2 * SMOOTHING * arguments.batch or arguments.evaluations < 2 * SMOOTHING:
        parser.error(f"--budget takes at least {2 * SMOOTHING} batches, --evaluations at least {2 * SMOOTHING}")
    if not (arguments.tokens / "manifest.json").is_file():
        parser.error(f"{arguments.tokens} is no token store: `dvc repro tokenize` makes one")
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(
            tokens=arguments.tokens,
            params=arguments.params,
            scratch=Path(scratch),
            batch=arguments.batch,
            small=arguments.small,
            budget=arguments.budget,
            every=max(arguments.batch, arguments.budget // arguments.evaluations),
            threads=arguments.threads,
            examples=arguments.examples,
        )
        if not arguments.quick:
            vectors(setting)
        study(setting, seeds=arguments.seeds, multiples=arguments.rates, wide=arguments.wide)


def study(setting: Setting, *, seeds: Sequence[int], multiples: Sequence[float], wide: int) -> None:
    """Choose rates, run all seeds, print a table and a line of JSON."""
    rates = tune(setting, multiples)
    results = {name: Result() for name in rates}
    for number, seed in enumerate(seeds):
        curves = race(setting, rates, seed=seed, first=number)
        for name, result in results.items():
            result.add(curves[name], curves["constant"], budget=setting.budget)
        say(f"seed {seed}: " + ", ".join(f"{name} {r.loss[-1]:.4f}" for name, r in results.items()))
    speed = wide_pass_speed(setting, wide=wide, rate=rates["constant"])
    print_table(setting, results, rates)
    print(
        f"a constant batch with passes of {wide:,} tokens is {speed:.2f} times as fast as with {setting.unit:,}: "
        "multiply seconds by that to compare with such a run"
    )
    to_wide = {name: [None if r is None else r * speed for r in result.seconds] for name, result in results.items()}
    print(
        json.dumps(
            {
                key: {name: getattr(result, attribute) for name, result in results.items()}
                for key, attribute in KEYS.items()
            }
            | {"seconds_ratio_wide": to_wide, "wide_pass_speed": speed}
            | {"learning_rate": rates, "setting": setting.facts() | {"seeds": list(seeds)}}
        )
    )


def tune(setting: Setting, multiples: Sequence[float]) -> dict[str, float]:
    """Peak rate of each contender."""
    chosen = {}
    for name in ("constant", "small"):
        base = setting.rate(contenders(setting)[name].tokens)
        best = multiples[0]
        if len(multiples) > 1:
            tried = {m: race(setting, {name: base * m}, seed=TUNING_SEED)[name] for m in multiples}
            ends = {m: curve.at(setting.budget) for m, curve in tried.items()}
            best = min(ends, key=lambda m: ends[m])
            edge = "; at the edge of what was tried" if best in {min(multiples), max(multiples)} else ""
            say(f"{name}: " + ", ".join(f"{base * m:.2e} {loss:.4f}" for m, loss in ends.items()) + edge)
        chosen[name] = base * best
    return {name: chosen["small" if name == "small" else "constant"] for name in contenders(setting)}


def race(setting: Setting, rates: dict[str, float], *, seed: int, first: int = 0) -> dict[str, Curve]:
    """Train contenders in turns; the order moves by one each round.

    One goes on until it has read the budget and is as good as ``constant`` was then, or past the limit.
    """
    runs = {name: begin(setting, name, rate=rate, seed=seed) for name, rate in rates.items()}
    curves: dict[str, Curve] = {name: Curve() for name in runs}
    going, turn = list(runs), first
    try:
        while going:
            for name in going[turn % len(going) :] + going[: turn % len(going)]:
                curves[name].points.append(runs[name].turn())
            turn += 1
            for name in list(going):
                if _over(curves[name], curves.get("constant"), budget=setting.budget):
                    curves[name].log = runs[name].close()
                    going.remove(name)
    finally:
        for run in runs.values():
            run.close()
    return curves


def wide_pass_speed(setting: Setting, *, wide: int, rate: float, turns: int = 4) -> float:
    """How much faster the constant batch is with wide passes: median over turns, each beside one with narrow passes."""
    both = (setting, dataclasses.replace(setting, small=2 * wide))  # a pass is half of the small batch
    pair = [begin(one, "constant", rate=rate, seed=TUNING_SEED + one.unit) for one in both]
    try:
        points = [[run.turn() for run in pair] for _ in range(turns + 1)]
    finally:
        for run in pair:
            run.close()
    # The first turn warms up.
    return statistics.median(
        (after[0].seconds - before[0].seconds) / (after[1].seconds - before[1].seconds)
        for before, after in pairwise(points)
    )


def _over(curve: Curve, reference: Curve | None, *, budget: int) -> bool:
    tokens = curve.points[-1].tokens
    if tokens < budget:
        return False
    if reference is None or reference is curve or tokens >= LIMIT * budget:
        return True
    return reference.points[-1].tokens >= budget and curve.reach(reference.lowest(budget)) is not None


@dataclass
class Result:
    """A contender's figures, one a seed."""

    tokens: list[float | None] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list)
    tokens_half: list[float | None] = field(default_factory=list)
    seconds_half: list[float | None] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    batch: list[list[int]] = field(default_factory=list)
    noise: list[float | None] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def add(self, curve: Curve, reference: Curve, *, budget: int) -> None:
        """Take in a seed."""
        for share, tokens, seconds in ((1.0, self.tokens, self.seconds), (0.5, self.tokens_half, self.seconds_half)):
            target = reference.lowest(share * budget)
            own, theirs = curve.reach(target), reference.reach(target)
            assert theirs is not None
            tokens.append(None if own is None else own.tokens / theirs.tokens)
            seconds.append(None if own is None else own.seconds / theirs.seconds)
        self.loss.append(curve.at(budget))
        sizes = [line["batch_tokens"] for line in curve.log]
        lines = curve.log[: int(np.searchsorted(np.cumsum(sizes), budget)) + 1]
        sizes = sizes[: len(lines)]
        self.batch.append([min(sizes), round(statistics.fmean(sizes)), max(sizes)])
        finite = [line["noise_scale"] for line in lines[len(lines) // 2 :] if _is_finite(line["noise_scale"])]
        self.noise.append(statistics.median(finite) if finite else None)
        self.steps.append(len(lines))


#: Keys of the JSON line, and where a result has them.
KEYS = {
    "tokens_ratio": "tokens",
    "seconds_ratio": "seconds",
    "tokens_ratio_half": "tokens_half",
    "seconds_ratio_half": "seconds_half",
    "loss_at_budget": "loss",
    "batch_tokens": "batch",
    "noise_scale": "noise",
    "steps": "steps",
}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def print_table(setting: Setting, results: dict[str, Result], rates: dict[str, float]) -> None:
    """Figures for people: means over seeds, smallest and largest."""
    print(f"{setting.budget:,} tokens a run; relative to the constant batch, mean (smallest to largest) over seeds\n")
    head = ["", "peak rate", "tokens a step", "steps", "loss", "tokens to half", "to all", "seconds to half", "to all"]
    rows = [head]
    for name, result in results.items():
        low, mean, high = (round(statistics.fmean(values)) for values in zip(*result.batch, strict=True))
        rows.append(
            [
                name,
                f"{rates[name]:.2e}",
                f"{mean:,}" if low == high else f"{low:,} to {high:,}, mean {mean:,}",
                f"{statistics.fmean(result.steps):,.0f}",
                _spread(result.loss, digits=4),
                *(_spread(v) for v in (result.tokens_half, result.tokens, result.seconds_half, result.seconds)),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    noise = [value for value in results["noise_scale"].noise if value is not None]
    told = f"{_spread(noise, digits=0)} tokens" if noise else "beyond what these batches tell"
    print(f"\ngradient noise scale, median of the later half: {told}")


def _spread(values: Sequence[float | None], *, digits: int = 2) -> str:
    reached = [value for value in values if value is not None]
    if len(reached) < len(values) or not reached:
        return f"{len(values) - len(reached)} of {len(values)} not reached"
    low, mean, high = (f"{v:,.{digits}f}" for v in (min(reached), statistics.fmean(reached), max(reached)))
    return mean if low == high else f"{mean} ({low} to {high})"


def say(text: str) -> None:
    """Tell how far the study is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
