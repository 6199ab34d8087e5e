"""``bert-ops summary``: the results of the last run on one screen of 80 columns. What has not run yet is said."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bert_ops.evaluate import wording
from bert_ops.evaluate.results import Figures, task_names

_WIDTH = 80
_LABEL = 13

_COLOURS = {"good": "\x1b[32m", "warn": "\x1b[33m", "bad": "\x1b[31m", "bold": "\x1b[1m"}
Paint = Callable[[str, str], str]

_RESET = "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--root", type=Path, default=Path(), help="folder that holds metrics and reports (.)")


def run(arguments: argparse.Namespace) -> None:
    """Print the summary.

    Raises:
        InputError: params.yaml names no task.
    """
    tasks = task_names(arguments.params)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    lines = list(summarise(arguments.root, tasks=tasks, colour=colour))
    sys.stdout.write("\n".join(lines) + "\n")


def summarise(root: Path, *, tasks: list[str], colour: bool) -> Iterator[str]:
    """Yield the lines of the summary."""
    paint = _painter(colour)
    yield paint("bold", "bert-ops: results of the last run")
    yield "─" * _WIDTH
    for build in (_corpus, _tokens, _pretraining):
        yield from build(root)
    for task in tasks:
        yield ""
        yield from _task(root, task, paint)
    yield ""
    report = root / "reports/index.html"
    yield from _entry("Report", str(report) if report.exists() else _not_run("report"))
    yield from _entry(
        "Next", "`make ui` opens the pipeline in Dagster; change a value in params.yaml and run `dvc repro`"
    )


def _corpus(root: Path) -> Iterator[str]:
    figures = _read(root, "ingest")
    if figures is None:
        yield from _entry("Corpus", _not_run("ingest"))
        return
    yield from _entry(
        "Corpus",
        f"{figures.get('documents'):,} documents in, {figures.get('rejected'):,} rejected, "
        f"{figures.get('duplicates_removed'):,} duplicates removed",
    )
    yield from _entry(
        "",
        f"({figures.get('near_duplicates_removed'):,} near-copies); {figures.get('leakage.documents_dropped'):,} "
        "that quote a test example not pretrained on",
    )


def _tokens(root: Path) -> Iterator[str]:
    figures = _read(root, "tokenize")
    if figures is None:
        yield from _entry("Tokens", _not_run("tokenize"))
        return
    yield from _entry(
        "Tokens",
        f"{figures.get('tokens'):,} tokens, vocabulary of {figures.get('vocab_size'):,}, "
        f"{figures.get('unknown_share'):.2%} unknown",
    )


def _pretraining(root: Path) -> Iterator[str]:
    figures = _read(root, "pretrain")
    if figures is None:
        yield from _entry("Pretraining", _not_run("pretrain"))
        return
    yield from _entry(
        "Pretraining",
        f"MLM loss {figures.get('mlm_loss'):.2f} (unigram {figures.get('unigram_loss'):.2f}), "
        f"accuracy {figures.get('mlm_accuracy'):.1%} (unigram {figures.get('unigram_accuracy'):.1%})",
    )
    nsp, speed = figures.get("nsp_accuracy"), figures.values.get("tokens_per_second")
    yield from _entry(
        "",
        f"NSP accuracy {'not trained' if nsp is None else format(nsp, '.1%') + ' (chance 50%)'}"
        + (f"; {speed:,.0f} tokens/s" if speed else ""),
    )


def _task(root: Path, task: str, paint: Paint) -> Iterator[str]:
    figures = _read(root, f"evaluate/{task}")
    if figures is None:
        yield paint("bold", f"Task {task}")
        yield from _entry("  Scores", _not_run(f"evaluate@{task}"))
    else:
        yield from _scores(figures, task, paint)
    yield from _compressed(root, task, paint)


def _scores(figures: Figures, task: str, paint: Paint) -> Iterator[str]:
    title = f"Task {task} ({figures.get('examples.test'):,} test examples)"
    if len(title) > 40:
        yield paint("bold", title)
        title = ""
    metric = wording.METRIC_NAMES[figures.get("metric")]
    yield paint("bold", f"{title:<41}{f'{metric} (95%)':>19}{'model minus it':>20}")
    own = wording.with_interval(figures.get("score"), figures.get("score_ci95"))
    yield f"  {'fine-tuned model':<39}{own:>19}"
    for name in wording.ordered(figures.get("baselines")):
        row = figures.get(f"baselines.{name}")
        status = {"better": "good", "worse": "bad", "not_told_apart": "warn"}[row["outcome"]]
        low, high = row["difference_ci95"]
        gap = f"{wording.points(row['difference'])} ({wording.points(low)}…{wording.points(high)})"
        score = wording.with_interval(row["score"], row["score_ci95"])
        yield f"  {wording.BASELINE_NAMES.get(name, name):<39}{score:>19}{paint(status, f'{gap:>20}')}"
    status = figures.get("status")
    yield from _entry("  Verdict", figures.get("verdict"), paint=partial(paint, status))
    overfitting = figures.get("overfitting")
    kept = "bad" if overfitting["kept_verdict"] == "fail" else "warn"
    colour = partial(paint, "good" if overfitting["verdict"] == "healthy" else kept)
    yield from _entry("  Overfitting", f"{overfitting['headline']} {overfitting['advice']}", paint=colour)


def _compressed(root: Path, task: str, paint: Paint) -> Iterator[str]:
    figures = _read(root, f"compress/{task}")
    if figures is None:
        yield from _entry("  Compressed", _not_run(f"compress@{task}"))
    else:
        yield from _entry(
            "  Compressed",
            f"{figures.get('bytes') / 1e6:.2f} MB ({figures.get('bytes_fp32') / 1e6:.2f} MB in float32), a text in "
            f"{figures.get('latency_ms_p50'):.2f} ms ({figures.get('latency_ms_p50_fp32'):.2f} ms), "
            f"{wording.METRIC_NAMES[figures.get('metric')]} {figures.get('score'):.1%} "
            f"({figures.get('score_fp32'):.1%})",
        )
    decision = _read(root, f"promote/{task}")
    if decision is None:
        yield from _entry("  Champion", _not_run(f"promote@{task}"))
    elif decision.get("promoted"):
        yield from _entry("  Champion", "passed every gate: it is the champion", paint=partial(paint, "good"))
    else:
        why = "; ".join(decision.get("refused_because"))
        yield from _entry("  Champion", f"refused: {why}", paint=partial(paint, "bad"))


def _read(root: Path, name: str) -> Figures | None:
    path = root / "metrics" / f"{name}.json"
    if not path.exists():
        return None
    return Figures.read(path, made_by=name.replace("/", "@"))


def _not_run(stage: str) -> str:
    return f"stage {stage} has not run: `dvc repro {stage}`"


def _entry(label: str, text: str, *, paint: Callable[[str], str] = str) -> Iterator[str]:
    lines = textwrap.wrap(text, _WIDTH - _LABEL - 2, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield f"{label if number == 0 else '':<{_LABEL}}  {paint(line)}"


def _painter(colour: bool) -> Paint:
    def paint(name: str, text: str) -> str:
        return f"{_COLOURS[name]}{text}{_RESET}" if colour else text

    return paint
