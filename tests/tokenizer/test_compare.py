"""``compare_tokenizers``: figures that can be counted by hand, and a page that fetches nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import pytest

from bert_ops.errors import ArtifactError, InputError
from bert_ops.tokenizer import compare, wordpiece
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    rows = [
        ("a", "train", "北京北京 play play playing"),
        ("b", "validation", "北京 play"),
        ("b", "validation", "沪 PLAY"),
        ("c", "validation", "京"),
        ("d", "test", "龘龘龘"),
    ]
    pd.DataFrame(rows, columns=["doc_id", "split", "text"]).to_parquet(tmp_path / "sentences.parquet")
    return tmp_path / "sentences.parquet"


def compared(folder: Path, sentences: Path, params_file: Path, sizes: list[int]) -> list[dict]:
    compare.run(
        argparse.Namespace(params=params_file, sentences=sentences, sizes=sizes, out=folder / "c.html", json=None)
    )
    return json.loads((folder / "c.json").read_text())["sizes"]


def test_figures_are_those_counted_by_hand(sentences: Path, tmp_path: Path) -> None:
    pieces = [*REQUIRED_SPECIAL_TOKENS, "北", "京", "play", "p", "##l", "##a", "##y", "##ing"]
    tokenizer = wordpiece.build(
        {piece: number for number, piece in enumerate(pieces)},
        lowercase=True, strip_accents=False, special_tokens=REQUIRED_SPECIAL_TOKENS,
    )  # fmt: skip
    figures = compare.measure(sentences, tokenizer)
    # 北 京 play / [UNK] play in one document, 京 in another
    assert figures["tokens"] == figures["words"] == 6 and figures["characters"] == 12
    assert figures["unknown_share"] == 1 / 6 and figures["documents"] == 2
    assert figures["document_tokens"] == {"0.5": 7, "0.9": 7, "0.99": 7, "1": 7}
    assert figures["at_most"]["4"] == 0.5 and figures["at_most"]["8"] == 1.0
    words = compare._held_out_words(sentences, compare.TokenizerParams(**PARAMS))
    assert compare.coverage(words, tokenizer) == 11 / 12


PARAMS = {
    "vocab_size": 100,
    "min_frequency": 1,
    "lowercase": True,
    "strip_accents": False,
    "special_tokens": list(REQUIRED_SPECIAL_TOKENS),
    "user_tokens": [],
}


def test_more_pieces_make_fewer_tokens(corpus: Path, params_file: Path, tmp_path: Path) -> None:
    small, large = compared(tmp_path, corpus / "sentences.parquet", params_file, [400, 95])
    assert (small["asked"], large["asked"]) == (95, 400) and small["vocab_size"] == 95
    assert large["tokens"] < small["tokens"] and large["tokens_per_word"] < small["tokens_per_word"]
    assert small["unknown_share"] == 0 and small["coverage"] == 1
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert html.count("<svg") == 5 and "prefers-color-scheme: dark" in html
    assert "http" not in html and "<script" not in html and "nan" not in html


def test_the_same_figures_make_the_same_bytes(corpus: Path, params_file: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        compared(tmp_path / name, corpus / "sentences.parquet", params_file, [300])
    assert (tmp_path / "one/c.html").read_bytes() == (tmp_path / "two/c.html").read_bytes()


def test_sizes_default_to_those_around_params(corpus: Path, params_file: Path, tmp_path: Path) -> None:
    assert [f["asked"] for f in compared(tmp_path, corpus / "sentences.parquet", params_file, [])] == [200, 400, 800]


def test_what_cannot_be_compared_is_refused(sentences: Path, params_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sizes has 3"):
        compared(tmp_path, sentences, params_file, [3])
    with pytest.raises(InputError, match="smaller than the alphabet"):
        compared(tmp_path, sentences, params_file, [16])
    frame = pd.read_parquet(sentences)
    frame[frame["split"] == "train"].to_parquet(sentences)
    with pytest.raises(ArtifactError, match="no validation sentence"):
        compared(tmp_path, sentences, params_file, [100])
