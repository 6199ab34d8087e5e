"""The token store gives back what was written, notices damage, and is the same whatever the batch size."""

from __future__ import annotations

import argparse
import json
import pickle
import random
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.errors import ArtifactError
from bert_ops.io import folder_sha256
from bert_ops.tokenizer import encode, wordpiece
from bert_ops.tokenizer.store import SplitView, TokenStore, dtype_for
from bert_ops.tokenizer.store_writer import ArrayFile, SplitWriter, write_manifest
from bert_ops.tokenizer.wordpiece import SpecialIds

documents = st.lists(
    st.lists(st.lists(st.integers(5, 70_000), max_size=12), min_size=1, max_size=5), min_size=1, max_size=20
)


@settings(max_examples=40, deadline=None)
@given(documents=documents, shard_tokens=st.integers(1, 40), vocab=st.sampled_from([70_001, 65_536]))
def test_reading_gives_what_was_written(tmp_path_factory, documents, shard_tokens: int, vocab: int) -> None:
    folder = tmp_path_factory.mktemp("store")
    dtype = dtype_for(vocab)
    documents = [[[min(i, vocab - 1) for i in s] for s in d] for d in documents]
    writer = SplitWriter(folder, "train", dtype=dtype, shard_tokens=shard_tokens)
    for document in documents:
        writer.add([np.asarray(sentence, np.uint32) for sentence in document])
    write_manifest(
        folder, vocab_size=vocab, vocab_sha256="x", special_ids=SpecialIds(), splits={"train": writer.close()}
    )
    view = TokenStore.open(folder, verify=True)["train"]
    kept = [[s for s in d if s] for d in documents if any(d)]
    read = [[view.sentence(i).tolist() for i in range(*view.document(d))] for d in range(view.documents)]
    assert read == kept
    assert view.lengths().tolist() == [len(s) for d in kept for s in d]
    assert [int(i) for ids in view.shard_ids() for i in ids] == [i for d in kept for s in d for i in s]


def test_uint16_while_it_suffices() -> None:
    assert dtype_for(65_536) == np.dtype("<u2") and dtype_for(65_537) == np.dtype("<u4")


def test_the_stage_encodes_every_sentence(corpus: Path, tokens_folder: Path, tokenizer_folder: Path) -> None:
    store = TokenStore.open(tokens_folder, verify=True)
    tokenizer = wordpiece.load(tokenizer_folder)
    frame = pd.read_parquet(corpus / "sentences.parquet")
    for split, part in frame.groupby("split"):
        view = store[split]
        assert view.documents == part["doc_id"].nunique()
        texts = part["text"].tolist()
        for number in range(0, len(texts), 17):
            assert view.sentence(number).tolist() == tokenizer.encode(texts[number], add_special_tokens=False).ids
    metrics = json.loads((tokens_folder.parent / "tokenize.json").read_text())
    assert metrics["sentences"] == len(frame)
    assert metrics["tokens"] == sum(view.tokens for view in store.views.values())


def test_the_batch_size_changes_no_byte(
    corpus: Path, tokens_folder: Path, tokenizer_folder: Path, params: dict, tmp_path: Path
) -> None:
    import yaml

    changed = {**params, "tokenize": {**params["tokenize"], "batch_sentences": 7}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
    encode.run(
        argparse.Namespace(
            params=tmp_path / "params.yaml",
            sentences=corpus / "sentences.parquet",
            tokenizer=tokenizer_folder,
            out=tmp_path / "tokens",
            metrics=tmp_path / "m.json",
            work=tmp_path / "work",
            workers=1,
        )
    )
    assert folder_sha256(tmp_path / "tokens") == folder_sha256(tokens_folder)


@st.composite
def blocks(draw) -> list[tuple[list[list[int]], int]]:
    """Documents as lists of sentences, with their repeats."""
    sentence = st.lists(st.integers(5, 60_000), min_size=1, max_size=9)
    document = st.tuples(st.lists(sentence, min_size=1, max_size=5), st.integers(0, 3))
    return draw(st.lists(document, min_size=1, max_size=15))


@settings(max_examples=60, deadline=None)
@given(documents=blocks(), shard_tokens=st.integers(1, 30), block=st.integers(1, 7), data=st.data())
def test_any_span_of_tokens_and_word_starts(tmp_path_factory, documents, shard_tokens, block, data) -> None:
    folder = tmp_path_factory.mktemp("spans")
    sentences = [(s, number == 0, n) for document, n in documents for number, s in enumerate(document)]
    ids = np.array([i for s, _, _ in sentences for i in s], np.uint16)
    starts = np.random.default_rng(len(ids)).random(len(ids)) < 0.5
    writer = SplitWriter(folder, "train", dtype=np.dtype("<u2"), shard_tokens=shard_tokens)
    done = 0
    for first in range(0, len(sentences), block):
        part = sentences[first : first + block]
        size = sum(len(s) for s, _, _ in part)
        writer.extend(
            ids[done : done + size],
            starts[done : done + size],
            np.array([len(s) for s, _, _ in part]),
            np.array([begins for _, begins, _ in part]),
            repeats=np.array([n for _, begins, n in part if begins], np.uint8),
        )
        done += size
    write_manifest(
        folder, vocab_size=65_536, vocab_sha256="x", special_ids=SpecialIds(), splits={"train": writer.close()}
    )
    view = TokenStore.open(folder, verify=True)["train"]
    assert np.concatenate(list(view.shard_ids())).tolist() == ids.tolist()
    start = data.draw(st.integers(0, len(ids)))
    stop = data.draw(st.integers(start, len(ids)))
    assert view.span(start, stop).tolist() == ids[start:stop].tolist()
    assert view.word_starts(start, stop).tolist() == starts[start:stop].tolist()
    repeats = [n for _, n in documents]
    assert (view.repeats is None) == (set(repeats) == {1})
    assert view.repeats is None or view.repeats.tolist() == repeats
    assert all(len(s) <= max(shard_tokens, 9) for s in view.shard_ids())
    assert [len(d) for d, _ in documents] == np.diff(view.document_ends).tolist()
    with pytest.raises(IndexError):
        view.span(0, len(ids) + 1)


def test_an_array_file_is_what_numpy_saves(tmp_path: Path) -> None:
    for length in (0, 1, 123_456):
        values = np.arange(length)
        np.save(tmp_path / "numpy.npy", values)
        mine = ArrayFile(tmp_path / "mine.npy", np.dtype("<i8"))
        mine.append(values[: length // 2])
        mine.append(values[length // 2 :])
        mine.close()
        assert (tmp_path / "mine.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_sentences_are_read_without_a_copy(tokens_folder: Path) -> None:
    view = TokenStore.open(tokens_folder)["train"]
    assert np.shares_memory(view.sentence(3), next(view.shard_ids()))
    assert not view.sentence(3).flags.writeable
    assert not view.sentence_ends.flags.writeable


def _checksum(view: SplitView) -> int:
    return sum(int(view.sentence(s).sum()) * (s + 1) + int(view.word_starts(0, 9).sum()) for s in range(view.sentences))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_any_number_of_processes_read_one_view(tokens_folder: Path, method: str) -> None:
    view = TokenStore.open(tokens_folder)["train"]
    expected = _checksum(view)  # maps the files before the processes begin
    with ProcessPoolExecutor(3, mp_context=get_context(method)) as pool:
        assert list(pool.map(_checksum, [view] * 6)) == [expected] * 6


def test_a_pickled_view_holds_no_ids(tokens_folder: Path) -> None:
    view = TokenStore.open(tokens_folder)["train"]
    _checksum(view)
    packed = pickle.dumps(view)
    assert len(packed) < 4000
    assert pickle.loads(packed).sentence(3).tolist() == view.sentence(3).tolist()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_an_epoch_over_a_store_larger_than_memory_may_grow(tmp_path: Path) -> None:
    """A process that may not hold as much as the store reads all of it, in order and at random."""
    rng = np.random.default_rng(0)
    writer = SplitWriter(tmp_path, "train", dtype=np.dtype("<u4"), shard_tokens=4_000_000)
    for _ in range(16):
        ids = rng.integers(5, 70_000, 2_000_000, dtype=np.uint32)
        lengths = np.full(40_000, 50)
        writer.extend(ids, ids % 2 == 0, lengths, np.arange(40_000) % 4 == 0, repeats=np.ones(10_000, np.uint8))
    write_manifest(
        tmp_path, vocab_size=70_001, vocab_sha256="x", special_ids=SpecialIds(), splits={"train": writer.close()}
    )
    code = f"""
import re, resource
from pathlib import Path
import numpy as np
from bert_ops.tokenizer.store import TokenStore
def private():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
view = TokenStore.open(Path({str(tmp_path)!r}))["train"]
view.span(0, 10), view.word_starts(0, 10), view.document(0)
before = private()
room = resource.getrlimit(resource.RLIMIT_DATA)[1]
status = Path("/proc/self/status").read_text()
limit = (int(re.search(r"VmData:\\s+(\\d+)", status)[1]) + 48 * 1024) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (limit, room))
try:
    np.ones(128 * 2**20 // 8)
    raise SystemExit("the limit does not hold")
except MemoryError:
    pass
total, rng = 0, np.random.default_rng(1)
for start in range(0, view.tokens, 500):
    total += int(view.span(start, start + 500).sum())
for sentence in rng.integers(0, view.sentences, 50_000):
    total += int(view.sentence(int(sentence))[0])
    total += int(view.word_starts(int(sentence) * 50, int(sentence) * 50 + 50).sum())
print(private() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code.replace("\\\\", "\\")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 128 * 2**20
    assert int(done.stdout) < 4096, "KiB of private memory that reading left behind"


class TestDamage:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        """A store with each kind of file: several shards, three splits, repeats."""
        splits = {}
        for split in ("train", "validation", "test"):
            writer = SplitWriter(tmp_path, split, dtype=np.dtype("<u2"), shard_tokens=30)
            for number in range(12):
                writer.add([np.arange(5, 12 + number, dtype=np.uint16)] * 2, repeats=1 + number % 2)
            splits[split] = writer.close()
        write_manifest(tmp_path, vocab_size=100, vocab_sha256="x", special_ids=SpecialIds(), splits=splits)
        return tmp_path

    def test_truncation_of_any_file_is_noticed(self, store: Path) -> None:
        files = sorted(store.iterdir())
        assert len(files) > 20 and {p.suffix for p in files} == {".bin", ".npy", ".json"}
        for path in files:
            whole = path.read_bytes()
            for size in (len(whole) - 1, len(whole) // 2, 0):
                path.write_bytes(whole[:size])
                with pytest.raises(ArtifactError, match=rf"{re.escape(path.name)} is damaged"):
                    TokenStore.open(store)
            path.unlink()
            with pytest.raises(ArtifactError, match=rf"{re.escape(path.name)} does not exist"):
                TokenStore.open(store)
            path.write_bytes(whole)
        TokenStore.open(store, verify=True)

    def test_any_changed_byte_is_noticed_on_request(self, store: Path) -> None:
        rng = random.Random(6)
        for path in sorted(store.iterdir()):
            whole = path.read_bytes()
            for place in {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(12))}:
                content = bytearray(whole)
                content[place] ^= 1 << rng.randrange(8)
                path.write_bytes(content)
                with pytest.raises(ArtifactError, match=r"damaged|does not exist"):
                    TokenStore.open(store, verify=True)
            path.write_bytes(whole)

    def test_boundaries_that_contradict_the_index_are_noticed_when_read(self, store: Path) -> None:
        path = store / "train.sentences.npy"
        ends = np.load(path)
        ends[-1] += 1
        np.save(path, ends)
        view = TokenStore.open(store)["train"]
        with pytest.raises(ArtifactError, match=r"train\.sentences\.npy is damaged: 24 entries up to"):
            view.sentence(0)

    def test_another_format_is_refused(self, store: Path) -> None:
        path = store / "manifest.json"
        for content in (path.read_text().replace("tokens-2", "tokens-1"), "[]\n", '{"format": "bert-ops-tokens-2"}\n'):
            path.write_text(content)
            with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
                TokenStore.open(store)

    def test_no_such_split(self, store: Path) -> None:
        manifest = json.loads((store / "manifest.json").read_text())
        del manifest["splits"]["validation"]
        (store / "manifest.json").write_text(json.dumps(manifest) + "\n")
        with pytest.raises(ArtifactError, match="no validation split"):
            TokenStore.open(store)["validation"]
