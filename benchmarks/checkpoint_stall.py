"""What do checkpoints cost a run? The same steps with a checkpoint every few seconds and with none, in turns.

Both train the same model on the same batches through :func:`bert_ops.pretrain.fitting.fit`. Time is counted from the
first evaluation to the last, and in a run with checkpoints until the last one is on disk. What a checkpoint costs is
what the run with them took longer, divided by their number; ``share_at_default`` is that over the seconds between two
checkpoints of params.yaml.

    python benchmarks/checkpoint_stall.py --tokens data/tokens

The last line is one JSON object: ``slowdown``, ``seconds_a_checkpoint`` and ``share_at_default`` (each median, least,
most over the rounds), ``copying_share`` (seconds within ``CheckpointStore.save``, over the run), ``checkpoints``,
``state_mib``, ``every_s``, ``default_s``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1500")  # as bert_ops.__main__ does

from bert_ops.__main__ import wanted_environment
from bert_ops.model.sizes import count_parameters, load_preset, preset_names
from bert_ops.pretrain import fitting
from bert_ops.pretrain.params import PretrainParams
from bert_ops.schema import read_yaml
from bert_ops.tokenizer.store import TokenStore
from bert_ops.training.checkpoint import CheckpointStore, Retention
from bert_ops.training.device import pick_device, prepare
from bert_ops.training.loop import Row

#: A weight and the two moments of AdamW, in float32.
STATE_BYTES = 12


def main() -> None:
    """Take turns and print what they show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, default=Path("data/tokens"), help="token store")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--model", choices=preset_names(), default="mini")
    parser.add_argument("--every-s", type=float, default=5.0, help="seconds between two checkpoints")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps of a turn, 4,096 tokens each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a run of under a minute that prints the same keys")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.every_s, arguments.steps, arguments.rounds = "tiny", 1.0, 24, 2
    if not (arguments.tokens / "manifest.json").is_file():
        parser.error(f"{arguments.tokens} is no token store: `dvc repro tokenize` makes one")
    section = read_yaml(arguments.params)["pretrain"]
    params = PretrainParams(**section | settings(section, arguments))
    store = TokenStore.open(arguments.tokens)
    prepare(threads=params.threads, seed=params.seed)
    default = section["checkpoints"]["every_s"]
    state = STATE_BYTES * count_parameters(params.model.config(vocab_size=store.vocab_size)).total / 2**20
    print(f"{arguments.model}, {state:.0f} MiB of state, a checkpoint every {arguments.every_s:g} s", flush=True)
    slowdown, cost, copying, written = [], [], [], 0
    turn(store, params, saving=False)  # to warm up
    for number in range(arguments.rounds):
        taken = {saving: turn(store, params, saving=saving) for saving in ((False, True), (True, False))[number % 2]}
        (plain, _, _), (saved, stalled, count) = taken[False], taken[True]
        slowdown.append(saved / plain - 1)
        cost.append((saved - plain) / count)
        copying.append(stalled / saved)
        written += count
        print(f"  {plain:.1f} s without, {saved:.1f} s with {count}: {slowdown[-1]:+.1%}", flush=True)
    result = {
        "slowdown": spread(slowdown),
        "seconds_a_checkpoint": spread(cost),
        "share_at_default": spread([each / default for each in cost]),
        "copying_share": spread(copying),
        "checkpoints": written,
        "state_mib": round(state, 1),
        "every_s": arguments.every_s,
        "default_s": default,
    }
    middle, least, most = (f"{value:.1%}" for value in result["slowdown"])
    print(f"every {arguments.every_s:g} s: training takes {middle} longer ({least} to {most})")
    middle, least, most = (f"{value:.2%}" for value in result["share_at_default"])
    print(f"every {default:g} s, as in params.yaml: {middle} ({least} to {most})")
    print(json.dumps(result))


def settings(section: dict, arguments: argparse.Namespace) -> dict:
    """What differs from params.yaml."""
    return {
        "model": load_preset(arguments.model).model_dump(),
        "embedding_init": {**section["embedding_init"], "kind": "normal"},
        "threads": os.cpu_count(),
        "sequence_tokens": 128,
        "batch": {**section["batch"], "tokens": 4096, "micro_tokens": 4096},
        "schedule": {"kind": "constant", "warmup_steps": 0},
        "steps": arguments.steps,
        "evaluate_every_steps": arguments.steps // 4,
        "checkpoints": {**section["checkpoints"], "every_s": arguments.every_s, "every_steps": arguments.steps},
    }


def turn(store: TokenStore, params: PretrainParams, *, saving: bool) -> tuple[float, float, int]:
    """Train once: seconds from the first evaluation to the last, those within ``save``, checkpoints written."""
    clock: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        checkpoints = CheckpointStore(Path(folder), retention=Retention(2, 0), identity={}) if saving else None
        saves = 0
        if checkpoints:
            save = checkpoints.save

            def counted(*values: object, **named: object) -> bool:
                nonlocal saves
                done = save(*values, **named)
                saves += done and len(clock) > 0
                return done

            checkpoints.save = counted  # type: ignore[method-assign]

        def evaluated(_: list[Row]) -> None:
            if checkpoints and len(clock) == evaluations - 1:
                checkpoints.flush()
            clock.append((time.perf_counter(), checkpoints.stall_seconds if checkpoints else 0.0))

        evaluations = params.steps // params.evaluate_every_steps
        model = fitting.build_model(store, params).to(pick_device())
        seen = fitting.held_out_units(store["validation"], params, store.vocab_size)[:1]
        fitting.fit(model, store, params, held_out=seen, probe=seen, checkpoints=checkpoints, on_evaluation=evaluated)
        if checkpoints:
            checkpoints.close()
    (began, stall_before), (ended, stall_after) = clock[0], clock[-1]
    return ended - began, stall_after - stall_before, saves


def spread(values: list[float]) -> list[float]:
    """Median, least and most."""
    return [round(value, 5) for value in (statistics.median(values), min(values), max(values))]


if __name__ == "__main__":
    missing = {k: v for k, v in wanted_environment(["pretrain"]).items() if os.environ.get(k) != v}
    if missing:  # the allocator is told before a process begins
        os.environ.update(missing)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
