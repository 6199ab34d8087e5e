"""Stage ``tokenize``: the same bytes whatever the number of processes, also after kills; words and repeats kept."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import folder_sha256
from bert_ops.tokenizer import encode, parts, wordpiece
from bert_ops.tokenizer.store import TokenStore


def write_sentences(path: Path, rows: list[dict], *, group: int | None = None) -> Path:
    schema = pa.schema(
        [
            ("doc_id", pa.string()),
            ("source", pa.string()),
            ("split", pa.string()),
            ("position", pa.int32()),
            ("text", pa.string()),
            ("words", pa.list_(pa.uint16())),
            ("repeats", pa.uint8()),
        ]
    )
    rows = [{"source": "s", "split": "train", "position": 0, "words": None, "repeats": 1} | row for row in rows]
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, row_group_size=group or max(len(rows), 1))
    return path


def arguments(folder: Path, *, sentences: Path, tokenizer: Path, params: Path, **changes) -> argparse.Namespace:
    values = {
        "params": params,
        "sentences": sentences,
        "tokenizer": tokenizer,
        "out": folder / "tokens",
        "metrics": folder / "tokenize.json",
        "work": folder / "work",
        "workers": 1,
    }
    return argparse.Namespace(**{**values, **changes})


@pytest.fixture(scope="module")
def big(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences in 40 row groups, splits and sources mixed, some texts empty; documents cross row groups."""
    rng = random.Random(8)
    texts = pd.read_parquet(corpus / "sentences.parquet")["text"].tolist()
    rows = []
    for number in range(900):
        split, source = rng.choice(["train"] * 4 + ["validation", "test"]), rng.choice(["news", "reviews"])
        for position in range(rng.randint(1, 5)):
            text = rng.choice([*texts, "", "\u200b"]) + rng.choice(["", "，北京的春天", " playing"])
            rows.append(
                {
                    "doc_id": f"{number:04d}",
                    "source": source,
                    "split": split,
                    "position": position,
                    "text": text,
                    "repeats": 2 if source == "news" else 1,
                }
            )
    path = tmp_path_factory.mktemp("big") / "sentences.parquet"
    return write_sentences(path, rows, group=len(rows) // 40 + 1)


@pytest.fixture(scope="module")
def expected(
    big: Path, tokenizer_folder: Path, params_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, bytes]:
    """Hash of the store and the metrics that one undisturbed process makes."""
    folder = tmp_path_factory.mktemp("expected")
    encode.run(arguments(folder, sentences=big, tokenizer=tokenizer_folder, params=params_file))
    return folder_sha256(folder / "tokens"), (folder / "tokenize.json").read_bytes()


def test_every_sentence_is_there_in_its_document(
    big: Path, tokenizer_folder: Path, params_file: Path, tmp_path
) -> None:
    encode.run(arguments(tmp_path, sentences=big, tokenizer=tokenizer_folder, params=params_file))
    store, tokenizer = TokenStore.open(tmp_path / "tokens", verify=True), wordpiece.load(tokenizer_folder)
    frame = pd.read_parquet(big)
    assert len(pq.ParquetFile(big).metadata.row_group(0).to_dict()) and pq.ParquetFile(big).num_row_groups == 40
    for split, part in frame.groupby("split"):
        wanted, repeats = [], []
        for _, document in part.groupby("doc_id", sort=False):
            ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in document["text"]]
            if any(ids):
                wanted.append([sentence for sentence in ids if sentence])
                repeats.append(int(document["repeats"].iloc[0]))
        view = store[split]
        assert [[view.sentence(s).tolist() for s in range(*view.document(d))] for d in range(view.documents)] == wanted
        assert view.repeats is not None and view.repeats.tolist() == repeats
    metrics = json.loads((tmp_path / "tokenize.json").read_text())
    for source, part in frame.groupby("source"):
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in part["text"]]
        tokens = sum(map(len, ids))
        figures = metrics["by_source"][source]
        assert figures["tokens"] == tokens and figures["sentences"] == sum(map(bool, ids))
        assert figures["tokens_per_character"] == tokens / part["text"].str.len().sum()
        assert figures["unknown_share"] == sum(i.count(wordpiece.UNK) for i in ids) / tokens
    assert metrics["tokens"] == sum(figures["tokens"] for figures in metrics["by_source"].values())
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(
    big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path, expected: tuple[str, bytes]
) -> None:
    encode.run(arguments(tmp_path, sentences=big, tokenizer=tokenizer_folder, params=params_file, workers=3))
    assert (folder_sha256(tmp_path / "tokens"), (tmp_path / "tokenize.json").read_bytes()) == expected


def test_row_groups_change_no_byte(
    big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path, expected: tuple[str, bytes]
) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pq.read_table(big), whole)
    encode.run(arguments(tmp_path, sentences=whole, tokenizer=tokenizer_folder, params=params_file))
    assert (folder_sha256(tmp_path / "tokens"), (tmp_path / "tokenize.json").read_bytes()) == expected


@pytest.mark.slow
def test_a_stage_that_is_killed_goes_on_where_it_was(
    big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path, expected: tuple[str, bytes]
) -> None:
    rng = random.Random(5)
    command = [
        *(sys.executable, "-m", "bert_ops", "tokenize", "--params", str(params_file), "--sentences", str(big)),
        *("--tokenizer", str(tokenizer_folder), "--out", str(tmp_path / "tokens"), "--workers", "2"),
        *("--metrics", str(tmp_path / "tokenize.json"), "--work", str(tmp_path / "work")),
    ]
    finished: dict[str, int] = {}
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        # Killed once a random number of parts more is there, or at any later moment.
        more = len(finished) + rng.randint(1, 12)
        while process.poll() is None and len(list((tmp_path / "work").glob("*/*.json"))) < more:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
        time.sleep(0.3)  # workers die with their parent
        now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/*.json")}
        assert {name: now.get(name) for name in finished} == finished, "a finished part was made again"
        finished = now
    assert kills >= 3
    assert (folder_sha256(tmp_path / "tokens"), (tmp_path / "tokenize.json").read_bytes()) == expected
    assert not list((tmp_path / "work").iterdir())


def test_a_damaged_part_is_made_again(
    big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path, expected: tuple[str, bytes], monkeypatch
) -> None:
    given = arguments(tmp_path, sentences=big, tokenizer=tokenizer_folder, params=params_file)
    real, made = parts.make_part, []

    def make_part(number: int) -> dict:
        if len(made) == 9:
            raise KeyboardInterrupt
        made.append(number)
        return real(number)

    monkeypatch.setattr(parts, "make_part", make_part)
    with pytest.raises(KeyboardInterrupt):
        encode.run(given)
    assert not (tmp_path / "tokens").exists()
    folder = next((tmp_path / "work").iterdir())
    (folder / "part-000003.npz").write_bytes(b"short")
    (folder / "part-000005.json").write_text("{")
    (folder / "part-000007.json").unlink()
    made.clear()
    monkeypatch.setattr(parts, "make_part", lambda number: (made.append(number), real(number))[1])
    encode.run(given)
    assert made == [3, 5, 7, *range(9, 40)]
    assert (folder_sha256(tmp_path / "tokens"), (tmp_path / "tokenize.json").read_bytes()) == expected


def test_parts_of_other_inputs_are_not_used_and_swept(
    big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path, expected: tuple[str, bytes]
) -> None:
    stale = tmp_path / "work" / ("0" * 16)
    stale.mkdir(parents=True)
    (stale / "part-000000.npz").write_text("x")
    (tmp_path / "work" / "mine").mkdir()
    encode.run(arguments(tmp_path, sentences=big, tokenizer=tokenizer_folder, params=params_file))
    assert folder_sha256(tmp_path / "tokens") == expected[0]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["mine"]


def test_two_stages_do_not_share_a_folder(big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path) -> None:
    given = arguments(tmp_path, sentences=big, tokenizer=tokenizer_folder, params=params_file)
    params = encode.load_section(params_file, "tokenize", encode.TokenizeParams)
    with (
        encode._work_folder(given.work, encode._key(given, params)),
        pytest.raises(InputError, match="in use by another process"),
    ):
        encode.run(given)


@pytest.mark.parametrize("segmentation", ["jieba", "none"])
def test_words_stand_beside_the_ids(segmentation: str, tokenizer_folder: Path, params: dict, tmp_path: Path) -> None:
    changed = {**params, "tokenize": {**params["tokenize"], "segmentation": segmentation}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8")
    rows = [
        {"doc_id": "a", "text": "我们喜欢苹果playing"},
        {"doc_id": "b", "text": "我们喜欢", "words": [3, 1], "repeats": 3},
        {"doc_id": "c", "text": "北京 的春天", "words": [2, 1, 2]},
    ]
    sentences = write_sentences(tmp_path / "sentences.parquet", rows)
    encode.run(arguments(tmp_path, sentences=sentences, tokenizer=tokenizer_folder, params=tmp_path / "params.yaml"))
    view = TokenStore.open(tmp_path / "tokens", verify=True)["train"]
    ends = view.sentence_ends
    starts = [view.word_starts(int(ends[s]), int(ends[s + 1])).tolist() for s in range(3)]
    tokenizer = wordpiece.load(tokenizer_folder)
    latin = len(tokenizer.encode("playing", add_special_tokens=False).ids)
    chinese = [True, False, True, False, True, False] if segmentation == "jieba" else [True] * 6
    assert starts == [
        chinese + [True] + [False] * (latin - 1),
        [True, False, False, True],
        [True, False, True, True, False],
    ]
    assert view.repeats is not None and view.repeats.tolist() == [1, 3, 1]
    lines = [json.loads(line) for line in (tmp_path / "tokens/preview.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[2] == {"text": "北京 的春天", "pieces": "北 京 的 春 天", "words": "北京 的 春天"}


def test_no_training_sentence_and_an_unknown_split_are_refused(
    tokenizer_folder: Path, params_file: Path, tmp_path: Path
) -> None:
    for rows, message in (
        ([{"doc_id": "a", "text": "北京", "split": "test"}], "no training sentence"),
        ([{"doc_id": "a", "text": " "}], "no training sentence"),
        ([], "no training sentence"),
        ([{"doc_id": "a", "text": "北京", "split": "dev"}], "split 'dev' .document a"),
    ):
        sentences = write_sentences(tmp_path / "sentences.parquet", rows)
        with pytest.raises(ArtifactError, match=message):
            encode.run(arguments(tmp_path, sentences=sentences, tokenizer=tokenizer_folder, params=params_file))
        assert not (tmp_path / "tokens").exists()


def test_damaged_sentences_are_named(big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path) -> None:
    content = bytearray(big.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 4000] = bytes(4000)
    for damage in (bytes(content), big.read_bytes()[:-100]):
        (tmp_path / "s.parquet").write_bytes(damage)
        with pytest.raises(ArtifactError, match=r"s\.parquet is damaged"):
            encode.run(
                arguments(tmp_path, sentences=tmp_path / "s.parquet", tokenizer=tokenizer_folder, params=params_file)
            )
    pq.write_table(pq.read_table(big).drop_columns(["text"]), tmp_path / "s.parquet")
    with pytest.raises(ArtifactError, match="no column text"):
        encode.run(
            arguments(tmp_path, sentences=tmp_path / "s.parquet", tokenizer=tokenizer_folder, params=params_file)
        )


def test_workers_must_be_positive(big: Path, tokenizer_folder: Path, params_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--workers is 0"):
        encode.run(arguments(tmp_path, sentences=big, tokenizer=tokenizer_folder, params=params_file, workers=0))


def test_counts_of_a_text_are_sums_over_its_tokens() -> None:
    marked, offsets = np.array([1, 0, 1, 1, 0], bool), np.array([0, 2, 2, 5])
    assert parts._sums(marked, offsets).tolist() == [1, 0, 2]
