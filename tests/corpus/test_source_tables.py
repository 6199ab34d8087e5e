"""Parquet files and datasets saved by Hugging Face `datasets`: nested fields, damage, and streaming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_reading import put, read

from bert_ops.corpus.records import MISSING
from bert_ops.errors import InputError

pytestmark = pytest.mark.usefixtures("workspace")

PARQUET: dict[str, Any] = {"kind": "parquet", "path": "raw/s.parquet", "text": "body"}
SAVED: dict[str, Any] = {"kind": "huggingface", "path": "raw/saved", "text": "body"}


def write(name: str, rows: list[dict[str, Any]], **options: Any) -> Path:
    path = Path("raw") / name
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def test_parquet_with_nested_fields() -> None:
    write(
        "s.parquet",
        [
            {"a": {"body": ["甲", "乙"]}, "good": 1, "spans": [[0, 1, 2]], "extra": b"x"},
            {"a": {"body": ["丙"]}, "good": None, "spans": [], "extra": None},
            {"a": None, "good": 0, "spans": None, "extra": None},
        ],
    )
    result = read(PARQUET | {"text": "a.body[1]", "task": "t", "label": "good", "group": "spans"})
    assert [(row.text, row.label, row.group) for row in result.rows] == [
        ("乙", 1, [[0, 1, 2]]),
        (MISSING, None, []),
        (MISSING, 0, None),
    ]
    assert result.rows[1].location == "raw/s.parquet row 2"


def test_parquet_row_groups_come_in_order() -> None:
    rows = [{"body": f"第{number}行"} for number in range(10_000)]
    write("s.parquet", rows, row_group_size=999)
    assert read(PARQUET).texts == [row["body"] for row in rows]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_kinds_of_strings(kind: pa.DataType) -> None:
    values = ["很好", None, "很坏"]
    column = pa.array(values).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(values, kind)
    pq.write_table(pa.table({"body": column}), "raw/s.parquet")
    assert read(PARQUET).texts == values


def test_a_column_that_is_not_there() -> None:
    write("a.parquet", [{"body": "甲"}])
    write("b.parquet", [{"text": "乙"}])
    with pytest.raises(InputError, match=r"raw/b\.parquet has no column body") as caught:
        read(PARQUET | {"path": "raw/b.parquet"})
    assert "it has text" in str(caught.value)
    result = read(PARQUET | {"path": "raw/*.parquet"})
    assert result.texts == ["甲"]
    assert result.reasons == ["wrong_columns"]
    with pytest.raises(InputError, match=r"row 1 has no field body\.x"):
        read(PARQUET | {"path": "raw/a.parquet", "text": "body.x"})


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99])
def test_truncated_parquet(keep: float) -> None:
    whole = write("a.parquet", [{"body": f"第{number}行"} for number in range(1000)]).read_bytes()
    put("b.parquet", whole[: int(keep if keep > 1 or not keep else len(whole) * keep)])
    put("c.parquet", whole)
    result = read(PARQUET | {"path": "raw/*.parquet"})
    assert len(result.texts) == 2000
    assert [(one.location, one.reason) for one in result.rejections] == [("raw/b.parquet", "broken_file")]


def test_damaged_parquet_keeps_the_row_groups_before_the_damage() -> None:
    path = write(
        "s.parquet", [{"body": f"第{n}行{n * n}"} for n in range(4000)], row_group_size=1000, compression="zstd"
    )
    whole = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(2).column(0)
    start = column.data_page_offset if column.dictionary_page_offset is None else column.dictionary_page_offset
    whole[start : start + 64] = b"\xff" * 64
    path.write_bytes(bytes(whole))
    result = read(PARQUET)
    assert len(result.texts) == 2000
    assert result.reasons == ["broken_file"]
    assert "from row 2001 on" in result.rejections[0].detail


def test_parquet_text_that_is_not_utf8() -> None:
    buffers = pa.array([b"fine", b"\xff\xfe", b"good"], pa.binary()).buffers()
    column = pa.Array.from_buffers(pa.string(), 3, buffers)
    pq.write_table(pa.table({"body": column}), "raw/s.parquet")
    result = read(PARQUET)
    assert result.texts == ["fine", "good"]
    assert [(one.location, one.reason) for one in result.rejections] == [("raw/s.parquet row 2", "bad_bytes")]


def test_long_values_and_dates_that_do_not_exist() -> None:
    far = pa.array([0, 10**15, 0], pa.timestamp("ms"))
    pq.write_table(pa.table({"body": ["甲", "乙", "长" * (1 << 21)], "when": far}), "raw/s.parquet")
    result = read(PARQUET | {"task": "t", "label": "when"})
    assert result.texts == ["甲"]
    assert result.reasons == ["bad_bytes", "row_too_long"]


def test_an_empty_parquet_file() -> None:
    pq.write_table(pa.table({"body": pa.array([], pa.string())}), "raw/s.parquet")
    with pytest.raises(InputError, match="is empty"):
        read(PARQUET)


def save(folder: str, rows: dict[str, list[Any]], **options: Any) -> None:
    from datasets import Dataset

    Dataset.from_dict(rows).save_to_disk(folder, **options)


def test_a_dataset_saved_by_datasets_itself(capfd: pytest.CaptureFixture[str]) -> None:
    from datasets import Dataset, DatasetDict

    rows = {"body": [f"第{n}行" for n in range(2500)], "good": [n % 2 for n in range(2500)]}
    save("raw/saved", rows, num_shards=3)
    result = read(SAVED | {"task": "t", "label": "good"})
    assert result.texts == rows["body"]
    assert [row.label for row in result.rows] == rows["good"]
    assert len(result.report.files) == 3
    assert result.rows[-1].location.startswith("raw/saved/data-00002-of-00003.arrow row ")

    # A selection is written as it is seen, not as it lay in memory.
    whole = Dataset.from_dict({"a": [{"body": text} for text in rows["body"]]})
    DatasetDict({"train": whole.select([5, 3]), "test": whole.shuffle(seed=1).select(range(4))}).save_to_disk(
        "raw/both"
    )
    both = SAVED | {"path": "raw/both", "text": "a.body"}
    assert read(both | {"subset": "train"}).texts == ["第5行", "第3行"]
    assert len(read(both | {"subset": "test"}).texts) == 4
    with pytest.raises(InputError, match=r"`ingest\.sources\.s\.subset` is None") as caught:
        read(both)
    assert "train, test" in str(caught.value)
    with pytest.raises(InputError, match="is 'dev'"):
        read(both | {"subset": "dev"})
    with pytest.raises(InputError, match="would do nothing"):
        read(SAVED | {"subset": "train"})


@pytest.fixture
def saved() -> Path:
    """A saved dataset of two files, written without the package: importing it takes seconds."""
    folder = Path("raw/saved")
    folder.mkdir()
    files = []
    for part in range(2):
        name = f"data-{part:05}-of-00002.arrow"
        schema = pa.schema([("body", pa.string())])
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
            for batch in range(3):
                stream.write_batch(pa.record_batch({"body": [f"{part}-{batch}-{n}" for n in range(500)]}))
        files.append({"filename": name})
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_truncated_dataset(saved: Path) -> None:
    first = sorted(saved.glob("*.arrow"))[0]
    whole = first.read_bytes()
    for keep, rows in ((len(whole) - 8, 1500), (len(whole) - 9, 1000), (len(whole) // 2, 500), (8, 0), (0, 0)):
        first.write_bytes(whole[:keep])
        result = read(SAVED)
        assert len(result.texts) == rows + 1500
        assert result.reasons == ["broken_file"]


def test_a_damaged_dataset_ends_neither_the_process_nor_the_run(saved: Path) -> None:
    first = sorted(saved.glob("*.arrow"))[0]
    whole = first.read_bytes()
    place = whole.index(b"0-0-0")
    # The offsets of the strings stand before them.
    for at in (place - 64, place - 1024, place - 2000):
        first.write_bytes(whole[:at] + b"\xff\xff\xff\x7f" * 4 + whole[at + 16 :])
        result = read(SAVED)
        assert len(result.texts) >= 1500
        assert result.rejections
        assert set(result.reasons) <= {"bad_bytes", "broken_file"}


def test_folders_that_are_no_dataset(saved: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read(SAVED | {"path": "raw/nowhere"})
    (saved / "state.json").write_text("[]")
    with pytest.raises(InputError, match="holds no object"):
        read(SAVED)
    (saved / "state.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read(SAVED)
    for files in (None, [{"filename": "../x"}], [{"filename": 3}], ["x"]):
        (saved / "state.json").write_text(json.dumps({"_data_files": files}))
        with pytest.raises(InputError, match="names no files of its folder"):
            read(SAVED)
    (saved / "state.json").unlink()
    with pytest.raises(InputError, match="save_to_disk"):
        read(SAVED)
    shutil.rmtree(saved)


def test_a_dataset_whose_files_lie_elsewhere(saved: Path, tmp_path: Path) -> None:
    first = sorted(saved.glob("*.arrow"))[0]
    first.rename(tmp_path / "elsewhere.arrow")
    first.symlink_to(tmp_path / "elsewhere.arrow")
    with pytest.raises(InputError, match="outside the stage's inputs"):
        read(SAVED)
