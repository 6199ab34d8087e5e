"""Previews: curves of plots, first rows of tables, and what cannot be shown."""

import base64
from pathlib import Path

from dagster_project.dagster_dvc.pipeline import Stage
from dagster_project.dagster_dvc.preview import curve, excerpt, previews


def test_a_curve_names_first_last_and_lowest(tmp_path: Path) -> None:
    table = tmp_path / "loss.tsv"
    table.write_text("step\tloss\n10\t4.0\n20\t2.5\n30\t3.0\n")
    text = curve(table, {"x": "step", "y": "loss"})
    assert text is not None
    assert "`loss`: 4 → 3, lowest 2.5 at step 20 of 30" in text
    drawing = base64.b64decode(text.split("base64,")[1].split(")")[0]).decode()
    assert drawing.startswith("<svg") and drawing.count(",") >= 3


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    table = tmp_path / "loss.csv"
    table.write_text("step,loss\n1,nan\n2,oops\n3,1.5\n4,\n")
    text = curve(table, {"x": "step", "y": "loss"})
    assert text is not None and "`loss`: 1.5 → 1.5" in text


def test_long_curves_are_thinned_and_keep_their_end(tmp_path: Path) -> None:
    table = tmp_path / "loss.csv"
    table.write_text("step,loss\n" + "".join(f"{n},{1000 - n}\n" for n in range(1000)))
    text = curve(table, {"x": "step", "y": "loss"})
    assert text is not None and "1000 → 1," in text and len(text) < 10_000


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert curve(tmp_path / "absent.tsv", {"y": "loss"}) is None
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert curve(tmp_path / "other.csv", {"y": "loss"}) is None
    assert curve(tmp_path / "other.csv", {}) is None


def test_excerpts(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "好|坏", "n": 1}\n{"text": "b"}\n', encoding="utf-8")
    assert excerpt(tmp_path / "rows.jsonl") == "| text | n |\n|---|---|\n| 好\\|坏 | 1 |\n| b |  |"
    (tmp_path / "note.md").write_text("**bold**")
    assert excerpt(tmp_path / "note.md") == "**bold**"
    (tmp_path / "log.txt").write_text("plain")
    assert excerpt(tmp_path / "log.txt") == "```\nplain\n```"
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe")
    assert excerpt(tmp_path / "broken.jsonl") is None
    assert excerpt(tmp_path / "binary.md") is None
    assert excerpt(tmp_path / "absent.md") is None


def test_a_stage_shows_its_plots_and_its_meta(tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_text("step,loss\n1,2\n2,1\n")
    (tmp_path / "first.md").write_text("hello")
    stage = Stage(
        name="train",
        command="true",
        meta={"preview": ["first.md", "absent.md"]},
        definition={"plots": [{"loss.csv": {"x": "step", "y": "loss", "title": "Loss"}}, "untitled.csv"]},
    )
    assert set(previews(tmp_path, stage)) == {"Loss", "preview of first.md"}
