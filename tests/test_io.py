"""Artifacts: nothing whole is ever replaced by something broken, and equal values are equal bytes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops import io
from bert_ops.errors import ArtifactError, InputError, StorageError


class Broken(Exception):
    """Raised in the middle of a write."""


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_file_is_replaced_only_when_whole(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    io.write_text(target, "old 旧")
    with pytest.raises(Broken), io.atomic_file(target) as temporary:
        temporary.write_text("half")
        raise Broken
    assert target.read_text(encoding="utf-8") == "old 旧"
    io.write_text(target, "new")
    assert target.read_text() == "new"
    assert leftovers(target.parent) == []


def test_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "deep" / "folder"
    with io.atomic_folder(target) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(Broken), io.atomic_folder(target) as temporary:
        (temporary / "b").write_text("half")
        raise Broken
    assert [path.name for path in target.iterdir()] == ["a"]
    with io.atomic_folder(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "c").write_text("new")
    assert [path.name for path in target.iterdir()] == ["sub"]
    assert leftovers(target.parent) == []


def test_folder_takes_the_place_of_a_file(tmp_path):
    target = tmp_path / "x"
    target.write_text("a file")
    with io.atomic_folder(target) as temporary:
        (temporary / "a").write_text("new")
    assert target.is_dir() and leftovers(tmp_path) == []


def test_old_folder_comes_back_if_the_last_rename_fails(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    with io.atomic_folder(target) as temporary:
        (temporary / "a").write_text("old")
    real = type(target).replace

    def failing(self, other):
        if self.name.endswith(".tmp"):
            raise OSError(errno.EIO, "broken disk")
        return real(self, other)

    monkeypatch.setattr(type(target), "replace", failing)
    with pytest.raises(StorageError, match="broken disk"), io.atomic_folder(target) as temporary:
        (temporary / "a").write_text("new")
    assert (target / "a").read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disk_is_a_storage_error_and_keeps_what_stood_there(tmp_path, number):
    file, folder = tmp_path / "a.json", tmp_path / "folder"
    io.write_json(file, {"old": 1})
    with io.atomic_folder(folder) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(StorageError, match=r"(?s)cannot write .*a\.json.*remedy"), io.atomic_file(file):
        raise OSError(number, os.strerror(number))
    with pytest.raises(StorageError), io.atomic_folder(folder) as temporary:
        (temporary / "b").write_text("half")
        raise OSError(number, os.strerror(number))
    assert io.read_json(file, made_by="x") == {"old": 1}
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert leftovers(tmp_path) == []


_LIMITED = """
import resource, sys
from pathlib import Path
import pandas as pd
from bert_ops import io
from bert_ops.errors import StorageError
frame = pd.DataFrame({"x": range(200_000)}).astype("float64") ** 0.5
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for write, target, value in ((io.write_parquet, sys.argv[1], frame), (io.write_text, sys.argv[2], "x" * 100_000)):
    try:
        write(Path(target), value)
    except StorageError as error:
        print("refused", str(error).splitlines()[0])
"""


def test_writes_that_the_kernel_cuts_off_leave_the_old_files(tmp_path):
    """A real failure in the middle of a write: the kernel refuses what goes beyond a file size."""
    table, text = tmp_path / "t.parquet", tmp_path / "t.txt"
    io.write_parquet(table, pd.DataFrame({"x": [1.0]}))
    io.write_text(text, "old")
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(table), str(text)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.count("refused cannot write") == 2, done.stdout + done.stderr
    assert io.read_parquet(table, columns=["x"], made_by="x")["x"].tolist() == [1.0]
    assert text.read_text() == "old"
    assert leftovers(tmp_path) == []


_SLEEPING = """
import sys, time
from pathlib import Path
from bert_ops import io
with io.atomic_file(Path(sys.argv[1]) / "file") as file, io.atomic_folder(Path(sys.argv[1]) / "folder") as folder:
    file.write_text("half")
    (folder / "b").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_killed_writer_leaves_the_old_and_the_next_one_clears_up(tmp_path):
    io.write_text(tmp_path / "file", "old")
    with io.atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEPING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        io.write_text(tmp_path / "file", "from another process")
        assert len(leftovers(tmp_path)) == 2, "what a living process writes is left alone"
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "file").read_text() == "from another process"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a"]
    io.write_text(tmp_path / "file", "new")
    with io.atomic_folder(tmp_path / "folder") as folder:
        (folder / "c").write_text("new")
    assert leftovers(tmp_path) == []
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["c"]


def test_folder_of_a_writer_killed_between_its_renames_comes_back(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    retired = tmp_path / f".folder.{dead.pid}.old"
    retired.mkdir()
    (retired / "a").write_text("old")
    with pytest.raises(Broken), io.atomic_folder(tmp_path / "folder"):
        raise Broken
    assert (tmp_path / "folder" / "a").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_read_only_folder_is_a_storage_error(tmp_path):
    if os.geteuid() == 0:
        target = tmp_path / "file" / "below"
        target.parent.write_text("a file where a folder should be")
        with pytest.raises((StorageError, OSError)):
            io.write_text(target, "x")
        assert target.parent.read_text().startswith("a file")
        return
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission"):
            io.write_text(tmp_path / "a", "x")
    finally:
        tmp_path.chmod(0o700)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="abc文", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
@settings(max_examples=80, deadline=None)
def test_json_comes_back_and_its_bytes_do_not_depend_on_order(value):
    text = io.dump_json(value)
    assert json.loads(text) == value
    if isinstance(value, dict):
        assert io.dump_json(dict(reversed(value.items()))) == text


def test_json_is_readable_and_ends_in_a_newline(tmp_path):
    io.write_json(tmp_path / "a.json", {"b": "文", "a": 0.1})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "a": 0.1,\n  "b": "文"\n}\n'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path, value):
    io.write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON"):
        io.write_json(tmp_path / "a.json", {"loss": value})
    assert io.read_json(tmp_path / "a.json", made_by="x") == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"{'a': 1}"])
def test_damaged_json_names_the_file_and_the_stage(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"(?s)a\.json is damaged.*--single-item pretrain"):
        io.read_json(path, made_by="pretrain")


def test_missing_artifacts_name_the_stage(tmp_path):
    for read in (io.read_json, lambda path, made_by: io.read_parquet(path, columns=["x"], made_by=made_by)):
        with pytest.raises(ArtifactError, match=r"(?s)absent does not exist.*--single-item ingest"):
            read(tmp_path / "absent", made_by="ingest")
    with pytest.raises(ArtifactError, match="damaged"):
        io.read_json(tmp_path, made_by="ingest")
    with pytest.raises(ArtifactError):
        io.read_parquet(tmp_path, columns=["x"], made_by="ingest")


def test_table_comes_back_with_equal_bytes(tmp_path):
    frame = pd.DataFrame({"text": ["文", None], "n": [1, 2]})
    io.write_parquet(tmp_path / "a.parquet", frame)
    io.write_parquet(tmp_path / "b.parquet", frame.copy())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert io.read_parquet(tmp_path / "a.parquet", columns=["n"], made_by="x")["n"].tolist() == [1, 2]


def test_table_without_a_column_is_refused_by_name(tmp_path):
    io.write_parquet(tmp_path / "a.parquet", pd.DataFrame({"text": ["a"]}))
    with pytest.raises(ArtifactError, match=r"no column label \(it has text\)"):
        io.read_parquet(tmp_path / "a.parquet", columns=["text", "label"], made_by="ingest")


def test_truncated_table_is_damaged_wherever_it_was_cut(tmp_path):
    path = tmp_path / "a.parquet"
    io.write_parquet(path, pd.DataFrame({"x": range(1000)}))
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ArtifactError, match="damaged"):
            io.read_parquet(path, columns=["x"], made_by="ingest")


def test_hash_of_a_folder_sees_names_and_contents_but_no_times(tmp_path):
    def make(name, files):
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return io.folder_sha256(tmp_path / name)

    first = make("a", {"x": "1", "sub/y": "2"})
    time.sleep(0.01)
    assert make("b", {"sub/y": "2", "x": "1"}) == first
    assert make("c", {"x": "2", "sub/y": "1"}) != first
    assert make("d", {"x": "1", "y": "2"}) != first


def test_required_folder(tmp_path):
    assert io.require_folder(tmp_path, what="corpus") == tmp_path
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match=r"corpus .* is not a folder"):
            io.require_folder(path, what="corpus")
