"""The sequence of units: what is read, how often, by whom, and how it goes on from any place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import FIRST, clean, document_of, made_documents, made_store, made_stream, same

from bert_ops.errors import ArtifactError, InputError
from bert_ops.pretrain import examples, stream
from bert_ops.pretrain.batch import IS_RANDOM, NO_PAIR, PackedBatch
from bert_ops.pretrain.order import Visits, shuffled
from bert_ops.pretrain.stream import UnitStream, fixed_units
from bert_ops.tokenizer.store import SplitView
from bert_ops.tokenizer.wordpiece import CLS, PAD, SEP

REPEATS = [1, 3, 0, 2, 1]


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> SplitView:
    """180 documents in many shards; every fifth is read three times, every fifth never."""
    return made_store(
        tmp_path_factory.mktemp("store"), made_documents(180, seed=5), repeats=(REPEATS * 36), shard_tokens=500
    )


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """About six windows an epoch."""
    monkeypatch.setattr(stream, "WINDOW_TOKENS", 2000)
    monkeypatch.setattr(stream, "WINDOW_UNITS", 1)


def epochs(one: UnitStream, count: int) -> list[list[PackedBatch]]:
    """Batches of the first epochs."""
    found: list[list[PackedBatch]] = [[] for _ in range(count)]
    epoch = 0
    for batch, position in one.units(None):
        found[epoch].append(batch)
        epoch = position["epoch"]
        if epoch == count:
            return found
    raise AssertionError


def runs(batch: PackedBatch) -> list[tuple[int, int]]:
    """Flat start and stop of each run between two bounds."""
    return list(zip(batch.bounds[:-1].tolist(), batch.bounds[1:].tolist(), strict=True))


@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
@pytest.mark.parametrize("length", [8, 16, 33, 128])
def test_every_token_is_read_as_often_as_the_store_says(
    view: SplitView, small_windows: None, objective: str, length: int
) -> None:
    one = made_stream(view, sentence_objective=objective, sequence_tokens=length)
    expected = np.repeat(np.tile(REPEATS, 36), np.bincount(document_of(view, np.arange(view.tokens))))
    for batches in epochs(one, 2):
        read = np.zeros(view.tokens, int)
        for batch in batches:
            ids = clean(batch)
            label = np.repeat(batch.pair, np.diff(np.append(batch.cls, ids.size)))
            random_b = (batch.segments.reshape(-1) == 1) & (label == IS_RANDOM) & (objective == "nsp")
            read += np.bincount(ids[(ids >= FIRST) & ~random_b] - FIRST, minlength=view.tokens)
        assert read.tolist() == expected.tolist()


@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
@pytest.mark.parametrize("length", [8, 32, 128])
def test_a_batch_is_laid_out_as_bert_reads_it(
    view: SplitView, small_windows: None, objective: str, length: int
) -> None:
    kinds = set()
    for batch, _ in islice(made_stream(view, sentence_objective=objective, sequence_tokens=length).units(None), 60):
        ids, rows = clean(batch), batch.ids.shape[0]
        flat = {name: getattr(batch, name).reshape(-1) for name in ("segments", "positions", "examples")}
        assert batch.ids.shape == (rows, length) and 1 <= rows <= 4
        starts = []
        for start, stop in runs(batch):
            assert start // length == (stop - 1) // length, "a run crosses rows"
            here = slice(start, stop)
            if flat["examples"][start] == 0:
                assert not any(values[here].any() for values in flat.values()) and (ids[here] == PAD).all()
                continue
            starts.append(start)
            in_row = [s for s in starts if s // length == start // length]
            assert (flat["examples"][here] == len(in_row)).all()
            assert flat["positions"][here].tolist() == list(range(stop - start))
            label, text = batch.pair[len(starts) - 1], ids[here]
            kinds.add(int(label))
            seps = np.flatnonzero(text == SEP)
            assert text[0] == CLS and seps[-1] == stop - start - 1 and len(seps) == 1 + (label != NO_PAIR)
            assert flat["segments"][here].tolist() == [0] * (seps[0] + 1) + [1] * (stop - start - seps[0] - 1)
            a, b = text[1 : seps[0]] - FIRST, text[seps[0] + 1 : -1] - FIRST
            for segment in (a, b):
                assert (np.diff(segment) == 1).all() and len(set(document_of(view, segment))) <= 1
            assert len(a) and (label == NO_PAIR) == (not len(b))
            if label == NO_PAIR:
                continue
            documents = document_of(view, np.array([a[0], b[0]]))
            assert {a[0], b[0]} <= set(view.sentence_ends.tolist())
            if objective == "nsp" and label == IS_RANDOM:
                assert documents[0] != documents[1] and REPEATS[documents[1] % 5] > 0
            else:
                first, second = (b, a) if label == IS_RANDOM else (a, b)
                assert documents[0] == documents[1] and second[0] == first[-1] + 1
        assert batch.cls.tolist() == starts and batch.bounds[0] == 0 and batch.bounds[-1] == ids.size
        assert batch.longest == np.diff(batch.bounds).max() and batch.tokens == (ids != PAD).sum()
        assert batch.counts == {"mlm": len(batch.masked), "nsp": int((batch.pair != NO_PAIR).sum())}
        assert [batch.ids.dtype, batch.examples.dtype, batch.bounds.dtype] == [np.int64, np.int16, np.int32]
    # Hardly two sentences fit into eight tokens.
    assert kinds == ({NO_PAIR} if objective == "none" else {NO_PAIR, 0, 1}) or length == 8


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_half_of_the_pairs_are_random_or_swapped(view: SplitView, objective: str) -> None:
    one = made_stream(view, sentence_objective=objective, sequence_tokens=64)
    pairs = np.concatenate([batch.pair for batches in epochs(one, 12) for batch in batches])
    pairs = pairs[pairs != NO_PAIR]
    assert len(pairs) > 1500 and (pairs == IS_RANDOM).mean() == pytest.approx(0.5, abs=0.04)


def test_a_lone_document_has_no_random_partner(tmp_path: Path) -> None:
    for repeats in ([1], [3, 0]):
        view = made_store(tmp_path / str(len(repeats)), [[5] * 30] * len(repeats), repeats=repeats)
        pairs = np.concatenate([batch.pair for batch in epochs(made_stream(view, sequence_tokens=24), 1)[0]])
        assert (pairs == 0).any() and not (pairs == IS_RANDOM).any()


def test_random_partners_come_from_the_whole_split_as_often_as_it_is_read(view: SplitView, small_windows: None) -> None:
    drawn = np.zeros(180, int)
    for batches in epochs(made_stream(view, sequence_tokens=64), 40):
        for batch in batches:
            second = batch.cls[batch.pair == IS_RANDOM]
            ids = clean(batch)
            begins = [start + int(np.flatnonzero(ids[start:] == SEP)[0]) + 1 for start in second.tolist()]
            np.add.at(drawn, document_of(view, ids[begins] - FIRST), 1)
    times = np.tile(REPEATS, 36)
    assert (drawn[times > 0] > 0).all()
    share = [drawn[times == n].sum() / (n * (times == n).sum()) for n in (1, 2, 3)]
    assert max(share) / min(share) < 1.25


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_sequence_of_one(view: SplitView, small_windows: None, world: int) -> None:
    one = made_stream(view)
    whole = [batch for batch, _ in islice(one.units(None), 60)]
    assert [batch.unit for batch in whole] == list(range(60))
    for rank in range(world):
        mine = list(islice(made_stream(view).units(None, rank=rank, world=world), 60 // world))
        assert all(same(batch, whole[world * i + rank]) for i, (batch, _) in enumerate(mine))
        # Any number of processes goes on from there.
        for place in (0, len(mine) // 2):
            again = next(one.units(mine[place][1]))[0]
            assert same(again, whole[world * (place + 1)])


def test_any_position_resumes_the_sequence(view: SplitView, small_windows: None) -> None:
    whole = list(islice(made_stream(view).units(None), 400))
    assert whole[-1][1]["epoch"] >= 2 and len({position["window"] for _, position in whole}) > 4
    assert any(len(batch.ids) < 4 for batch, _ in whole)
    for place in range(0, 396, 7):
        position = json.loads(json.dumps(whole[place][1]))
        again = list(islice(made_stream(view).units(position), 3))
        for (batch, after), (expected, expected_after) in zip(again, whole[place + 1 : place + 4], strict=True):
            assert same(batch, expected) and after == expected_after


@pytest.mark.parametrize("unit", [10, 100_000])
def test_resuming_plans_one_window_wherever_it_is(
    view: SplitView, small_windows: None, monkeypatch: pytest.MonkeyPatch, unit: int
) -> None:
    one = made_stream(view)
    looked_up: list[int] = []
    plan = examples.plan_examples

    def counted(view: SplitView, documents: np.ndarray, **rest: Any) -> np.ndarray:
        looked_up.append(len(documents))
        return plan(view, documents, **rest)

    monkeypatch.setattr(stream, "plan_examples", counted)
    batch, after = next(one.units({"epoch": unit // 500, "window": 0, "row": 4, "unit": unit}))
    assert batch.unit == unit and after["unit"] == unit + 1
    assert len(looked_up) == 1 and looked_up[0] < view.documents / 3


def test_windows_are_as_large_as_said_and_leave_no_crumbs(view: SplitView, small_windows: None) -> None:
    one = made_stream(view, sentence_objective="sop")
    first, tokens = 0, []
    while first < one.visits.count:
        window = one.window(0, first)
        tokens.append(int((window.examples[:, examples.A_LENGTH] + window.examples[:, examples.B_LENGTH]).sum()))
        first = window.stop
    longest = 40 * 7
    assert len(tokens) > 5 and min(tokens) >= 1000 and max(tokens) < 3000
    assert all(2000 <= n < 2000 + longest for n in tokens[:-1])


def test_epochs_differ_in_order_and_cuts(view: SplitView) -> None:
    one, two = ([clean(batch) for batch in batches] for batches in epochs(made_stream(view), 2))
    assert not any(np.array_equal(a, b) for a, b in zip(one, two, strict=False))


def test_epochs_read_documents_in_another_order(view: SplitView) -> None:
    one = made_stream(view)
    zero, first = one._documents(0, 0), one._documents(1, 0)
    assert np.array_equal(np.sort(zero), np.sort(first)) and (zero == first).mean() < 0.1


def test_a_document_is_cut_anew_in_every_epoch(tmp_path: Path) -> None:
    one = made_stream(made_store(tmp_path, [[5] * 100]), sentence_objective="sop")
    cuts = {one.window(epoch, 0).examples.tobytes() for epoch in range(5)}
    assert len(cuts) == 5


def test_another_seed_gives_other_batches(view: SplitView) -> None:
    one, two = (next(made_stream(view, seed=seed).units(None))[0] for seed in (1, 2))
    assert not same(one, two)


_SCRIPT = """
import hashlib, sys
from itertools import islice
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[2])
from made_stores import made_stream
from bert_ops.tokenizer.store import TokenStore
digest = hashlib.sha256()
stream = made_stream(TokenStore.open(Path(sys.argv[1]))["train"], whole_words=True)
for batch, position in islice(stream.units(None), 90):
    for name in batch.__dataclass_fields__:
        digest.update(np.asarray(getattr(batch, name)).tobytes())
    digest.update(repr(position).encode())
print(digest.hexdigest())
"""


def test_every_process_makes_the_same_batches(view: SplitView) -> None:
    def digest(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", _SCRIPT, str(view.folder), str(Path(__file__).parent)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert digest("1") == digest("2") != ""


def test_the_rate_of_a_unit_is_that_of_the_schedule(view: SplitView) -> None:
    one = made_stream(view, rate_at=lambda unit: 0.1 + 0.01 * unit)
    for batch, _ in islice(one.units(None), 30):
        ordinary = int((clean(batch) >= FIRST).sum())
        assert len(batch.masked) == round(ordinary * (0.1 + 0.01 * batch.unit))


def test_masking_depends_on_the_number_of_the_unit(view: SplitView) -> None:
    """A text that comes again is masked elsewhere; another rate leaves the text as it is."""
    one = made_stream(view)
    again = [one.unit(one.window(0, 0), 4, number) for number in (1, 1, 2)]
    assert same(again[0], again[1]) and np.array_equal(clean(again[0]), clean(again[2]))
    assert not np.array_equal(again[0].masked, again[2].masked)
    position = list(islice(made_stream(view).units(None), 5))[-1][1]
    low = next(made_stream(view, rate_at=lambda _: 0.1).units(position))[0]
    high = next(made_stream(view, rate_at=lambda _: 0.4).units(position))[0]
    assert np.array_equal(clean(low), clean(high)) and len(low.masked) < len(high.masked)


@pytest.mark.parametrize(
    "position",
    [
        {"epoch": 0, "window": 0, "row": 0},
        {"epoch": 0, "window": 10**9, "row": 0, "unit": 0},
        {"epoch": 0, "window": 0, "row": 10**9, "unit": 0},
        {"epoch": -1, "window": 0, "row": 0, "unit": 0},
        {"epoch": 0, "window": "0", "row": 0, "unit": 0},
    ],
)
def test_a_position_of_another_corpus_is_refused(view: SplitView, position: dict[str, int]) -> None:
    with pytest.raises(ArtifactError, match="position in the data"):
        next(made_stream(view).units(position))


def test_a_corpus_smaller_than_a_batch_is_refused(view: SplitView, tmp_path: Path) -> None:
    tiny = made_store(tmp_path / "tiny", [[5, 7], [9]], repeats=[2, 1])
    with pytest.raises(InputError) as error:
        made_stream(tiny)
    assert "has 33 tokens, and one batch takes 128" in str(error.value)
    assert "at most 33 tokens" in str(error.value) and "lower pretrain.batch.tokens" in str(error.value)
    with pytest.raises(InputError, match="one batch takes 1,000,000"):
        made_stream(view, least_tokens=1_000_000)
    once = made_store(tmp_path / "once", [[5, 7], [9]])
    with pytest.raises(InputError, match="has 21 tokens, and one batch takes 22"):
        made_stream(once, least_tokens=22)
    made_stream(once, least_tokens=21)
    made_stream(tiny, rows=1)
    made_stream(tiny, least_tokens=33)


def test_a_split_without_sentences_is_refused(tmp_path: Path) -> None:
    never = made_store(tmp_path / "never", [[5, 7], [9]], repeats=[0, 0])
    with pytest.raises(InputError, match="the train split holds no sentences"):
        made_stream(never)
    empty = SplitView(tmp_path, "test", {"sentences": 0, "documents": 0, "tokens": 0}, np.dtype("<u2"), never.special)
    with pytest.raises(InputError, match="the test split holds no sentences"):
        made_stream(empty)


# ---------------------------------------------------------------- held-out batches


def held_out(view: SplitView, **changes: int) -> list[PackedBatch]:
    settings = {"vocab_size": FIRST + view.tokens, "seed": 1, "examples": 40} | changes
    return fixed_units(view, sequence_tokens=32, sentence_objective="nsp", rows=4, **settings)


def test_held_out_batches_are_the_first_of_an_epoch_and_always_the_same(view: SplitView) -> None:
    batches = held_out(view)
    counts = [len(batch.cls) for batch in batches]
    assert sum(counts[:-1]) < 40 <= sum(counts)
    assert all(same(one, two) for one, two in zip(batches, held_out(view), strict=True))
    more = held_out(view, examples=80)
    assert len(more) > len(batches) and all(same(one, two) for one, two in zip(batches, more, strict=False))
    masked, ordinary = sum(len(b.masked) for b in more), sum(int((clean(b) >= FIRST).sum()) for b in more)
    assert masked / ordinary == pytest.approx(0.15, abs=0.01)


def test_held_out_batches_end_with_the_split(tmp_path: Path) -> None:
    view = made_store(tmp_path, made_documents(3, seed=1))
    batches = held_out(view, examples=10**6)
    text = np.concatenate([clean(batch) for batch in batches])
    assert set(range(FIRST, FIRST + view.tokens)) <= set(text.tolist())
    assert sum(len(batch.ids) for batch in batches) < 3 * view.tokens / 32


# ---------------------------------------------------------------- order of documents


@settings(max_examples=60)
@given(count=st.integers(1, 5000), seed=st.integers(0, 2**63 - 1))
def test_shuffling_is_a_permutation(count: int, seed: int) -> None:
    places = np.arange(count)
    whole = shuffled(places, count=count, seed=seed)
    assert np.array_equal(np.sort(whole), places)
    some = np.random.default_rng(seed).integers(0, count, 20)
    assert np.array_equal(shuffled(some, count=count, seed=seed), whole[some])


def test_shuffling_billions_costs_what_it_returns() -> None:
    count = 10**11
    found = shuffled(np.arange(10**10, 10**10 + 4000), count=count, seed=1)
    assert found.min() >= 0 and found.max() < count and len(set(found.tolist())) == 4000
    assert found.mean() == pytest.approx(count / 2, rel=0.05)


def test_any_document_may_come_anywhere() -> None:
    """Each number at each place about equally often, and neighbours do not stay neighbours."""
    table, follows = np.zeros((7, 7), int), 0
    for seed in range(2100):
        order = shuffled(np.arange(7), count=7, seed=seed)
        table[np.arange(7), order] += 1
        follows += int((np.diff(order) == 1).sum())
    assert abs(table - 300).max() < 5 * 21  # five standard deviations of a fair draw
    assert follows / (2100 * 6) == pytest.approx(1 / 7, abs=0.015)


@settings(max_examples=40)
@given(repeats=st.lists(st.integers(0, 4), min_size=1, max_size=300), seed=st.integers(0, 100))
def test_visits_are_the_repeats_of_documents(
    tmp_path_factory: pytest.TempPathFactory, repeats: list[int], seed: int
) -> None:
    repeats = [*repeats, 1]
    view = made_store(tmp_path_factory.mktemp("visits"), [[1]] * len(repeats), repeats=repeats, shard_tokens=10**6)
    visits = Visits(view)
    expected = np.repeat(np.arange(len(repeats)), repeats)
    assert visits.count == len(expected) and np.array_equal(visits.documents(np.arange(visits.count)), expected)
    documents = np.unique(expected)
    first, times = visits.of(documents)
    assert np.array_equal(expected[first], documents) and np.array_equal(times, np.array(repeats)[documents])
    assert np.array_equal(first, np.searchsorted(expected, documents))
    if len(documents) > 1:
        others = visits.elsewhere(documents, np.random.default_rng(seed))
        assert (others != documents).all() and set(others) <= set(documents)
