"""The pretraining benchmark: what it counts, and that its quick run prints every key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"

KEYS = {
    *(f"ratio_{name}" for name in ("padded", "grouped", "best", "best_same_environment")),
    *(f"ratio_{name}_spread" for name in ("padded", "grouped", "best", "best_same_environment")),
    *("gemm_share", "gemm_share_spread", "loss_difference", "loss_difference_ci95", "loss_difference_best"),
    *("model", "device", "vocab_size", "tokens_per_second", "real_share_padded", "peak", "load_before"),
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from pretraining_data import Setting, made_up_store
    finally:
        sys.path.remove(str(BENCHMARKS))
    from bert_ops.schema import read_yaml

    folder = made_up_store(tmp_path_factory.mktemp("store"), vocab_size=300, documents=400)
    section = read_yaml(ROOT / "params.yaml")["pretrain"]
    sizes = {"model": "tiny", "vocab_size": 400, "sequence_tokens": 64, "rows": 8, "threads": 1, "device": "cpu"}
    return Setting(section=section, tokens=folder, **sizes)


def test_a_made_up_store_is_a_whole_one(setting: Any) -> None:
    from bert_ops.tokenizer.store import TokenStore

    store = TokenStore.open(setting.tokens, verify=True)
    train = store["train"]
    assert train.documents == 400
    assert 50 < train.tokens / train.documents < 130
    ids = np.concatenate(list(train.shard_ids()))
    assert ids.min() == 5
    counts = np.bincount(ids, minlength=300)
    assert counts[5:15].sum() > 3 * counts[100:110].sum()


def test_the_padded_peer_reads_the_examples_that_ours_packs(setting: Any) -> None:
    from pretraining_data import examples

    from bert_ops.pretrain import fitting

    stream = fitting.make_stream(setting.store["train"], setting.params(), vocab_size=400, rows=8)
    batch, _ = next(stream.units(None))
    found = examples(setting, len(batch.cls))
    special = setting.store.special
    ids = batch.ids.reshape(-1).copy()
    ids[batch.masked] = batch.targets
    assert sum(len(example.ids) for example in found) == batch.tokens
    assert np.concatenate([e.ids for e in found]).tolist() == ids[batch.examples.reshape(-1) > 0].tolist()
    assert [e.pair for e in found] == batch.pair.tolist()
    for example in found:
        assert example.ids[0] == special.cls
        assert example.ids[-1] == special.sep
        assert special.mask not in example.ids
        assert (example.segments.max() == 1) == (example.pair >= 0)


def test_rows_of_the_grouped_peers_are_the_texts_one_after_the_other(setting: Any) -> None:
    from pretraining_data import chunks

    view = setting.store["train"]
    rows = chunks(view, tokens=64)
    assert rows.shape == ((view.tokens + 2 * view.documents) // 64, 64)
    first = view.span(0, int(view.sentence_ends[view.document_ends[1]]))
    start = rows.reshape(-1)[: len(first) + 2].tolist()
    assert start == [view.special.cls, *first.tolist(), view.special.sep]
    assert chunks(view, tokens=64, limit=2)[:2].tolist() == rows[:2].tolist()


def test_flops_of_a_token_are_those_that_the_product_reports(setting: Any) -> None:
    from pretraining_peak import token_flops

    from bert_ops.model.sizes import flops_per_token

    counted = flops_per_token(setting.params().model.config(vocab_size=400), sequence_tokens=64, masked_share=0.15)
    assert token_flops(setting, reach=64) == pytest.approx(counted.training - 3 * counted.by_part["pair_head"])
    assert token_flops(setting, reach=32) < token_flops(setting, reach=64)


class Nothing(torch.nn.Module):
    """A model without anything."""

    def forward(self, *, tokens: int) -> None:
        """Do nothing with so many tokens."""


def idle_loop(gate: Any, tokens: int) -> None:
    """A contender that does nothing in each of the two passes of a step, and evaluates now and then."""
    model = Nothing()
    gate.watch(model, lambda named: named["tokens"], passes=2)
    gate.facts = {"told": os.environ["TOLD"]}
    for number in range(1000):
        model.train()(tokens=tokens)
        time.sleep(0.01)
        if number % 3 == 0:
            model.eval()(tokens=10**6)  # counts for nothing


def test_a_round_is_a_number_of_steps_and_counts_what_they_read() -> None:
    from pretraining_contenders import start

    contender = start("idle", idle_loop, 7, environment={"TOLD": "in its environment"})
    contender.ready()
    assert contender.facts == {"told": "in its environment"}
    assert "TOLD" not in os.environ
    for steps in (1, 3):
        one = contender.measure(steps, lead_in=2)
        assert (one.steps, one.tokens) == (steps, 2 * 7 * steps)
        assert one.seconds >= 0.01 * 2 * steps  # it slept so long
    contender.close()
    assert contender.process.exitcode == 0


def test_time_to_a_loss_and_differences() -> None:
    from pretraining_quality import difference, reach, time_to_loss

    fast = [(100, 5.0, 0.0, 0.0), (200, 4.0, 0.0, 0.0), (300, 3.0, 0.0, 0.0)]
    slow = [(100, 5.0, 0.0, 0.0), (200, 4.5, 0.0, 0.0), (300, 3.5, 0.0, 0.0)]
    assert reach(fast, 3.5) == 250
    assert reach(fast, 6.0) == 100
    found = time_to_loss({"ours": [fast], "best": [slow], "other": [fast]}, {"ours": 50.0, "best": 10.0})
    assert found["target_loss"] == 3.5
    assert found["tokens_to_loss"] == {"ours": 250, "best": 300, "other": 250}
    assert found["seconds_to_loss"] == {"ours": 5.0, "best": 30.0, "other": None}
    middle, interval = difference([fast, fast, slow], [slow, fast, slow])
    assert middle == pytest.approx(100 * (3.0 / 3.5 - 1) / 3, abs=1e-4)
    assert interval is not None
    assert interval[0] < middle < interval[1]
    assert difference([fast], [slow])[1] is None


@pytest.mark.slow
def test_a_quick_run_prints_every_key(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "pretraining.py", "--quick", "--vocab-size", "1000", "--peers", "best"]
    done = subprocess.run(
        [*map(str, command), "--tokens", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) >= KEYS
    assert "random ids" in done.stdout
    assert result["gemm_share"] > 0
    assert result["vocab_size"] == 1000
    low, high = result["ratio_best_spread"]
    assert 0 < low <= result["ratio_best"] <= high
    assert result["ratio_padded"] is None and result["ratio_grouped"] is None  # not asked for
    assert abs(result["loss_difference"]) < 0.5
