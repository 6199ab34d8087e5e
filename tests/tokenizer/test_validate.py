"""Every check of the token suites holds on a store that the stages made, and fails on one that was tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bert_ops.__main__ import main
from bert_ops.io import file_sha256, read_json, write_json, write_parquet
from bert_ops.quality.params import ValidateTokensParams
from bert_ops.quality.token_suites import token_suites
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.validate import draw, round_trip_table, with_text

VALUES = {
    "max_unknown_share": 0.02,
    "max_unknown_share_of_source": 0.05,
    "min_tokens": 1000,
    "round_trip_sentences": 40,
    "seed": 1,
}


@dataclass
class Workspace:
    """A copy of everything that the stage reads, to tamper with."""

    folder: Path

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def sentences(self) -> Path:
        return self.folder / "sentences.parquet"

    def run(self, **values: Any) -> int:
        params = self.folder / "params.yaml"
        params.write_text(yaml.safe_dump({"validate_tokens": {**VALUES, **values}}), encoding="utf-8")
        return main(
            [
                "validate_tokens",
                *("--params", str(params), "--tokens", str(self.tokens)),
                *("--tokenizer", str(self.folder / "tokenizer"), "--sentences", str(self.sentences)),
                *("--report", str(self.folder / "report"), "--metrics", str(self.folder / "metrics.json")),
            ]
        )

    def failures(self) -> set[tuple[str, str]]:
        results = read_json(self.folder / "metrics.json", made_by="validate_tokens")["results"]
        return {(r["suite"], r["what"]) for r in results if not r["success"]}

    def manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        manifest = read_json(self.tokens / "manifest.json", made_by="tokenize")
        change(manifest)
        write_json(self.tokens / "manifest.json", manifest)

    def ids(self, change: Callable[[np.ndarray], None], *, shard: str = "train-00000.bin", signed: bool = True) -> None:
        """Change ids of a shard; ``signed`` also writes its new checksum, so that only the ids are wrong."""
        path = self.tokens / shard
        ids = np.fromfile(path, dtype="<u2")
        change(ids)
        ids.tofile(path)

        def sign(manifest: dict[str, Any]) -> None:
            for split in manifest["splits"].values():
                for entry in split["shards"]:
                    if entry["file"] == shard:
                        entry["sha256"] = file_sha256(path)

        if signed:
            self.manifest(sign)

    def corpus(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        write_parquet(self.sentences, change(pd.read_parquet(self.sentences)))

    def boundaries(self, name: str, change: Callable[[np.ndarray], None]) -> None:
        path = self.tokens / f"{name}.npy"
        ends = np.load(path)
        change(ends)
        np.save(path, ends)


@pytest.fixture
def workspace(corpus: Path, tokenizer_folder: Path, tokens_folder: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(tokens_folder, tmp_path / "tokens")
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    shutil.copy(corpus / "sentences.parquet", tmp_path / "sentences.parquet")
    return Workspace(tmp_path)


def set_to(value: int, where: slice) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[where] = value

    return change


def drop_split(split: str) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        del manifest["splits"][split]

    return change


def no_splits(manifest: dict[str, Any]) -> None:
    manifest["splits"] = {}


def set_key(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        manifest[key] = value

    return change


def rename_test_split(w: Workspace) -> None:
    for path in w.tokens.glob("test*"):
        path.rename(path.with_name(path.name.replace("test", "dev", 1)))

    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["splits"].pop("test")
        for shard in entry["shards"]:
            shard["file"] = shard["file"].replace("test", "dev", 1)
        manifest["splits"]["dev"] = entry

    w.manifest(change)


def same_end_twice(ends: np.ndarray) -> None:
    ends[1] = ends[2]


#: What to tamper with, the stage's exit code, and the checks that must fail (others may fail besides).
TAMPERED: list[tuple[str, Callable[[Workspace], None], int, set[tuple[str, str]]]] = [
    (
        "unknown tokens",
        lambda w: w.ids(set_to(wordpiece.UNK, slice(0, None))),
        4,
        {
            ("store", "Few tokens are [UNK] (share)"),
            ("splits", "Few tokens of each split are [UNK] (share)"),
            ("sources", "Few tokens of each source are [UNK] (share)"),
            ("round_trip", "The store holds the ids that the tokenizer gives"),
        },
    ),
    (
        "an id beyond the vocabulary",
        lambda w: w.ids(set_to(60_000, slice(5, 6))),
        4,
        {("splits", "Every id is in the vocabulary (ids beyond it)")},
    ),
    (
        "a separator inside",
        lambda w: w.ids(set_to(wordpiece.SEP, slice(5, 6))),
        4,
        {("splits", "No [PAD], [CLS], [SEP] or [MASK] stands inside the sentences")},
    ),
    (
        "a flipped byte",
        lambda w: w.ids(set_to(7, slice(5, 6)), signed=False),
        4,
        {("shards", "A shard is what was written (checksum)")},
    ),
    (
        "another vocabulary",
        lambda w: w.manifest(set_key("vocab_sha256", "0" * 64)),
        4,
        {("store", "The store was made with this vocabulary (hash)")},
    ),
    (
        "another size of vocabulary",
        lambda w: w.manifest(set_key("vocab_size", 70_000)),
        4,
        {
            ("store", "The store was made with this vocabulary (size)"),
            ("store", "Ids are stored in the smallest type that holds the vocabulary"),
        },
    ),
    (
        "no test split",
        lambda w: w.manifest(drop_split("test")),
        4,
        {
            ("splits", "Each split has sentences"),
            ("splits", "As many sentences as sentences.parquet has with text"),
            ("splits", "As many documents as sentences.parquet has with text"),
        },
    ),
    ("an unknown split", rename_test_split, 4, {("splits", "The split is known")}),
    (
        "nothing at all",
        lambda w: w.manifest(no_splits),
        4,
        {
            ("store", "There are enough tokens"),
            ("shards", "There are shards"),
            ("sources", "Tokens can be counted by source"),
        },
    ),
    (
        "an empty sentence",
        lambda w: w.boundaries("train.sentences", same_end_twice),
        4,
        {("splits", "Every sentence has a token")},
    ),
    (
        "an empty document",
        lambda w: w.boundaries("train.documents", same_end_twice),
        4,
        {("splits", "Every document has a sentence")},
    ),
    (
        "a corpus of unknown characters",
        lambda w: w.corpus(lambda f: f.assign(text="☃")),
        4,
        {("round_trip", "There are sentences without [UNK] to draw")},
    ),
]

#: Cannot come about through files: reading refuses it, or the rule belongs to the tokenizer itself.
ELSEWHERE = {
    ("splits", "The three splits are counted"),
    ("shards", "A shard is as long as the index says"),
    ("round_trip", "Decoding the ids gives the normalised sentence, spaces apart"),
}


def test_every_check_is_broken_somewhere() -> None:
    listed = {(s.name, c.what) for s in token_suites(ValidateTokensParams.model_validate(VALUES)) for c in s.checks}
    assert set().union(*(broken for *_, broken in TAMPERED)) | ELSEWHERE == listed


def test_good_store_passes_every_check_twice_with_the_same_bytes(workspace: Workspace) -> None:
    def contents() -> dict[str, bytes]:
        report = workspace.folder / "report"
        return {str(p.relative_to(report)): p.read_bytes() for p in report.rglob("*") if p.is_file()}

    assert workspace.run() == 0
    first = contents()
    assert workspace.failures() == set()
    assert {"index.html", "results.json", "datadocs/round_trip.html"} <= set(first)
    assert workspace.run() == 0
    assert contents() == first


@pytest.mark.parametrize(("name", "tamper", "code", "broken"), TAMPERED, ids=[case[0] for case in TAMPERED])
def test_tampered_store_fails(
    name: str,
    tamper: Callable[[Workspace], None],
    code: int,
    broken: set[tuple[str, str]],
    workspace: Workspace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tamper(workspace)
    assert workspace.run() == code
    assert broken <= workspace.failures()
    assert (workspace.folder / "report" / "index.html").is_file()
    assert "Traceback" not in capfd.readouterr().err


def test_unknown_share_of_a_source_only_warns(workspace: Workspace) -> None:
    workspace.ids(set_to(wordpiece.UNK, slice(0, 100)))
    workspace.corpus(lambda f: f.assign(source=["odd" if i < 8 else "made_up" for i in range(len(f))]))
    assert workspace.run(max_unknown_share=0.9, round_trip_sentences=1) in {0, 4}
    assert ("sources", "Few tokens of each source are [UNK] (share)") in workspace.failures()
    results = json.loads((workspace.folder / "metrics.json").read_text(encoding="utf-8"))["results"]
    warned = next(r for r in results if r["suite"] == "sources" and not r["success"])
    assert warned["severity"] == "warning"
    assert [row["source"] for row in warned["examples"]] == ["odd"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: (w.tokens / "train-00000.bin").write_bytes(b"\0" * 10), "10 bytes instead of"),
        (lambda w: (w.tokens / "train-00000.bin").unlink(), "does not exist"),
        (lambda w: (w.tokens / "manifest.json").unlink(), "manifest.json does not exist"),
        (lambda w: (w.tokens / "train.sentences.npy").write_bytes(b"\x93NUMPY"), "is damaged"),
        (lambda w: (w.folder / "tokenizer" / "vocab.txt").unlink(), "vocab.txt does not exist"),
        (lambda w: (w.folder / "tokenizer" / "tokenizer.json").write_text("{"), "is damaged"),
        (lambda w: w.sentences.write_bytes(w.sentences.read_bytes()[:500]), "is damaged"),
        (lambda w: w.corpus(lambda f: f.drop(columns="position")), "has no column position"),
    ],
    ids=["short shard", "no shard", "no manifest", "index", "no vocabulary", "tokenizer", "sentences", "column"],
)
def test_damaged_artifacts_end_with_one_message(
    damage: Callable[[Workspace], Any], message: str, workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(workspace)
    assert workspace.run() == 3
    error = capfd.readouterr().err
    assert message in error
    assert "remedy:" in error
    assert "Traceback" not in error
    assert not (workspace.folder / "report").exists()


def sentences_of(*texts: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"doc_id": "d", "source": "s", "split": "train", "position": range(len(texts)), "text": list(texts)}
    )


def letters_tokenizer() -> wordpiece.Tokenizer:
    """Every letter is a piece."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdnot'"]
    pieces += [f"##{c}" for c in "abcdnot'"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return wordpiece.build(vocab, lowercase=True, strip_accents=False, special_tokens=pieces[:5])


class Empty:
    """A store without splits: only decoding is looked at."""

    views: dict[str, Any] = {}  # noqa: RUF012


def test_round_trip_ignores_spaces_case_and_english_contractions() -> None:
    tokenizer = letters_tokenizer()
    sentences = sentences_of("ABC  d", "do not", "a ' b", "xyz")
    sample = draw(sentences, tokenizer, amount=10, seed=1)
    assert sorted(sample["text"]) == ["ABC  d", "a ' b", "do not"]
    table = round_trip_table(sample, Empty(), tokenizer, sentences)  # type: ignore[arg-type]
    assert table["comes_back"].all()
    assert not table["is_stored"].any()


def test_round_trip_notices_ids_that_decode_to_something_else() -> None:
    tokenizer = letters_tokenizer()
    sentences = sentences_of("abcd", "dcba")
    sample = draw(sentences, tokenizer, amount=2, seed=1)
    sample["ids"] = [tokenizer.encode("abca", add_special_tokens=False).ids] * 2
    assert not round_trip_table(sample, Empty(), tokenizer, sentences)["comes_back"].any()  # type: ignore[arg-type]


def test_draw_is_seeded_and_takes_no_more_than_asked() -> None:
    tokenizer = letters_tokenizer()
    sentences = sentences_of(*("abcd"[i % 4] * (i + 1) for i in range(30)))
    one, again, other = (draw(sentences, tokenizer, amount=5, seed=seed)["text"].tolist() for seed in (1, 1, 2))
    assert len(one) == 5
    assert one == again != other


def test_sentences_without_tokens_are_left_out() -> None:
    kept = with_text(sentences_of("a", " \u200b", "\n", "b"), letters_tokenizer())
    assert kept["text"].tolist() == ["a", "b"]
