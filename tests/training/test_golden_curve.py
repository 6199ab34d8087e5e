"""The golden loss curve: a small real pretraining run makes the losses that are stored beside this file.

A change of arithmetic, of data order, of masking, of initial weights or of a default shows here. If it was meant to
be, write the curve anew with ``python tests/training/test_golden_curve.py`` and say in the commit why it changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_runs as toy

GOLDEN = Path(__file__).with_name("golden.json")

#: Relative. Kernels for other processors (tried: SSE, AVX2, AVX-512) sum in another order, which makes up to 5e-7; the
#: optimiser's epsilon larger by a hundredth makes 4e-6.
TOLERANCE = 2e-6

#: The whole recipe stands here: a change of params.yaml is no change of the engine.
SETTINGS: dict[str, Any] = {
    "seed": 1,
    "precision": "float32",
    "steps": 20,
    "log_every_steps": 1,
    "evaluate_every_steps": 10,
    "batch": {"tokens": 256, "micro_tokens": 128, "growth": {"kind": "constant"}},
    "optimizer": {
        "kind": "adamw", "learning_rate": 0.02, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-6,
    },
    "schedule": {"kind": "linear", "warmup_steps": 4, "final_share": 0.0},
    "clipping": {"norm": 1.0, "value": None},
    "averaging": {"decay": 0.5},
    "masking": {"rate": 0.3, "final_rate": 0.15, "mask": 0.8, "random": 0.1, "whole_words": False},
    "sentence_objective": "nsp",
    "position_init": "normal",
    "model": {
        "hidden_size": 32, "layers": 2, "heads": 2, "feed_forward_size": 64, "max_positions": 48,
        "hidden_dropout": 0.1, "attention_dropout": 0.1, "initializer_range": 0.08, "activation": "gelu",
        "positions": "learned", "norm": "post",
    },
    "stability": {
        "spike_deviations": 8.0, "window": 100, "max_skips_in_a_row": 10, "rate_factor": 0.5, "max_rollbacks": 2,
    },
}  # fmt: skip


def made_store(folder: Path) -> Path:
    """A token store of documents in which a token says much about the next one."""
    from bert_ops.tokenizer.store_writer import SplitWriter, write_manifest
    from bert_ops.tokenizer.wordpiece import SpecialIds

    rng, vocabulary, special = np.random.default_rng(0), 60, SpecialIds()
    folder.mkdir()
    splits = {}
    for name, documents in (("train", 150), ("validation", 20)):
        writer = SplitWriter(folder, name, dtype=np.uint16, shard_tokens=1000)
        lengths = [rng.integers(3, 15, rng.integers(2, 6)) for _ in range(documents)]
        tokens = int(sum(map(sum, lengths)))
        steps = rng.choice([1, 2, 7], tokens, p=[0.8, 0.15, 0.05]).cumsum() + rng.integers(vocabulary)
        writer.extend(
            (len(special) + steps % vocabulary).astype(np.uint16),
            np.ones(tokens, np.bool_),
            np.concatenate(lengths),
            np.concatenate([np.arange(len(each)) == 0 for each in lengths]),
            repeats=np.ones(documents, np.uint8),
        )
        splits[name] = writer.close()
    write_manifest(
        folder, vocab_size=len(special) + vocabulary, vocab_sha256="golden", special_ids=special, splits=splits
    )
    return folder


def curve(folder: Path, **changes: Any) -> dict[str, list[float]]:
    """Losses of every step and of the evaluations."""
    import yaml

    root = Path(__file__).parents[2]
    section = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["pretrain"]
    params = toy.small_params({"pretrain": {**section, "threads": 1}}, **{**SETTINGS, **changes})
    toy.pretrained(made_store(folder / "tokens"), params, folder / "run")
    steps, evaluations = toy.events(folder / "run", "step"), toy.events(folder / "run", "evaluation")
    return {
        **{name: [line[name] for line in steps] for name in ("mlm_loss", "nsp_loss", "gradient_norm")},
        "validation_mlm_loss": [row["validation_mlm_loss"] for row in evaluations],
    }


def largest_difference(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """Largest relative difference of two curves."""
    assert {name: len(values) for name, values in one.items()} == {name: len(values) for name, values in other.items()}
    return max(float(np.max(np.abs(np.divide(one[name], other[name]) - 1))) for name in one)


@pytest.fixture(scope="module")
def golden() -> dict[str, list[float]]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_curve_is_the_golden_one(tmp_path: Path, golden: dict[str, list[float]]) -> None:
    assert largest_difference(curve(tmp_path), golden) <= TOLERANCE
    assert golden["validation_mlm_loss"][-1] < golden["validation_mlm_loss"][0] < golden["mlm_loss"][0]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"optimizer": {**SETTINGS["optimizer"], "epsilon": 1.1e-6}},
        {"optimizer": {**SETTINGS["optimizer"], "weight_decay": 0.101}},
        {"clipping": {"norm": 2.0, "value": None}},
        {"averaging": {"decay": 0.51}},
        {"precision": "bfloat16"},
    ],
    ids=["seed", "epsilon", "decay", "clipping", "average", "precision"],
)
def test_what_must_differ_differs(tmp_path: Path, golden: dict[str, list[float]], change: dict[str, Any]) -> None:
    assert largest_difference(curve(tmp_path, **change), golden) > 3 * TOLERANCE


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(curve(Path(scratch)), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {GOLDEN}\n")
