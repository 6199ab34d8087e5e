"""`bert-ops schedule`: the table, the page, and what a log says about clipping."""

from __future__ import annotations

import argparse
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bert_ops.errors import InputError
from bert_ops.pretrain import show_schedule
from bert_ops.pretrain.course import course, key_steps, remarks
from bert_ops.pretrain.curve_chart import curve
from bert_ops.pretrain.params import PretrainParams
from bert_ops.training.run_log import RunLog
from bert_ops.training.schedule import rates

ROOT = Path(__file__).resolve().parents[2]
STEPS = 400
CONSTANT = {"tokens": 1024, "micro_tokens": 512, "growth": {"kind": "constant"}}
RAMP = {
    "tokens": 4096,
    "micro_tokens": 512,
    "growth": {"kind": "ramp", "start_tokens": 1024, "steps": 100, "rate_scaling": "linear"},
}
NOISE = {
    "tokens": 4096,
    "micro_tokens": 512,
    "growth": {
        "kind": "noise_scale",
        "min_tokens": 1024,
        "every_steps": 10,
        "smoothing": 0.9,
        "factor": 1.0,
        "rate_scaling": "sqrt",
    },
}
WSD = {"kind": "wsd", "warmup_steps": 40, "decay_steps": 80, "final_share": 0.0}
DROPS = {"kind": "multistep", "warmup_steps": 0, "milestones": [100, 300], "factor": 0.1}


@pytest.fixture
def raw() -> dict:
    """params.yaml as it stands, with a shorter run."""
    value = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    value["pretrain"] |= {"steps": STEPS, "sequence_tokens": 128, "batch": CONSTANT, "schedule": WSD}
    return value


def section(raw: dict, **changes: Any) -> PretrainParams:
    return PretrainParams.model_validate(raw["pretrain"] | changes)


def command(raw: dict, folder: Path, *words: str, **changes: Any) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw | {"pretrain": raw["pretrain"] | changes}, allow_unicode=True), encoding="utf-8")
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", type=Path, default=path)
    show_schedule.add_arguments(parser)
    show_schedule.run(parser.parse_args([*words, "--out", str(folder / "out" / "page.html")]))
    return folder / "out" / "page.html"


def write_log(path: Path, norms: Any) -> Path:
    log = RunLog(path)
    log.write("start", what="testing")
    for number, norm in enumerate(norms, start=1):
        log.write("step", step=10 * number, gradient_norm=norm)
    log.write("evaluation", step=10 * len(norms), validation_mlm_loss=2.0)
    return path


# ---------------------------------------------------------------- what is computed


def test_rate_and_batch_are_those_of_the_training(raw: dict) -> None:
    params = section(raw, batch=RAMP)
    found = course(params)
    scheduled = rates(params.schedule, learning_rate=params.optimizer.learning_rate, total_steps=STEPS)
    batch = np.array([1024 + min(1.0, step / 100) * 3072 for step in range(STEPS)])
    assert (abs(found.batch[:, 0] - batch) <= 256).all() and (found.batch % 512 == 0).all()
    np.testing.assert_allclose(found.rate[:, 0], scheduled * found.batch[:, 0] / 4096)
    assert (found.rate[:, 0] == found.rate[:, 1]).all() and (found.batch[:, 0] == found.batch[:, 1]).all()
    assert found.read[-1, 0] == found.batch[:, 0].sum() and found.read[0, 0] == 1024


def test_a_batch_that_is_measured_is_known_by_its_bounds(raw: dict) -> None:
    params = section(raw, batch=NOISE)
    found = course(params)
    assert (found.batch == [1024, 4096]).all()
    assert found.read[-1].tolist() == [STEPS * 1024, STEPS * 4096]
    np.testing.assert_allclose(found.rate[:, 0] / found.rate[:, 1], 0.5)


def test_key_steps_are_named_in_order(raw: dict) -> None:
    assert key_steps(section(raw)) == [
        (0, "first"),
        (39, "end of warmup"),
        (99, "a quarter"),
        (199, "half"),
        (299, "three quarters"),
        (320, "decay begins"),
        (399, "last"),
    ]
    assert key_steps(section(raw, schedule=DROPS, batch=RAMP)) == [
        (0, "first"),
        (99, "a quarter"),
        (100, "drop 1 of 2, whole batch"),
        (199, "half"),
        (299, "three quarters"),
        (300, "drop 2 of 2"),
        (399, "last"),
    ]


def test_of_many_drops_the_first_and_the_last_are_named(raw: dict) -> None:
    schedule = {"kind": "step", "warmup_steps": 0, "every_steps": 10, "factor": 0.9}
    named = [what for _, what in key_steps(section(raw, schedule=schedule)) if "drop" in what]
    assert named == ["drop 1 of 39", "drop 39 of 39"]


def test_a_run_of_one_step_has_one_line(raw: dict) -> None:
    params = section(raw, steps=1, schedule={"kind": "constant", "warmup_steps": 0})
    assert [step for step, _ in key_steps(params)] == [0]
    assert "<svg" in show_schedule.html(params, course(params), None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": RAMP, "steps": 50}, "The ramp takes 100 steps and the run 50: it ends with batches of 2,560"),
        ({"batch": RAMP | {"micro_tokens": 1024, "growth": RAMP["growth"] | {"start_tokens": 1100}}}, "not with 1,100"),
        ({"schedule": {"kind": "step", "warmup_steps": 0, "every_steps": 400, "factor": 0.5}}, "The rate never drops"),
        ({"batch": NOISE}, "only its bounds are known"),
        ({"batch": RAMP | {"micro_tokens": "auto"}}, "shown are passes of 1,024"),
    ],
)
def test_what_a_reader_may_not_have_meant_is_said(raw: dict, changes: dict, said: str) -> None:
    changes = {"schedule": {"kind": "constant", "warmup_steps": 0}} | changes
    params = section(raw, **changes)
    assert any(said in remark for remark in remarks(params, course(params)))
    plain = section(raw)
    assert not any(said in remark for remark in remarks(plain, course(plain)))


# ---------------------------------------------------------------- what is shown


def test_the_table_tells_rate_batch_and_tokens(raw: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(raw, tmp_path, batch=RAMP)
    out = capsys.readouterr().out
    assert all(len(line) <= 120 for line in out.splitlines())
    rows = {row[0]: row for row in (re.split(r"\s{2,}", line.strip()) for line in out.splitlines())}
    found = course(section(raw, batch=RAMP))
    peak = section(raw).optimizer.learning_rate
    assert rows["1"] == ["1", "first", f"{peak / 40 / 4:.3e}", "1,024", "1,024"]
    assert rows["101"][1] == "whole batch" and rows["101"][3] == "4,096"
    assert rows["400"] == ["400", "last", f"{peak / 80:.3e}", "4,096", f"{found.read[-1, 0]:,}"]
    assert f"tokens in all:          {found.read[-1, 0]:,}" in out


class Page(HTMLParser):
    """Tags, what is loaded from elsewhere, and whether everything is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.points: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "line"}:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href"}:
                self.outside.append(value or "")
            if name == "points":
                self.points.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.points += [value or "" for name, value in attrs if name == "points"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("batch", [CONSTANT, RAMP, NOISE])
@pytest.mark.parametrize("schedule", [WSD, DROPS])
def test_the_page_stands_alone_and_draws_both_curves(raw: dict, tmp_path: Path, batch: dict, schedule: dict) -> None:
    log = write_log(tmp_path / "log.jsonl", np.random.default_rng(1).lognormal(0, 1, 200))
    page = Page()
    text = command(raw, tmp_path, "--log", str(log), batch=batch, schedule=schedule).read_text(encoding="utf-8")
    page.feed(text)
    assert not page.open and not page.outside and "script" not in page.tags
    assert page.tags.count("svg") == 3 and "prefers-color-scheme" in text
    for points in page.points:
        for x, y in (point.split(",") for point in points.split()):
            assert 0 <= float(x) <= 760 and 0 <= float(y) <= 250
    assert "first" in text and "last" in text and "suggested clipping.norm" in text


def test_the_curve_goes_through_its_values() -> None:
    values = np.concatenate([np.full(5000, 2.0), np.full(5000, 0.5)])
    drawn = curve(np.arange(1, 10_001), values, label="a <drop>", marks=[(5001, "drop")])
    assert 'aria-label="a &lt;drop&gt;"' in drawn and "<title>drop</title>" in drawn
    line = re.search(r'<polyline points="([^"]+)"', drawn)
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.group(1).split()]
    assert len(points) <= 603
    heights = sorted({y for _, y in points})
    assert len(heights) == 2  # nothing between the two levels: the drop is sharp
    floor, top = 250 - 44, 14
    assert [floor - (floor - top) * value / 2.0 for value in (2.0, 0.5)] == pytest.approx(heights)
    before = max(x for x, y in points if y == heights[0])
    after = min(x for x, y in points if y == heights[1])
    assert 0 <= after - before < 0.2


@pytest.mark.parametrize("value", [0.0, 1e-9, 3.5e-4, 0.002, 1.0, 7.0, 16384.0, 3e8])
def test_axes_are_round_and_reach_the_largest_value(value: float) -> None:
    drawn = curve(np.arange(1, 11), np.linspace(0, value, 10), label="x")
    ticks = [float(text.replace(",", "")) for text in re.findall(r'text-anchor="end">([\d.,e+-]+)</text>', drawn)]
    assert ticks[0] == 0 and value <= ticks[-1] <= max(2 * value, 1.0)
    assert 2 <= len(ticks) <= 6


# ---------------------------------------------------------------- the log


def test_the_log_tells_which_bound_its_norms_speak_for(
    raw: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    norms = [0.1 * number for number in range(1, 101)]
    log = write_log(tmp_path / "log.jsonl", [*norms, float("nan"), float("inf")])
    page = command(raw, tmp_path, "--log", str(log), clipping={"norm": 5.0, "value": None}).read_text(encoding="utf-8")
    out = capsys.readouterr().out
    assert "Of 100 steps in the log" in out
    for name, value in (
        ("half of them:", "5.05"),
        ("largest gradient norm:", "10"),
        ("steps beyond clipping.norm 5:", "50.0%"),
        ("suggested clipping.norm:", "9 (cuts one step of ten)"),
    ):
        assert re.search(rf"{re.escape(name)} +{re.escape(value)}$", out, re.MULTILINE)
    assert ">suggested</text>" in page and ">clipping.norm</text>" in page


def test_without_a_bound_or_with_few_steps_no_figure_is_made_up(
    raw: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "log.jsonl", [1.0, 2.0])
    command(raw, tmp_path, "--log", str(tmp_path), clipping={"norm": None, "value": None})
    out = capsys.readouterr().out
    assert re.search(r"clipping\.norm: +none", out) and "too few steps to say" in out and log.is_file()


@pytest.mark.parametrize("content", [None, "", '{"event": "start", "time": 1.0}\n', "nonsense\n"])
def test_a_log_without_norms_is_refused(raw: dict, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "log.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        command(raw, tmp_path, "--log", str(path))
    assert "log.jsonl" in str(error.value) and "remedy:" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": WSD | {"decay_steps": 361}}, "schedule.decay_steps 361 exceeds the 360 steps"),
        ({"schedule": WSD | {"warmup_steps": 400}}, "schedule.warmup_steps 400 is not less than steps 400"),
        ({"schedule": DROPS | {"milestones": [100, 400]}}, r"schedule.milestones are \[100, 400\]"),
        ({"schedule": {"kind": "step", "warmup_steps": 0, "every_steps": 10, "factor": 0.5}}, "ends before training"),
        ({"batch": RAMP | {"micro_tokens": 2048}}, "batch.growth.start_tokens is 1024"),
        ({"batch": NOISE | {"micro_tokens": 1024}}, "batch.growth.min_tokens is 1024"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_before_it(raw: dict, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        command(raw, tmp_path, **changes)
