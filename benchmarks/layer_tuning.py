"""What does it cost, and what does it save, to train a part of the model only? Score, seconds, memory, parameters.

Each variant of ``finetune.layers`` learns each task from the same pretrained model on the same examples, once a seed,
in a process of its own; the variants of a seed take turns, and the order moves by one from seed to seed, so that a
machine that is busy at times is so for all of them. Seconds are those of the steps alone; memory is the most that the
process had while it trained, above what it had before (examples and libraries), so that the model counts and the code
that libraries make for each size of matrix, too. What autograd keeps of a pass over 32 texts of 64 tokens is counted
beside: layers that are not back-propagated through keep nothing.

Nobody gets a rate that was made for another: from the rate of params.yaml each variant goes on to larger or smaller
multiples of it (``--rates``) as long as its validation loss falls, on a seed that the study does not use.

    python benchmarks/layer_tuning.py [--quick]

Figures are of the test split, with weights chosen on the validation split. The last line is one JSON object of
``score``, ``score_difference`` (to ``all``, of the same seed), ``seconds``, ``seconds_ratio`` and ``memory_ratio`` (to
``all``), ``memory_mib``: for each task and variant a list over seeds; ``kept_mib``, ``trained_parameters``,
``learning_rate``: for each task and variant; ``parameters``, ``steps``: for each task; ``setting``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1500")  # as bert_ops.__main__ does

from layer_tuning_run import Figures, Setting, Variant, layers_of, peak_rate, run

from bert_ops.schema import read_yaml

#: Seed of the runs that rates are chosen by.
TUNING_SEED = 1000

#: Low-rank updates of query and value, as in the paper (Hu et al. 2021), or of every matrix.
LORA: dict[str, Any] = {"rank": 8, "alpha": 16.0, "dropout": 0.0}
MODULES = ["query", "key", "value", "attention_out", "up", "down"]

#: Figures of a variant, one a seed.
Results = dict[str, list[Figures]]


def variants(layers: int) -> dict[str, dict[str, Any]]:
    """Values of ``finetune.layers`` that differ from "everything at one rate", by name."""
    whole: dict[str, Any] = {
        "train": "all",
        "top": None,
        "freeze_embeddings": False,
        "rate_decay": 1.0,
        "unfreeze_over": 0.0,
        "reinitialized": 0,
    }
    changes: dict[str, dict[str, Any]] = {
        "all": {},
        "head": {"train": "head"},
        "top 1": {"top": 1},
        "top half": {"top": layers // 2},
        "frozen embeddings": {"freeze_embeddings": True},
        "biases": {"train": "biases"},
        "lora": {"train": "lora", "lora": LORA | {"modules": ["query", "value"]}},
        "lora everywhere": {"train": "lora", "lora": LORA | {"modules": MODULES}},
        "rate decay 0.8": {"rate_decay": 0.8},
        "gradual": {"unfreeze_over": 0.5},
        "reinitialized 1": {"reinitialized": 1},
    }
    if layers < 4:
        del changes["top half"]  # is the top layer
    return {name: whole | change for name, change in changes.items()}


def main() -> None:
    """Run the study."""
    arguments = parse()
    layers = layers_of(settings_of(arguments)[0])
    chosen = {
        name: v
        for name, v in variants(layers).items()
        if arguments.variants is None or name in {"all"} | set(arguments.variants)
    }
    unknown = set(arguments.variants or ()) - set(chosen)
    if unknown:
        raise SystemExit(f"unknown variants {', '.join(sorted(unknown))}; allowed: {', '.join(variants(layers))}")
    results, rates = {}, {}
    for setting in settings_of(arguments):
        rates[setting.task] = choose_rates(setting, chosen, arguments.rates)
        results[setting.task] = study(setting, chosen, rates[setting.task], seeds=arguments.seeds)
        print_table(setting, results[setting.task], rates[setting.task])
    facts = {"init": str(arguments.init), "layers": layers, "seeds": arguments.seeds, "threads": arguments.threads}
    facts |= {"quick": arguments.quick, "epochs": arguments.epochs, "limit": arguments.limit}
    print(json.dumps(summary(results) | {"learning_rate": rates, "setting": facts}))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, default=Path("models/pretrained"), help="model folder to start from")
    parser.add_argument("--examples", type=Path, default=Path("data/corpus/examples"), help="examples of the tasks")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--tasks", nargs="+", help="default: all of params.yaml")
    parser.add_argument("--variants", nargs="+", help="default: all; `all` is always one of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.2, 0.5, 1, 2, 5, 10, 20, 50], help="multiples")
    parser.add_argument("--epochs", type=int, help="default: as in params.yaml")
    parser.add_argument("--limit", type=int, help="examples of a split at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="a run of under a minute that prints the same keys")
    arguments = parser.parse_args()
    known = list(read_yaml(arguments.params)["tasks"])
    arguments.tasks = arguments.tasks or known
    if set(arguments.tasks) - set(known):
        parser.error(f"--tasks takes {', '.join(known)}")
    if arguments.quick:
        arguments.tasks, arguments.seeds, arguments.rates = arguments.tasks[:1], arguments.seeds[:1], [1.0]
        arguments.epochs, arguments.limit = 1, 250
    for path, stage in ((arguments.init / "model.safetensors", "pretrain"), (arguments.examples, "ingest")):
        if not path.exists():
            parser.error(f"{path} does not exist: `dvc repro {stage}` makes it")
    return arguments


def settings_of(arguments: argparse.Namespace) -> list[Setting]:
    """The settings, one a task."""
    changes: dict[str, Any] = {"threads": arguments.threads}
    if arguments.epochs is not None:
        changes["epochs"] = arguments.epochs
    if arguments.quick:
        changes |= {"evaluations_per_epoch": 1, "probe_examples": 50}
    return [
        Setting(
            init=arguments.init,
            examples=arguments.examples,
            params=arguments.params,
            task=task,
            limit=arguments.limit,
            changes=changes,
        )
        for task in arguments.tasks
    ]


def choose_rates(setting: Setting, chosen: dict[str, dict[str, Any]], multiples: Sequence[float]) -> dict[str, float]:
    """Peak rate of each variant: the one among neighbours that gives the lowest validation loss."""
    base, rates = peak_rate(setting), {}
    for name, layers in chosen.items():
        if len(multiples) == 1:
            rates[name] = base * multiples[0]
            continue

        def loss_at(rate: float, layers: dict[str, Any] = layers) -> float:
            return run(setting, Variant(layers, rate), seed=TUNING_SEED).validation_loss

        allowed = [base * multiple for multiple in sorted(multiples)]
        rates[name], tried = climb(allowed, base, loss_at)
        edge = "; at the edge of what may be tried" if rates[name] in {allowed[0], allowed[-1]} else ""
        say(f"{setting.task}, {name}: {', '.join(f'{rate:.1e} {loss:.4f}' for rate, loss in tried.items())}{edge}")
    return rates


def climb(rates: Sequence[float], first: float, loss_at: Callable[[float], float]) -> tuple[float, dict[float, float]]:
    """Go from ``first`` up, and down, as long as it gets better.

    Args:
        rates: what may be tried, ascending.
        first: where to begin, or near it.
        loss_at: what is to be low.

    Returns:
        The best rate, and the losses of all that were tried.

    """
    tried: dict[float, float] = {}

    def loss(place: int) -> float:
        if rates[place] not in tried:
            tried[rates[place]] = loss_at(rates[place])
        return tried[rates[place]]

    best = min(range(len(rates)), key=lambda place: abs(rates[place] - first))
    for step in (1, -1):
        while 0 <= best + step < len(rates) and loss(best + step) < loss(best):
            best += step
    return rates[best], dict(sorted(tried.items()))


def study(
    setting: Setting, chosen: dict[str, dict[str, Any]], rates: dict[str, float], *, seeds: Sequence[int]
) -> Results:
    """Learn the task with every variant and seed, in turns."""
    results: Results = {name: [] for name in chosen}
    for number, seed in enumerate(seeds):
        names = list(chosen)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            figures = run(setting, Variant(chosen[name], rates[name]), seed=seed)
            results[name].append(figures)
            say(
                f"{setting.task}, seed {seed}, {name}: {figures.score:.4f}, {figures.seconds:.1f} s, "
                f"{figures.memory_mib:.0f} MiB"
            )
    return results


def summary(results: dict[str, Results]) -> dict[str, Any]:
    """The JSON object, without what is known beforehand."""

    def of(take: Any) -> dict[str, dict[str, Any]]:
        return {
            task: {name: [take(f, a) for f, a in zip(runs, own["all"], strict=True)] for name, runs in own.items()}
            for task, own in results.items()
        }

    return {
        "score": of(lambda f, _: f.score),
        "score_difference": of(lambda f, a: f.score - a.score),
        "seconds": of(lambda f, _: round(f.seconds, 3)),
        "seconds_ratio": of(lambda f, a: f.seconds / a.seconds),
        "memory_mib": of(lambda f, _: round(f.memory_mib, 1)),
        "memory_ratio": of(lambda f, a: f.memory_mib / a.memory_mib),
        "kept_mib": {t: {n: round(runs[0].kept_mib, 2) for n, runs in own.items()} for t, own in results.items()},
        "trained_parameters": {t: {n: runs[0].trained for n, runs in own.items()} for t, own in results.items()},
        "parameters": {task: own["all"][0].parameters for task, own in results.items()},
        "steps": {task: own["all"][0].steps for task, own in results.items()},
    }


def print_table(setting: Setting, results: Results, rates: dict[str, float]) -> None:
    """Figures for people: means over seeds, smallest and largest."""
    whole = results["all"]
    print(f"\n{setting.task}: {whole[0].steps:,} steps, {whole[0].parameters:,} parameters; over {len(whole)} seeds")
    print("score on the test split; mean (smallest to largest)\n")
    rows = [
        ["", "trained", "share", "peak rate", "score", "less than all", "seconds", "of all", "MiB", "of all", "kept"]
    ]
    for name, runs in results.items():
        pairs = list(zip(runs, whole, strict=True))
        rows.append(
            [
                name,
                f"{runs[0].trained:,}",
                f"{runs[0].trained / runs[0].parameters:.1%}",
                f"{rates[name]:.1e}",
                _spread([f.score for f in runs], digits=4),
                _spread([a.score - f.score for f, a in pairs], digits=4),
                _spread([f.seconds for f in runs], digits=1),
                f"{statistics.median(f.seconds / a.seconds for f, a in pairs):.2f}",
                f"{statistics.median(f.memory_mib for f in runs):.0f}",
                f"{statistics.median(f.memory_mib / a.memory_mib for f, a in pairs):.2f}",
                f"{runs[0].kept_mib:.1f}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _spread(values: Sequence[float], *, digits: int) -> str:
    low, mean, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.fmean(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def say(text: str) -> None:
    """Tell how far the study is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
