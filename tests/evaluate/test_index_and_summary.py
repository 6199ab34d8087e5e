"""The page over all results, and the summary on the terminal."""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluate_tree import TASK, promote_arguments, write_json
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_ops.errors import ArtifactError, InputError
from bert_ops.evaluate import charts, index, promotion, summary, wording


@pytest.fixture
def tree(copied: Path) -> Path:
    """All that report and summary read."""
    promotion.run(promote_arguments(copied))
    return copied


def arguments(tree: Path) -> argparse.Namespace:
    return argparse.Namespace(params=tree / "params.yaml", root=tree, out=tree / "reports/index.html")


def render(tree: Path) -> str:
    index.run(arguments(tree))
    return (tree / "reports/index.html").read_text(encoding="utf-8")


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.S))


def test_page_answers_at_the_top_and_shows_every_figure(tree: Path) -> None:
    text = plain(render(tree))
    top = text[: text.index("documents in")]
    assert "It overfits" in top and "It may not ship" in top
    for shown in ("380 documents in", "4 rejected", "16 duplicates removed", "600 pieces", "12,345 tokens"):
        assert shown in text
    assert "3.71 MLM loss (unigram 6.35)" in text and "32.7% MLM accuracy (unigram 4.8%)" in text
    assert "71.4% next-sentence accuracy" in text
    evaluated = json.loads((tree / f"metrics/evaluate/{TASK}.json").read_text())
    assert wording.with_interval(evaluated["accuracy"], evaluated["accuracy_ci95"]) in text
    for row in evaluated["baselines"].values():
        assert wording.points_with_interval(row["difference"], row["difference_ci95"]) in text
    assert "Does not beat TF-IDF + logistic regression" in text
    assert "1.90 MB" in text and "28 of 30 hold" in text
    assert "Overfitting of the run: yes ; of the weights kept: yes" in text


def test_page_needs_no_network_and_no_script(tree: Path) -> None:
    html = render(tree)
    assert "http" not in html and "<script" not in html
    assert str(tree) not in html
    frames = re.findall(r'<iframe src="([^"]+)"', html)
    assert frames == [f"speed/compress-{TASK}.html", "speed/pretrain.html"]
    links = set(re.findall(r'href="([^"]+)"', html))
    assert {f"evaluate/{TASK}/index.html", f"compress/{TASK}/index.html", "quality/corpus/index.html"} <= links
    assert all(not link.startswith(("/", "http")) for link in links | set(frames))


def test_page_is_balanced_html(tree: Path) -> None:
    class Checker(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta", "br"}:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    checker = Checker()
    checker.feed(render(tree))
    assert checker.open == []


def test_page_is_the_same_twice_and_reads_no_times(tree: Path) -> None:
    first = render(tree)
    path = tree / "metrics/pretrain.json"
    write_json(path, {**json.loads(path.read_text()), "tokens_per_second": 1.0, "seconds": 9.0})
    write_json(tree / f"metrics/compress/{TASK}.json", {"latency_ms_p50": 99.0})
    assert render(tree) == first


def test_page_of_a_good_model_says_so(tree: Path) -> None:
    path = tree / f"reports/evaluate/{TASK}/results.json"
    values = json.loads(path.read_text())
    values["overfitting"] |= {"verdict": "healthy", "kept_verdict": "healthy", "headline": "No overfitting."}
    for row in values["baselines"].values():
        row |= {"difference": 0.13, "difference_ci95": [0.1, 0.16], "outcome": "better"}
    values["verdict"] = wording.verdict(values)
    write_json(path, values)
    promotion.run(promote_arguments(tree))
    text = plain(render(tree))
    assert "It beats every baseline and does not overfit" in text
    assert "passed every gate: it is the champion" in text


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("metrics/ingest.json", "ingest"),
        ("metrics/tokenize.json", "tokenize"),
        ("metrics/validate_tokens.json", "validate_tokens"),
        ("reports/pretrain/results.json", "pretrain"),
        ("plots/pretrain.tsv", "pretrain"),
        (f"reports/evaluate/{TASK}/results.json", f"evaluate@{TASK}"),
        (f"reports/compress/{TASK}/results.json", f"compress@{TASK}"),
        (f"metrics/promote/{TASK}.json", f"promote@{TASK}"),
    ],
)
def test_what_is_missing_or_damaged_is_named_with_its_stage(tree: Path, path: str, stage: str) -> None:
    content = (tree / path).read_bytes()
    for broken in (None, content[: len(content) // 2], b"", b"[]", b"{}"):
        (tree / path).unlink() if broken is None else (tree / path).write_bytes(broken)
        if path.endswith(".tsv") and broken == content[: len(content) // 2]:
            continue  # half a table is still a table
        with pytest.raises(ArtifactError, match=re.escape(Path(path).name)) as caught:
            render(tree)
        assert f"--single-item {stage}" in str(caught.value)
    assert not (tree / "reports/index.html").exists()


def test_a_curve_with_a_word_in_it_is_refused(tree: Path) -> None:
    (tree / "plots/pretrain.tsv").write_text("step\ttrain_mlm_loss\tvalidation_mlm_loss\n1\tlow\t2\n")
    with pytest.raises(ArtifactError, match="low"):
        render(tree)


def test_params_without_tasks_are_refused(tree: Path) -> None:
    (tree / "params.yaml").write_text("report: {title: x}\n")
    with pytest.raises(InputError, match="no section `tasks`"):
        render(tree)


def summarise(tree: Path, *, colour: bool = False) -> list[str]:
    return list(summary.summarise(tree, tasks=[TASK], colour=colour))


def test_summary_shows_what_a_run_gave_in_80_columns(tree: Path) -> None:
    lines = summarise(tree)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text
    for shown in (
        "380 documents in, 4 rejected, 16 duplicates removed",
        "(5 near-copies); 2 that quote a test example not pretrained on",
        "12,345 tokens, vocabulary of 600",
        "MLM loss 3.71 (unigram 6.35), accuracy 32.7% (unigram 4.8%)",
        "NSP accuracy 71.4%",
        "the majority class",
        "TF-IDF + logistic regression",
        "the same network without pretraining",
        "1.90 MB (5.90 MB in float32), a text in 0.61 ms (1.21 ms)",
        "make ui",
        "stage report has not run",
    ):
        assert shown in text, shown
    assert "Overfitting: the validation loss stands" in text
    render(tree)
    assert "reports/index.html" in "".join(summarise(tree)).replace("\n", "")


def test_summary_colours_only_when_asked(tree: Path) -> None:
    coloured = "\n".join(summarise(tree, colour=True))
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == "\n".join(summarise(tree))


def test_summary_names_the_stages_that_have_not_run(tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", " ".join(summarise(tmp_path)))
    for stage in (
        "ingest",
        "tokenize",
        "pretrain",
        f"evaluate@{TASK}",
        f"compress@{TASK}",
        f"promote@{TASK}",
        "report",
    ):
        assert f"stage {stage} has not run: `dvc repro {stage}`" in text


def test_summary_command_writes_no_colour_into_a_pipe(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary.run(argparse.Namespace(params=tree / "params.yaml", root=tree))
    assert "\x1b" not in capsys.readouterr().out

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for variable, coloured in ((None, True), ("1", False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.delenv("NO_COLOR", raising=False)
        if variable:
            monkeypatch.setenv("NO_COLOR", variable)
        summary.run(argparse.Namespace(params=tree / "params.yaml", root=tree))
        assert ("\x1b[" in terminal.getvalue()) is coloured


def test_summary_of_a_damaged_metrics_file_is_an_error_with_its_name(tree: Path) -> None:
    (tree / "metrics/ingest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"ingest\.json"):
        summarise(tree)


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_span_the_values_in_round_steps(low: float, width: float) -> None:
    found = charts.ticks(low, low + width)
    assert 2 <= len(found) <= 8
    assert found == sorted(found)
    span = max(found[-1] - found[0], 1e-9)
    assert found[0] <= low + 1e-6 * span and found[-1] >= low + width - 1e-6 * span


def test_chart_leaves_out_what_is_not_finite() -> None:
    svg = charts.line_chart(
        [charts.Line("a<b", [(1, 2.0), (2, math.nan), (3, 1.0)], "red")], x_title="step", y_title="loss"
    )
    points = re.findall(r'<polyline points="([^"]+)"', svg)
    assert len(points[0].split()) == 2
    assert "nan" not in svg and "a&lt;b" in svg


@pytest.mark.parametrize(
    ("outcome", "begins"),
    [("better", "Beats"), ("worse", "Does not beat"), ("not_told_apart", "Does not beat")],
)
def test_words_never_say_more_than_the_interval(outcome: str, begins: str) -> None:
    row = {"difference": 0.02, "difference_ci95": [-0.01, 0.05], "p_value": 0.2, "outcome": outcome}
    sentence = wording.against("tfidf_lr", row)
    assert sentence.startswith(f"{begins} TF-IDF + logistic regression")
    assert "+2.0 (−1.0 to +5.0) points, p = 0.200" in sentence


def test_verdict_is_bad_when_it_leaks_or_learned_nothing() -> None:
    def results(**changes: object) -> dict:
        value = {
            "metric": "accuracy",
            "score": 0.8,
            "score_ci95": [0.78, 0.82],
            "examples": {"test": 100},
            "baselines": {
                name: {"difference": 0.1, "difference_ci95": [0.05, 0.15], "p_value": 0.0, "outcome": "better"}
                for name in ("majority", "tfidf_lr")
            },
            "overfitting": {
                "verdict": "healthy",
                "kept_verdict": "healthy",
                "kept_step": 5,
                "headline": "h",
                "advice": "a",
            },
            "leakage": {"test_texts_in_other_splits": 0},
        }
        for key, change in changes.items():
            value[key] = {**value[key], **change}  # type: ignore[dict-item]
        return wording.verdict(value)

    assert results()["status"] == "good"
    assert results(leakage={"test_texts_in_other_splits": 2})["status"] == "bad"
    lost = {"difference": 0.0, "difference_ci95": [-0.1, 0.1], "p_value": 1.0, "outcome": "not_told_apart"}
    assert "learned nothing" in results(baselines={"majority": lost})["headline"]
    assert results(baselines={"tfidf_lr": lost})["status"] == "warn"
    overfit = results(overfitting={"verdict": "fail"})
    assert overfit["status"] == "good" and "weights from before (step 5) were kept" in overfit["headline"]
    assert results(overfitting={"verdict": "warn", "kept_verdict": "warn"})["status"] == "warn"
