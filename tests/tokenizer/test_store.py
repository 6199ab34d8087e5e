"""The token store gives back what was written, notices damage, and is the same whatever the batch size."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.errors import ArtifactError
from bert_ops.io import folder_sha256
from bert_ops.tokenizer import encode, wordpiece
from bert_ops.tokenizer.store import TokenStore, dtype_for
from bert_ops.tokenizer.store_writer import SplitWriter, write_manifest
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


def test_a_view_travels_to_another_process(tokens_folder: Path) -> None:
    view = TokenStore.open(tokens_folder)["train"]
    copy = pickle.loads(pickle.dumps(view))
    assert copy.sentence(3).tolist() == view.sentence(3).tolist()


class TestDamage:
    @pytest.fixture
    def store(self, tokens_folder: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tokens_folder, tmp_path / "tokens"))

    def test_truncated_shard(self, store: Path) -> None:
        path = store / "train-00000.bin"
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(ArtifactError, match=r"train-00000\.bin is damaged: \d+ bytes instead of \d+"):
            TokenStore.open(store)

    def test_changed_shard_of_the_same_size(self, store: Path) -> None:
        path = store / "train-00000.bin"
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.write_bytes(content)
        TokenStore.open(store)
        with pytest.raises(ArtifactError, match="checksum"):
            TokenStore.open(store, verify=True)

    @pytest.mark.parametrize("name", ["manifest.json", "train-00000.bin", "train.sentences.npy", "test.documents.npy"])
    def test_missing_file(self, store: Path, name: str) -> None:
        (store / name).unlink()
        with pytest.raises(ArtifactError, match="does not exist"):
            TokenStore.open(store)

    @pytest.mark.parametrize("name", ["manifest.json", "train.sentences.npy", "validation.documents.npy"])
    def test_truncated_file(self, store: Path, name: str) -> None:
        path = store / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ArtifactError, match="is damaged"):
            TokenStore.open(store)

    def test_no_such_split(self, store: Path) -> None:
        manifest = json.loads((store / "manifest.json").read_text())
        del manifest["splits"]["validation"]
        (store / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match="no validation split"):
            TokenStore.open(store)["validation"]
