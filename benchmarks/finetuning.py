"""How fast fine-tuning is, side by side with the ``Trainer`` of transformers on the same texts, cores and weights.

`ratio_trainer` is our examples a second to those of the ``Trainer`` as the library's guides use it (dynamic padding,
float32); `ratio_padded` and `ratio_best` to two other settings of it (finetuning_sides.py says what they are). Each
round measures ours before and after each peer; ratios are medians of rounds, `…_spread` their extremes. `accuracy` and
`accuracy_trainer` are those on the test split after the whole training, a seed each, from the same first weights with
the same rate, batch and epochs; ours has its own regularisation (params.yaml), the ``Trainer`` BERT's dropout.

    python benchmarks/finetuning.py --examples data/corpus/examples/sentiment.parquet --tokens data/tokens [--quick]

The model is BERT-mini (4 layers of 256), pretrained here for a minute or two from the token store; `--init FOLDER`
takes a folder instead. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import finetuning_sides as sides
from finetuning_sides import PEERS, Setting
from pretraining_contenders import SPIN, WARM_UP, Contender, start
from pretraining_quality import STUDENT, in_a_process

from bert_ops.model import huggingface
from bert_ops.model.sizes import load_preset
from bert_ops.pretrain import fitting
from bert_ops.pretrain.params import PretrainParams
from bert_ops.schema import read_yaml
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training.device import prepare

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure and print."""
    arguments = parse()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): what follows is worth little")
    with tempfile.TemporaryDirectory() as folder:
        init = arguments.init or in_a_process(make_model, arguments, Path(folder), environment=SPIN)
        setting = make_setting(arguments, init)
        result = speed(arguments, setting)
        result |= accuracy(arguments, setting)
    print(json.dumps({**result, "load_before": round(load, 2)}))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=Path, default=Path("data/corpus/examples/sentiment.parquet"))
    parser.add_argument("--task", default="sentiment", help="name of the task in params.yaml (%(default)s)")
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml")
    parser.add_argument("--init", type=Path, help="model folder to start from (default: BERT-mini, pretrained here)")
    parser.add_argument("--tokens", type=Path, default=Path("data/tokens"), help="token store (%(default)s)")
    parser.add_argument("--tokenizer", type=Path, default=Path("models/tokenizer"), help="its tokenizer (%(default)s)")
    parser.add_argument("--pretrain-tokens", type=int, default=1_500_000, help="that the model has seen (%(default)s)")
    parser.add_argument("--preset", default="mini", help="size of the model that is pretrained here (%(default)s)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender (%(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a measurement, about (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="of the accuracy; none: no training")
    parser.add_argument("--accuracy-peer", choices=PEERS, default="dynamic", help="whose accuracy (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="under a minute, same keys; figures mean little")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.seeds = 1, 0.5, [1]
        arguments.pretrain_tokens, arguments.preset = 20_000, "tiny"
    return arguments


def make_model(arguments: argparse.Namespace, folder: Path) -> Path:
    """Pretrain a model of the preset's size for some tokens; its folder."""
    store = TokenStore.open(arguments.tokens)
    section = read_yaml(arguments.params)["pretrain"]
    batch = {"tokens": 2048, "micro_tokens": 2048, "growth": {"kind": "constant"}}
    steps = max(10, arguments.pretrain_tokens // 2048)
    params = PretrainParams.model_validate(
        section
        | {
            "model": load_preset(arguments.preset).model_dump(),
            "batch": batch,
            "steps": steps,
            "schedule": {"kind": "linear", "warmup_steps": steps // 10, "final_share": 0.0},
            "evaluate_every_steps": steps,
        }
    )
    prepare(threads=params.threads, seed=params.seed)
    with redirect_stderr(StringIO()):
        model = fitting.build_model(store, params)
        held_out = fitting.held_out_units(store["validation"], params, store.vocab_size)[:4]
        run = fitting.fit(model, store, params, held_out=held_out, probe=held_out)
    huggingface.save_model(model, folder / "init")
    wordpiece.copy(arguments.tokenizer, folder / "init")
    loss = run.history[-1]["validation_mlm_loss"]
    print(f"pretrained {arguments.preset} on {run.tokens:,} tokens: held-out loss {loss:.3f}", flush=True)
    return folder / "init"


def make_setting(arguments: argparse.Namespace, init: Path) -> Setting:
    """What all contenders share."""
    changes: dict[str, Any] = {"epochs": 1} if arguments.quick else {}
    limit = 300 if arguments.quick else None
    return Setting(
        init=init,
        examples=arguments.examples,
        params=arguments.params,
        task=arguments.task,
        changes=changes,
        limit=limit,
    )


def speed(arguments: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Examples a second of all, in turns, and their ratios."""
    with ExitStack() as stack:

        def begin(name: str, body: Any, *values: Any, environment: dict[str, str] | None = None) -> Contender:
            contender = start(name, body, *values, environment=environment)
            stack.callback(contender.close)
            contender.ready()
            return contender

        us = begin("ours", sides.ours, setting, environment=sides.our_environment())
        others = [
            begin(name, sides.peer, name, setting, attention(name, setting, arguments))
            for name in sides.names_of(arguments.peers)
        ]
        steps = {}
        for contender in (us, *others):
            first = contender.measure(WARM_UP)
            steps[contender.name] = max(2, round(arguments.seconds * first.steps / first.seconds))
        ratios: dict[str, list[float]] = {other.name: [] for other in others}
        for _ in range(arguments.rounds):
            us.run_round(steps["ours"])
            for other in others:
                other.run_round(steps[other.name])
                us.run_round(steps["ours"])
                before, after = us.rounds[-2:]
                ratios[other.name].append((before.rate + after.rate) / 2 / other.rounds[-1].rate)
        return show(us, others, ratios)


def attention(name: str, setting: Setting, arguments: argparse.Namespace) -> str:
    """The faster of the two implementations that a peer may use."""
    if arguments.quick:
        return "sdpa"
    rates = {}
    for tried in ("sdpa", "eager"):
        contender = start(f"{name} ({tried})", sides.peer, name, setting, tried)
        contender.ready()
        first = contender.measure(2)
        steps = max(2, round(arguments.seconds / 2 * first.steps / first.seconds))
        rates[tried] = max(contender.measure(steps).rate for _ in range(2))
        contender.close()
        print(f"  {name} with {tried} attention: {rates[tried]:,.1f} examples/s")
    return max(rates, key=lambda tried: rates[tried])


def show(us: Contender, others: list[Contender], ratios: dict[str, list[float]]) -> dict[str, Any]:
    """Print rates and ratios, and return them."""
    print(f"\n{'':10} {'examples/s':>12}   ours to it, and spread")
    result: dict[str, Any] = {"examples_per_second": {"ours": round(us.median(), 1)}}
    print(f"{'ours':10} {us.median():12,.1f}")
    for other in others:
        found = ratios[other.name]
        middle, low, high = statistics.median(found), min(found), max(found)
        print(f"{other.name:10} {other.median():12,.1f}   {middle:.2f} ({low:.2f} to {high:.2f})")
        key = "trainer" if other.name == "dynamic" else other.name
        result["examples_per_second"][other.name] = round(other.median(), 1)
        result[f"ratio_{key}"] = round(middle, 3)
        result[f"ratio_{key}_spread"] = [round(low, 3), round(high, 3)]
    return result


def accuracy(arguments: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Test accuracy of both sides over seeds."""
    from dataclasses import replace

    found: dict[str, list[float]] = {"accuracy": [], "accuracy_trainer": []}
    for seed in arguments.seeds:
        seeded = replace(setting, seed=seed)
        found["accuracy"].append(in_a_process(sides.learn_ours, seeded, environment=sides.our_environment()))
        line = f"seed {seed}: test accuracy ours {found['accuracy'][-1]:.4f}"
        if sides.installed():
            peer = in_a_process(sides.learn_peer, seeded, arguments.accuracy_peer, "sdpa", environment=SPIN)
            found["accuracy_trainer"].append(peer)
            line += f", {arguments.accuracy_peer} {peer:.4f}"
        print(line)
    result: dict[str, Any] = {name: [round(value, 4) for value in values] for name, values in found.items()}
    if len(found["accuracy_trainer"]) > 1:
        gaps = [100 * (a - b) for a, b in zip(found["accuracy"], found["accuracy_trainer"], strict=True)]
        half = STUDENT[min(len(gaps) - 1, len(STUDENT)) - 1] * statistics.stdev(gaps) / len(gaps) ** 0.5
        middle = statistics.mean(gaps)
        result["points"], result["points_ci95"] = round(middle, 2), [round(middle - half, 2), round(middle + half, 2)]
        print(f"ours less the Trainer's: {middle:+.2f} points ({middle - half:+.2f} to {middle + half:+.2f})")
    return result


if __name__ == "__main__":
    main()
