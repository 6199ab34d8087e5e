"""How fast pretraining is, side by side with the ``Trainer`` of transformers on the same machine, cores and text.

`ratio_padded`, `ratio_grouped` and `ratio_best` are our real (non-padding) tokens a second to those of three settings
of that library (pretraining_peers.py says what they are); `ratio_best_same_environment` is to the last one when it runs
with the settings of the allocator that our command line makes. Each round measures ours before and after each peer;
ratios are medians of rounds, `…_spread` their extremes. `gemm_share` is the share of the machine's own peak of matrix
products, measured between the rounds, that our training reaches with the FLOPs a real token needs
(pretraining_peak.py). `loss_difference` is ours in bfloat16 to ours in float32 and `loss_difference_best` to the best
peer, per cent of the held-out masked-token loss after the same tokens, from the same weights at the same rates
(pretraining_quality.py; with `--quality`, else null).

    python benchmarks/pretraining.py [--quick] [--model base] [--vocab-size 21128] [--quality]

Without the library its part is left out; without a token store, a made-up one is read. On a GPU the model is BERT-base
at lengths 128 and 512; the last line then holds an object for each length in `lengths`, and the keys of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pretraining_ours as ours
import pretraining_peak as peak
import pretraining_peers as peers
import pretraining_quality as quality
import pretraining_report as report
import torch
from pretraining_contenders import WARM_UP, Contender, Round, start
from pretraining_data import Setting, made_up_store
from pretraining_heldout import Budget

from bert_ops.schema import read_yaml
from bert_ops.tokenizer.store import TokenStore


def main() -> None:
    """Measure and print."""
    arguments = parse()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is busy (load {load:.1f}): what follows is worth little")
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for length in arguments.lengths:
            setting = make_setting(arguments, length, Path(folder))
            print(f"\n{setting.model}, vocabulary {setting.vocab_size:,}, batches of {setting.rows} × {length} tokens")
            results[length] = speed(arguments, setting)
            if arguments.quality or arguments.quick:
                budget = Budget.of(arguments, setting)
                results[length] |= quality.compare(setting, budget, rates=results[length]["tokens_per_second"])
        first = results[arguments.lengths[0]]
    print(json.dumps(first | {"load_before": round(load, 2)} | ({"lengths": results} if len(results) > 1 else {})))


def parse() -> argparse.Namespace:
    """The command line; what depends on the device is filled in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, same keys; figures mean little")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--model", choices=["tiny", "mini", "small", "medium", "base"], help="default: mini; GPU: base")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens of a row (default: 128; GPU: 128 512)")
    parser.add_argument("--batch-tokens", type=int, help="tokens of an optimiser step (4096; base 2048; GPU 65536)")
    parser.add_argument("--tokens", type=Path, default=Path("data/tokens"), help="token store (default: %(default)s)")
    parser.add_argument("--vocab-size", type=int, help="rows of the embedding (default: the store's; made up: 21128)")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a measurement, about (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="steps of a measurement, instead of --seconds")
    parser.add_argument("--peers", nargs="*", choices=report.PEERS, default=list(report.PEERS), help="default: all")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")
    parser.add_argument("--quality", action="store_true", help="train several seeds and compare held-out losses")
    parser.add_argument("--seeds", type=int, default=3, help="of --quality (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, help="of --quality (default: 1e-3; medium 5e-4, base 2e-4)")
    parser.add_argument("--budget", type=int, default=2_000_000, help="tokens that each of them trains on")
    arguments = parser.parse_args()
    if arguments.device == "auto":
        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = arguments.device == "cuda"
    arguments.lengths = arguments.lengths or ([128, 512] if on_gpu and not arguments.quick else [128])
    if arguments.quick:
        arguments.model, arguments.rounds, arguments.steps = arguments.model or "tiny", 2, 3
        arguments.peers = [name for name in arguments.peers if name != report.BEST_TWICE]
        arguments.batch_tokens = arguments.batch_tokens or 1024
    arguments.model = arguments.model or ("base" if on_gpu else "mini")
    # Of base, five contenders and their activations have to fit into the memory of a small machine.
    small = 2048 if arguments.model == "base" else 4096
    arguments.batch_tokens = arguments.batch_tokens or (65536 if on_gpu else small)
    return arguments


def make_setting(arguments: argparse.Namespace, length: int, scratch: Path) -> Setting:
    """What all contenders share."""
    tokens: Path = arguments.tokens
    if not (tokens / "manifest.json").is_file():
        tokens = scratch / "tokens"
        if not tokens.is_dir():
            tokens.mkdir()
            made_up_store(tokens, vocab_size=arguments.vocab_size or 21128)
            print(f"{arguments.tokens} is no token store: random ids after Zipf, lengths as in the sample's documents")
    vocab_size = max(arguments.vocab_size or 0, TokenStore.open(tokens).vocab_size)
    return Setting(
        section=read_yaml(Path(__file__).parents[1] / "params.yaml")["pretrain"],
        tokens=tokens,
        model=arguments.model,
        vocab_size=vocab_size,
        sequence_tokens=length,
        rows=max(1, arguments.batch_tokens // length),
        threads=arguments.threads,
        device=arguments.device,
    )


def speed(arguments: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Rates, ratios and shares of the peak."""
    choices = choose(arguments, setting)
    with ExitStack() as stack:

        def begin(name: str, body: Any, *values: Any, environment: dict[str, str] | None = None) -> Contender:
            contender = start(name, body, *values, environment=environment)
            stack.callback(contender.close)
            return contender

        changes = {"compile": True} if arguments.compile else {}
        us = begin("ours", ours.train, setting, changes, environment=ours.environment())
        others = [
            begin(name, peers.train, "best", setting, choice, environment=ours.environment())
            if name == report.BEST_TWICE
            else begin(name, peers.train, name, setting, choice)
            for name, choice in choices.items()
        ]
        gauge = begin("peak", peak.measure, setting, 0.2 if arguments.quick else 1.0)
        us.ready()
        gauge.ready()
        others = [other for other in others if is_ready(other)]
        steps = {c.name: warm_up(c, arguments) for c in (us, *others)}
        peaks: list[peak.Peaks] = []
        ratios: report.Ratios = {other.name: [] for other in others}
        for _ in range(arguments.rounds):
            peaks.append(gauge.measure(1))
            us.run_round(steps["ours"])
            for other in others:
                other.run_round(steps[other.name])
                us.run_round(steps["ours"])
                before, after = us.rounds[-2:]
                ratios[other.name].append((before.rate + after.rate) / 2 / other.rounds[-1].rate)
            peaks.append(gauge.measure(1))
        return report.show(setting, us, others, peaks, ratios)


def choose(arguments: argparse.Namespace, setting: Setting) -> dict[str, peers.Choice]:
    """The settings of each peer that can run: its fastest ones, found before anything else works."""
    if not peers.installed():
        print("transformers or accelerate are not installed: no peers")
        return {}
    choices: dict[str, peers.Choice] = {}
    for name in arguments.peers:
        if name == report.BEST_TWICE:
            continue
        choices[name] = peers.Choice()
        if not arguments.quick:
            choices[name] = peers.fastest(name, setting, seconds=arguments.seconds / 4)
    # It is about the allocator of a CPU's memory.
    if report.BEST_TWICE in arguments.peers and "best" in choices and setting.device == "cpu":
        choices[report.BEST_TWICE] = choices["best"]
    return choices


def is_ready(peer: Contender) -> bool:
    """Wait until a peer can begin; say so if it cannot."""
    try:
        peer.ready()
    except SystemExit as error:
        print(f"left out: {error}")
        return False
    return True


def warm_up(contender: Contender, arguments: argparse.Namespace) -> int:
    """Let it find its pace; the steps of its measurements."""
    first: Round = contender.measure(WARM_UP)
    return arguments.steps or max(2, round(arguments.seconds * first.steps / first.seconds))


if __name__ == "__main__":
    main()
