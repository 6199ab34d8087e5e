"""A user's own file, from nothing but its name and two columns."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import zstandard
from corpus_workspace import INGEST

from bert_ops.corpus.own_examples import OwnExamples, examples_from_file, for_labelled, kind_of
from bert_ops.corpus.params import IngestParams
from bert_ops.errors import InputError

PARAMS = IngestParams.model_validate(INGEST)
ROWS = [(f"第{number}部电影{'很好看，' if number % 2 else '不好看，'}真的", "pn"[number % 2]) for number in range(60)]
CSV = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)
EXPECTED = sorted((text.replace("，", ","), label) for text, label in ROWS)


def read(path: Path, data: str | bytes, **arguments: Any) -> OwnExamples:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    given: dict[str, Any] = {"text": "text", "task": "own", "out": path.parent / "out", "ingest": PARAMS} | arguments
    if not {"label", "labels", "value", "spans"} & set(arguments):
        given["label"] = "label"
    return examples_from_file(path, **given)


def answers(found: OwnExamples) -> list[tuple[str, str]]:
    frame = pd.read_parquet(found.path)
    return sorted(zip(frame["text"], frame["label"], strict=True))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("own.csv", CSV),
        ("own.CSV", "\ufeff" + CSV),
        ("own.csv", CSV.encode("gb18030")),
        ("own.csv", CSV.encode("utf-16")),
        ("own.csv", CSV.replace("\n", "\r\n")),
        ("own.csv", CSV.replace('",', '";').replace("text,label", "text;label")),
        ("own.csv", CSV.replace('",', '"\t').replace("text,label", "text\tlabel")),
        ("own.tsv", CSV.replace('",', "\t").replace('"', "").replace("text,label", "text\tlabel")),
        ("own.tsv", CSV.replace('"', "").replace("，", "、").replace(",", "\t").replace("、", "，")),
        ("own.csv.gz", gzip.compress(CSV.encode())),
        ("own.csv.xz", lzma.compress(CSV.encode("gb18030"))),
        ("own.v2.csv.zst", zstandard.compress(CSV.encode())),
        ("own.jsonl", "".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in ROWS)),
        ("own.json", json.dumps([{"text": t, "label": n} for t, n in ROWS])),
    ],
)
def test_files_of_all_kinds_give_the_same_examples(tmp_path: Path, name: str, data: str | bytes) -> None:
    found = read(tmp_path / name, data)
    assert answers(found) == EXPECTED
    assert (found.read, found.used, found.rejected, found.copies) == (60, 60, {}, 0)
    assert sum(found.by_split.values()) == 60
    assert list(found.by_split) == ["train", "validation", "test"]
    assert found.lines() == [
        f"60 of 60 rows are examples: {', '.join(f'{n} {split}' for split, n in found.by_split.items())}"
    ]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_parquet(tmp_path: Path) -> None:
    pd.DataFrame({"body": [t for t, _ in ROWS], "stars": [n % 5 + 0.5 for n in range(60)]}).to_parquet(
        tmp_path / "own.parquet"
    )
    found = examples_from_file(
        tmp_path / "own.parquet", text="body", value="stars", task="own", out=tmp_path / "out", ingest=PARAMS
    )
    assert found.target == "value"
    assert {label for _, label in answers(found)} == {"0.5", "1.5", "2.5", "3.5", "4.5"}


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    more = '"第1部电影很好看，真的",n\n"第2部电影不好看，真的！",p\n好,p\n……,p\n没有标签,\n三个,值,p\n'
    more += "一样的话,p\n一样的话,n\n"
    long = "".join(chr(0x4E00 + place) for place in range(100))
    found = read(tmp_path / "own.csv", CSV + more + f"{long},p\n{long}天,p\n")
    assert found.read == 60 + 10
    assert found.rejected == {
        "too_short": 1, "no_letters": 1, "null_label": 1, "wrong_columns": 1, "label_conflict": 2,
    }  # fmt: skip
    assert (found.copies, found.near_copies, found.conflicts) == (2, 1, 1)
    assert found.used == len(pd.read_parquet(found.path)) == 61
    assert len(pd.read_parquet(found.quarantine)) == 6
    assert len(pd.read_parquet(found.duplicates)) == 3
    said = "\n".join(found.lines())
    assert "61 of 70 rows are examples" in said
    assert "2 not used as label_conflict: an equal text has another label" in said
    assert "1 not used as near-copies" in said
    assert str(found.quarantine) in said
    assert found.quarantine.is_file()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["read"] == 70


def test_labelled_texts_that_pretraining_would_not_want(tmp_path: Path) -> None:
    rows = [("好", "p"), ("2024 1 1 100 200 300 400 500 600 700", "n"), ("返回首页", "n"), ("ok", "p"), ("👍", "p")]
    data = CSV + "".join(f'"{text}",{label}\n' for text, label in rows)
    assert sum(read(tmp_path / "own.csv", data).rejected.values()) == 4
    found = read(tmp_path / "own.csv", data, ingest=for_labelled(PARAMS))
    assert found.rejected == {"no_letters": 1}
    assert answers(found) == sorted([*EXPECTED, *rows[:4]])


def test_pairs_and_lists(tmp_path: Path) -> None:
    data = "a,b,topics\n" + "".join(f"前提{n // 3},假设{n},{'x|y' if n % 2 else ''}\n" for n in range(60))
    found = read(tmp_path / "own.csv", data, text="a", pair="b", labels="topics", label_separator="|")
    frame = pd.read_parquet(found.path)
    assert set(frame["label"]) == {'["x", "y"]', "[]"}
    assert frame["pair"].notna().all()
    assert frame.groupby("text")["split"].nunique().max() == 1
    assert found.source["pair"] == "b"


def test_the_source_as_params_yaml_would_have_it(tmp_path: Path) -> None:
    found = read(tmp_path / "own.csv", CSV.replace('",', '";').replace("text,label", "text;label"))
    assert found.source == {
        "kind": "csv", "path": str(tmp_path / "own.csv"), "text": "text", "task": "own", "label": "label",
        "delimiter": ";", "encoding": "auto",
    }  # fmt: skip
    again = IngestParams.model_validate(INGEST | {"sources": {"own": found.source}})
    assert again.sources["own"].target == "label"


def message(caught: pytest.ExceptionInfo[InputError]) -> str:
    said = str(caught.value)
    assert "params.yaml" not in said
    assert "ingest.sources" not in said
    return said


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("text,polarity\n很好,p\n", ["has no column label", "it has text, polarity"]),
        ("text,Label\n很好,p\n", ["did you mean 'Label'"]),
        ("很好的,p\n", ["has no column text, label", "it has 很好的, p", "the first line"]),
        ("text,label\n", ["is empty"]),
        ("", ["is empty"]),
        (
            "text,label\na, b,p\nc, d,n\n",
            ["2 wrong_columns", "own.csv:2: it has 3 values, the header 2", "quotation marks"],
        ),
        ("text,label\n很好,\n不好,\n", ["2 null_label", "fill the column"]),
        ("text,label\n很好,p\n很好,n\n", ["no document is left of the 2 texts read: 2 label_conflict"]),
        (b"PK\x03\x04" + bytes(200), ["it is a workbook", "as CSV (UTF-8)"]),
        ("text,label\nC'était nul à crier,n\nTrès bien,p\n".encode("latin-1"), ["unknown_encoding", "WINDOWS-1252"]),
        ("text,label\r很好,p\r不好,n\r", ["old Mac"]),
        ("text,text,label\n很好,b,p\n", ["has the column text twice"]),
    ],
)
def test_what_a_newcomer_is_told(tmp_path: Path, data: str | bytes, expected: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "own.csv", data)
    said = message(caught)
    for part in expected:
        assert part in said, said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"value": "v", "label": "label"}, "label and value of label, labels, value, spans are named"),
        ({"label": None}, "none of label, labels, value, spans is named"),
        ({"task": "My Task"}, "the task is named 'My Task'"),
        ({"label_separator": "|"}, "label_separator is set but labels is not"),
        ({"text": ""}, "`text` is ''"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "own.csv", CSV, **arguments)
    assert expected in message(caught)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent.csv", "does not exist"),
        (".", "is a folder"),
        ("book.xlsx", "save the sheet as CSV"),
        ("notes", "no kind of file"),
        ("a.parquet.gz", "no kind of file"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, name: str, expected: str) -> None:
    if name not in ("absent.csv", "."):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError) as caught:
        kind_of(tmp_path / name)
    assert expected in str(caught.value)


def test_a_link_and_odd_names(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "data[1].csv").write_text(CSV)
    link = tmp_path / "own [2] 数据.csv"
    link.symlink_to(tmp_path / "there" / "data[1].csv")
    found = examples_from_file(link, text="text", label="label", task="own", out=tmp_path / "out", ingest=PARAMS)
    assert found.used == 60


def test_an_earlier_folder_stays_if_the_file_cannot_be_used(tmp_path: Path) -> None:
    found = read(tmp_path / "own.csv", CSV)
    before = found.path.read_bytes()
    with pytest.raises(InputError):
        read(tmp_path / "own.csv", "text,polarity\n很好,p\n")
    assert found.path.read_bytes() == before
