"""Every check of the token suites holds on a store that the stages made, and fails on one that was tampered with."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from bert_ops.__main__ import main
from bert_ops.io import file_sha256, read_json, write_json, write_parquet
from bert_ops.quality import datadocs
from bert_ops.quality.params import ValidateTokensParams
from bert_ops.quality.token_suites import token_suites
from bert_ops.tokenizer import walk, wordpiece
from bert_ops.tokenizer.round_trip import draw, round_trip_table
from bert_ops.tokenizer.store import TokenStore, manifest_checksum
from bert_ops.tokenizer.walk import with_text

VALUES: dict[str, Any] = {
    "tokens": {"min": 1000, "severity": "critical"},
    "unknown_share": {"max": 0.02, "severity": "critical"},
    "unknown_share_of_source": {"max": 0.05, "severity": "warning"},
    "fertility_drift": {"max": 0.1, "version": 1, "severity": "critical"},
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

    @property
    def accepted(self) -> Path:
        return self.folder / "accepted" / "tokens.json"

    def run(self, **values: Any) -> int:
        params = self.folder / "params.yaml"
        params.write_text(yaml.safe_dump({"validate_tokens": {**VALUES, **values}}), encoding="utf-8")
        return main(
            [
                "validate_tokens",
                *("--params", str(params), "--tokens", str(self.tokens)),
                *("--tokenizer", str(self.folder / "tokenizer"), "--sentences", str(self.sentences)),
                *("--report", str(self.folder / "report"), "--metrics", str(self.folder / "metrics.json")),
                *("--history", str(self.folder / "history.jsonl"), "--accepted", str(self.accepted)),
            ]
        )

    def failures(self) -> set[tuple[str, str]]:
        results = read_json(self.folder / "metrics.json", made_by="validate_tokens")["results"]
        return {(r["suite"], r["what"]) for r in results if not r["success"]}

    def manifest(self, change: Callable[[dict[str, Any]], None], *, signed: bool = True) -> None:
        manifest = read_json(self.tokens / "manifest.json", made_by="tokenize")
        change(manifest)
        if signed:
            manifest["checksum"] = manifest_checksum(manifest)
        write_json(self.tokens / "manifest.json", manifest)

    def sign(self) -> None:
        """Write the checksums of all files as they are now, so that only their contents are wrong."""

        def change(manifest: dict[str, Any]) -> None:
            for split, entry in manifest["splits"].items():
                for shard in entry["shards"]:
                    shard["sha256"] = file_sha256(self.tokens / shard["file"])
                    starts = shard["file"].replace(".bin", ".starts.bin")
                    shard["word_starts_sha256"] = file_sha256(self.tokens / starts)
                for kind in entry["checksums"]:
                    entry["checksums"][kind] = file_sha256(self.tokens / f"{split}.{kind}.npy")

        self.manifest(change)

    def ids(self, change: Callable[[np.ndarray], None], *, signed: bool = True, dtype: str = "<u2") -> None:
        """Change the ids of the first shard of the training split."""
        self._change("train-00000.bin", dtype, change, signed=signed)

    def starts(self, change: Callable[[np.ndarray], None]) -> None:
        """Change the word starts of the first shard of the training split."""
        self._change("train-00000.starts.bin", "u1", change, signed=True)

    def _change(self, name: str, dtype: str, change: Callable[[np.ndarray], None], *, signed: bool) -> None:
        path = self.tokens / name
        values = np.fromfile(path, dtype=dtype)
        change(values)
        values.tofile(path)
        if signed:
            self.sign()

    def corpus(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        write_parquet(self.sentences, change(pd.read_parquet(self.sentences)))

    def boundaries(self, name: str, change: Callable[[np.ndarray], None]) -> None:
        path = self.tokens / f"{name}.npy"
        ends = np.load(path)
        change(ends)
        np.save(path, ends)
        self.sign()


@pytest.fixture
def workspace(corpus: Path, tokenizer_folder: Path, tokens_folder: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(tokens_folder, tmp_path / "tokens")
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    shutil.copy(corpus / "sentences.parquet", tmp_path / "sentences.parquet")
    return Workspace(tmp_path)


@pytest.fixture(autouse=True)
def without_data_docs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering takes as long as all the rest; one test looks at the pages."""
    if request.node.originalname != "test_good_store_passes_every_check_twice_with_the_same_bytes":
        monkeypatch.setattr(datadocs, "render", lambda validation: {})


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


def another_document(frame: pd.DataFrame) -> pd.DataFrame:
    """Sentences of which the first document has taken one from the second."""
    train = frame.index[frame["split"] == "train"]
    ids = frame.loc[train, "doc_id"]
    first, second = ids.drop_duplicates().iloc[:2]
    taken = ids.index[ids == second][0]
    more = ids.index[ids == second][1:2]
    assert len(more), "the second document must have two sentences"
    frame.loc[taken, "doc_id"] = first
    return frame


def begun_continuation(w: Workspace) -> None:
    pieces = (w.folder / "tokenizer" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    continuation = next(number for number, piece in enumerate(pieces) if piece.startswith("##"))
    w.ids(set_to(continuation, slice(5, 6)))
    w.starts(set_to(255, slice(None)))


def moved_fertility(w: Workspace) -> None:
    entry = {"data": "0" * 64, "version": 1, "figures": {"made_up": 0.5}}
    write_json(w.accepted, {"entries": [entry]})


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
        {("shards", "A file is what was written (checksum)")},
    ),
    (
        "another vocabulary",
        lambda w: w.manifest(set_key("vocab_sha256", "0" * 64)),
        4,
        {("store", "The store was made with this vocabulary (hash)")},
    ),
    (
        "other special tokens",
        lambda w: w.manifest(lambda m: m["special_ids"].update(mask=7)),
        4,
        {("store", "Special tokens have the tokenizer's ids")},
    ),
    (
        "a manifest that was edited",
        lambda w: w.manifest(set_key("vocab_sha256", "0" * 64), signed=False),
        4,
        {("store", "The manifest is what was written (checksum)")},
    ),
    (
        "no token begins a word",
        lambda w: w.starts(set_to(0, slice(None))),
        4,
        {("splits", "The first token of every sentence begins a word")},
    ),
    (
        "a piece that continues a word and begins one",
        begun_continuation,
        4,
        {("splits", "No piece that continues a word begins one")},
    ),
    (
        "a document that begins elsewhere",
        lambda w: w.corpus(another_document),
        4,
        {("splits", "Documents begin where they do in sentences.parquet")},
    ),
    (
        "documents that are repeated",
        lambda w: w.corpus(lambda f: f.assign(repeats=2)),
        4,
        {("splits", "Documents are repeated as often as in sentences.parquet")},
    ),
    (
        "a fertility that moved",
        moved_fertility,
        4,
        {("fertility", "Fertility is near that of the last accepted version (relative difference)")},
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
            ("fertility", "Fertility can be told by source"),
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
    ("shards", "A file is as long as the index says"),
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
    lenient = {"max": 0.9, "severity": "critical"}
    assert workspace.run(unknown_share=lenient, round_trip_sentences=1) in {0, 4}
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


def sample_of(*texts: str) -> dict[int, dict[str, Any]]:
    """Sentences as a walk keeps them for the round trip."""
    row = {"doc_id": "d", "source": "s", "split": "train"}
    return {number: {**row, "position": number, "text": text, "place": number} for number, text in enumerate(texts)}


def round_trip(tokenizer: wordpiece.Tokenizer, *texts: str, amount: int = 10) -> pd.DataFrame:
    sample = sample_of(*texts)
    order = np.arange(len(texts))[::-1]
    return round_trip_table(sample, Empty(), tokenizer, order=order, amount=amount)  # type: ignore[arg-type]


def letters_tokenizer(letters: str = "abcdnot'") -> wordpiece.Tokenizer:
    """Every letter is a piece."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{c}" for c in letters]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return wordpiece.build(vocab, lowercase=True, strip_accents=False, special_tokens=pieces[:5])


class Empty:
    """A store without splits: only decoding is looked at."""

    views: dict[str, Any] = {}  # noqa: RUF012


def test_round_trip_ignores_spaces_case_and_english_contractions() -> None:
    table = round_trip(letters_tokenizer(), "ABC  d", "do not", "a ' b", "xyz")
    assert table["excerpt"].tolist() == ["a ' b", "do not", "ABC  d"]
    assert table["comes_back"].all()
    assert not table["is_stored"].any()


def test_round_trip_notices_ids_that_decode_to_something_else() -> None:
    tokenizer = letters_tokenizer()
    # a piece that ends in the letter before it: "##aa" for "a" loses nothing, "#" for a doubled letter does
    tokenizer.normalizer = wordpiece.normalizers.Replace("d", "")
    assert round_trip(tokenizer, "abcd")["comes_back"].all()

    class Lossy:
        """A tokenizer whose ids say less than the text."""

        normalizer = letters_tokenizer().normalizer

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    assert not round_trip(Lossy(), "abcd")["comes_back"].any()  # type: ignore[arg-type]


def test_round_trip_takes_no_more_than_asked() -> None:
    table = round_trip(letters_tokenizer(), *("abcd"[i % 4] * (i + 1) for i in range(30)), amount=5)
    assert table["position"].tolist() == [29, 28, 27, 26, 25]


def test_draw_is_seeded() -> None:
    one, again, other = (draw(1000, amount=5, seed=seed).tolist() for seed in (1, 1, 2))
    assert len(set(one)) == 20
    assert one == again != other
    assert draw(3, amount=5, seed=1).tolist() in [list(p) for p in itertools.permutations(range(3))]
    assert draw(0, amount=5, seed=1).tolist() == []


def test_sentences_without_tokens_are_left_out() -> None:
    texts = pa.array(["a", " \u200b", "\n", "b", "é", "。", "\ufffd", None])
    found = with_text(texts, letters_tokenizer())
    assert found.tolist() == [True, False, False, True, True, True, False, False]
    counted = [len(letters_tokenizer().encode(t or "", add_special_tokens=False)) > 0 for t in texts.to_pylist()]
    assert found.tolist() == counted


def test_a_split_in_several_chunks_is_counted_alike(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.ids(set_to(wordpiece.UNK, slice(3, 40)))
    tokenizer = wordpiece.load(workspace.folder / "tokenizer")
    view = TokenStore.open(workspace.tokens)["train"]
    whole = walk.count(view, tokenizer=tokenizer)
    expected = [int((view.sentence(i) == wordpiece.UNK).sum()) for i in range(view.sentences)]
    assert whole.unknown is not None
    assert whole.unknown.tolist() == expected
    for chunk in (1, 7, 100):
        monkeypatch.setattr(walk, "_CHUNK", chunk)
        part = walk.count(view, tokenizer=tokenizer)
        assert part.unknown is not None
        assert part.unknown.tolist() == expected
        assert (part.begun_continuations, part.unbegun_sentences, part.unknown_total) == (
            whole.begun_continuations,
            whole.unbegun_sentences,
            whole.unknown_total,
        )


def accepted(workspace: Workspace) -> list[dict[str, Any]]:
    return json.loads(workspace.accepted.read_text(encoding="utf-8"))["entries"]


def test_fertility_is_guarded_against_drift(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    assert workspace.run() == 0  # the first run accepts
    (entry,) = accepted(workspace)
    fertility = entry["figures"]["made_up"]
    metrics = json.loads((workspace.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["fertility"] == {"made_up": fertility}
    moved_fertility(workspace)
    assert workspace.run() == 4
    error = capfd.readouterr().err
    assert f"fertility {fertility:.9g}, accepted 0.5" in error
    assert "raise `validate_tokens.fertility_drift.version` from 1 to 2" in error
    assert len(accepted(workspace)) == 1, "what fails is not accepted"
    assert workspace.run(fertility_drift={"max": 0.1, "version": 2, "severity": "critical"}) == 0
    assert [e["version"] for e in accepted(workspace)] == [1, 2]


def test_a_warning_of_drift_does_not_accept_it(workspace: Workspace) -> None:
    moved_fertility(workspace)
    assert workspace.run(fertility_drift={"max": 0.1, "version": 1, "severity": "warning"}) == 0
    assert [entry["data"] for entry in accepted(workspace)] == ["0" * 64]


def test_metrics_do_not_depend_on_what_was_accepted(workspace: Workspace) -> None:
    assert workspace.run() == 0
    first = (workspace.folder / "metrics.json").read_bytes()
    fertility = accepted(workspace)[0]["figures"]["made_up"]
    entry = {"data": "0" * 64, "version": 1, "figures": {"made_up": fertility * 1.05}}
    write_json(workspace.accepted, {"entries": [entry]})
    assert workspace.run() == 0
    assert (workspace.folder / "metrics.json").read_bytes() == first
    report = (workspace.folder / "report" / "results.json").read_bytes()
    assert workspace.run() == 0, "compared with the version before, not with itself"
    assert (workspace.folder / "report" / "results.json").read_bytes() == report


@pytest.mark.parametrize("content", ["{", "[]", '{"entries": [{"data": 1}]}'])
def test_damaged_figures_of_accepted_versions_are_named(
    content: str, workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace.accepted.parent.mkdir()
    workspace.accepted.write_text(content, encoding="utf-8")
    assert workspace.run() == 3
    assert f"{workspace.accepted} is damaged" in capfd.readouterr().err
