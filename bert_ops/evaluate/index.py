"""Stage ``report``: one page over all results, which opens from a disk without a network.

It reads only what does not depend on the clock, so that it is made again only when a result changed. Timings stand
in pages of their own (``reports/speed``), which it embeds without reading them.
"""

from __future__ import annotations

import argparse
import re
from html import escape
from pathlib import Path

from bert_ops.evaluate import wording
from bert_ops.evaluate.charts import Line, line_chart
from bert_ops.evaluate.params import ReportParams
from bert_ops.evaluate.results import Figures, read_columns, task_names
from bert_ops.io import write_text
from bert_ops.page import cards, page, table
from bert_ops.progress import note
from bert_ops.schema import load_section

_STATUS_CLASS = {"good": "good", "warn": "warn", "bad": "bad"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--root", type=Path, required=True, help="folder that holds metrics, plots and reports (.)")
    parser.add_argument("--out", type=Path, required=True, help="the page; beside it stand the reports that it links")


def run(arguments: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        ArtifactError: a result that it shows is missing or damaged.
    """
    params = load_section(arguments.params, "report", ReportParams)
    root: Path = arguments.root
    tasks = task_names(arguments.params)
    found = {task: Task(root, task) for task in tasks}
    body = "".join(
        [
            *(_verdict(task) for task in found.values()),
            _overview(root, found),
            *(_task(task) for task in found.values()),
            _pretraining(root),
            _corpus(root),
            _checks(root),
            _links(found),
        ]
    )
    write_text(arguments.out, page(params.title, body, subtitle="Results of the last run of the pipeline"))
    note(f"report: {arguments.out}")


class Task:
    """The results of one task, read once."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.evaluation = Figures.read(root / "reports/evaluate" / name / "results.json", made_by=f"evaluate@{name}")
        self.compression = Figures.read(root / "reports/compress" / name / "results.json", made_by=f"compress@{name}")
        self.promotion = Figures.read(root / "metrics/promote" / f"{name}.json", made_by=f"promote@{name}")


def _verdict(task: Task) -> str:
    status = _STATUS_CLASS[task.evaluation.get("verdict.status")]
    promoted = task.promotion.get("promoted")
    ships = (
        '<span class="good">The compressed model passed every gate: it is the champion.</span>'
        if promoted
        else f'<span class="bad">It may not ship: {_prose("; ".join(task.promotion.get("refused_because")))}.</span>'
    )
    return (
        f'<p style="font-size:1.15rem;margin:.4rem 0"><b>{escape(task.name)}</b>: '
        f'<span class="{status}"><b>{escape(task.evaluation.get("verdict.headline"))}</b></span><br>{ships}</p>\n'
    )


def _overview(root: Path, tasks: dict[str, Task]) -> str:
    ingest, tokens, pretrain = _ingest(root), _tokens(root), _pretrain(root)
    nsp = pretrain.get("nsp_accuracy")
    shown = [
        (f"{ingest.get('documents'):,}", "documents in"),
        (f"{ingest.get('rejected'):,}", "rejected"),
        (f"{ingest.get('duplicates_removed'):,}", "duplicates removed"),
        (f"{tokens.get('vocab_size'):,}", "pieces in the vocabulary"),
        (f"{tokens.get('tokens'):,}", "tokens"),
        (f"{pretrain.get('mlm_loss'):.2f}", f"MLM loss (unigram {pretrain.get('unigram_loss'):.2f})"),
        (
            wording.percent(pretrain.get("mlm_accuracy")),
            f"MLM accuracy (unigram {wording.percent(pretrain.get('unigram_accuracy'))})",
        ),
        ("off" if nsp is None else wording.percent(nsp), "next-sentence accuracy (chance 50%)"),
    ]
    for task in tasks.values():
        metric = wording.METRIC_NAMES[task.evaluation.get("metric")]
        shown.append((wording.percent(task.evaluation.get("score")), f"{task.name}: test {metric}"))
        shown.append((f"{task.compression.get('bytes') / 1e6:.2f} MB", f"{task.name}: compressed model"))
    return cards(shown)


def _task(task: Task) -> str:
    figures = task.evaluation
    own, *others = wording.shown_scores(figures.values)
    rows = [
        [
            "<b>fine-tuned model</b>",
            f"<b>{wording.with_interval(figures.get(own), figures.get(f'{own}_ci95'))}</b>",
            *(wording.percent(figures.get(name)) for name in others),
            "",
            "",
        ]
    ]
    for name in wording.ordered(figures.get("baselines")):
        row = figures.get(f"baselines.{name}")
        status = {"better": "good", "worse": "bad", "not_told_apart": "warn"}[row["outcome"]]
        rows.append(
            [
                escape(wording.BASELINE_NAMES.get(name, name)),
                wording.with_interval(row[own], row[f"{own}_ci95"]),
                *(wording.percent(row[name]) for name in others),
                wording.points_with_interval(row["difference"], row["difference_ci95"]),
                f'<span class="{status}">{wording.OUTCOMES[row["outcome"]]}</span>',
            ]
        )
    named = [wording.METRIC_NAMES[name] for name in others]
    headers = ["", f"{wording.METRIC_NAMES[own]} (95%)", *named, "model minus it, points (95%)", "the model"]
    overfitting = figures.get("overfitting")
    link = escape(f"evaluate/{task.name}/index.html")
    sentences = "".join(f"<li>{_prose(sentence)}</li>" for sentence in figures.get("verdict.sentences"))
    return (
        f"<h2>Task {escape(task.name)}</h2>\n<p>{_split_counts(figures)}</p>"
        f"{table(headers, rows, numeric=list(range(1, len(headers) - 1)))}<ul>{sentences}</ul>"
        f"<p>Overfitting of the run: <b>{wording.OVERFITTING[overfitting['verdict']]}</b>; of the weights kept: "
        f"<b>{wording.OVERFITTING[overfitting['kept_verdict']]}</b>. "
        f"{_calibration(figures)}"
        f'<a href="{link}">Full evaluation report</a></p>\n{_compression(task)}'
    )


def _calibration(figures: Figures) -> str:
    found = figures.get("calibration")
    return "" if found is None else f"Calibration error {found['error']:.3f}. "


def _split_counts(figures: Figures) -> str:
    counts = ", ".join(f"{split} {count:,}" for split, count in wording.by_split(figures.get("examples")))
    leaked = figures.get("leakage.test_texts_in_other_splits")
    return f"Examples: {escape(counts)}. Test texts that stand in another split: {leaked:,}."


def _compression(task: Task) -> str:
    small = task.compression
    rows = [
        ["size", f"{small.get('bytes_fp32') / 1e6:.2f} MB", f"{small.get('bytes') / 1e6:.2f} MB"],
        [
            f"test {wording.METRIC_NAMES[small.get('metric')]}",
            f"{small.get('score_fp32'):.2%}",
            f"{small.get('score'):.2%}",
        ],
    ]
    gates = [
        [
            f'<span class="{"good" if gate["passed"] else "bad"}">{"pass" if gate["passed"] else "fail"}</span>',
            _prose(gate["why"]),
        ]
        for _, gate in sorted(task.promotion.get("gates").items(), key=lambda item: (item[1]["passed"], item[0]))
    ]
    link, speed = f"compress/{task.name}/index.html", f"speed/compress-{task.name}.html"
    return (
        f"<h3>Compressed model</h3>{table(['', 'float32', 'shipped'], rows, numeric=[1, 2])}"
        f'<p><a href="{escape(link)}">Compression report</a></p>'
        f'<iframe src="{escape(speed)}" title="latency of {escape(task.name)}" loading="lazy"></iframe>'
        f"<h3>Promotion</h3>{table(['gate', 'why'], gates)}"
    )


def _pretraining(root: Path) -> str:
    figures = _pretrain(root)
    path = root / "plots/pretrain.tsv"
    steps, train, validation = read_columns(path, ["step", "train_mlm_loss", "validation_mlm_loss"], made_by="pretrain")
    unigram = figures.get("unigram_loss")
    chart = line_chart(
        [
            Line("unigram", [(steps[0], unigram), (steps[-1], unigram)], "var(--soft)", dashed=True),
            Line("training", list(zip(steps, train, strict=True)), "var(--link)"),
            Line("held out", list(zip(steps, validation, strict=True)), "var(--bad)"),
        ],
        x_title="optimiser step",
        y_title="MLM loss, nats a token",
    )
    return (
        f"<h2>Pretraining</h2>\n<p>{figures.get('parameters'):,} parameters, {figures.get('steps'):,} steps over "
        f"{figures.get('tokens_seen'):,} tokens. Held-out MLM loss {figures.get('mlm_loss'):.3f} nats against "
        f"{unigram:.3f} of token frequencies alone.</p>{chart}"
        '<iframe src="speed/pretrain.html" title="pretraining speed" loading="lazy"></iframe>\n'
    )


def _corpus(root: Path) -> str:
    figures = _ingest(root)
    reasons = figures.get("rejected_by_reason")
    sources = figures.get("duplicates_by_source")
    rows = [["rejected", escape(reason.replace("_", " ")), f"{count:,}"] for reason, count in sorted(reasons.items())]
    rows += [["duplicates removed", escape(source), f"{count:,}"] for source, count in sorted(sources.items())]
    near, leaks = figures.get("near_duplicates_removed"), figures.get("leakage.documents_dropped")
    total = (
        f"<p>{figures.get('read'):,} texts read, {figures.get('documents'):,} kept; {near:,} of the duplicates were "
        f"only nearly the same. {leaks:,} documents quote a test example and are no pretraining text. "
        '<a href="corpus/index.html">The data card</a> shows every step.</p>'
    )
    return f"<h2>Corpus</h2>{total}{table(['', 'why, or source', 'texts'], rows, numeric=[2])}"


def _checks(root: Path) -> str:
    rows = []
    for stage, report, title in (
        ("validate_corpus", "quality/corpus", "corpus and examples"),
        ("validate_tokens", "quality/tokens", "tokens"),
    ):
        figures = Figures.read(root / "metrics" / f"{stage}.json", made_by=stage)
        failed, warned = figures.get("failed_critical"), figures.get("failed_warning")
        status = "bad" if failed else "warn" if warned else "good"
        held = figures.get("evaluated") - failed - warned
        rows.append(
            [
                f'<a href="{report}/index.html">{title}</a>',
                f'<span class="{status}">{held} of {figures.get("evaluated")} hold</span>',
                str(failed),
                str(warned),
            ]
        )
    headers = ["Great Expectations over", "", "critical failures", "warnings"]
    return f"<h2>Checks of the data</h2>{table(headers, rows, numeric=[2, 3])}"


def _links(tasks: dict[str, Task]) -> str:
    links = [
        ("corpus/index.html", "Data card of the corpus"),
        ("quality/corpus/index.html", "Checks of the corpus"),
        ("quality/tokens/index.html", "Checks of the tokens"),
    ]
    for name in tasks:
        links += [
            (f"evaluate/{name}/index.html", f"Evaluation of {name}"),
            (f"compress/{name}/index.html", f"Compression of {name}"),
            (f"speed/compress-{name}.html", f"Latency of {name}"),
        ]
    links.append(("speed/pretrain.html", "Speed of pretraining"))
    items = "".join(f'<li><a href="{escape(href)}">{escape(text)}</a></li>' for href, text in links)
    return f"<h2>All reports</h2><ul>{items}</ul>"


def _prose(text: str) -> str:
    """Escape text for HTML; what stands between backticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _ingest(root: Path) -> Figures:
    return Figures.read(root / "metrics/ingest.json", made_by="ingest")


def _tokens(root: Path) -> Figures:
    return Figures.read(root / "metrics/tokenize.json", made_by="tokenize")


def _pretrain(root: Path) -> Figures:
    return Figures.read(root / "reports/pretrain/results.json", made_by="pretrain")
