"""The data card as one HTML page: charts in SVG and CSS, no script, nothing fetched, light and dark, printable."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from bert_ops.corpus.card_charts import class_bars, funnel, histogram
from bert_ops.corpus.card_words import (
    LIMITS,
    duplicates,
    encodings,
    files_of,
    label_tables,
    leakage,
    number,
    percent,
    removals,
    splits_of,
    usage,
    visible,
)
from bert_ops.page import cards, page, table

Facts = Mapping[str, Any]

_STYLE = """<style>
.wide { overflow-x:auto } .tokens { display:flex; flex-wrap:wrap; gap:.35rem; padding:0; margin:.4rem 0 1rem;
  list-style:none } .tokens li { background:var(--card); border:1px solid var(--line); border-radius:.4rem;
  padding:.1rem .5rem; white-space:nowrap } .tokens small { color:var(--soft); font-variant-numeric:tabular-nums;
  margin-left:.3rem }
.bar { display:flex; height:1.05rem; min-width:9rem; background:var(--card); border-radius:.2rem; overflow:hidden }
.bar i { display:block; height:100%; background:var(--link) } .bar i.lost { background:var(--bad); opacity:.75 }
.stack { display:flex; height:1.3rem; border-radius:.25rem; overflow:hidden; background:var(--card) }
.stack i { display:block; height:100% } .key { display:inline-block; width:.75em; height:.75em; border-radius:.15em;
  margin-right:.4em } table.plain td.wrap { overflow-wrap:anywhere }
.text { overflow-wrap:anywhere } .hidden { font-size:.72em; color:var(--warn); border:1px solid var(--line);
  border-radius:.2rem; padding:0 .2em; margin:0 .1em; white-space:nowrap }
details { margin:.5rem 0; border:1px solid var(--line); border-radius:.4rem; padding:.4rem .8rem }
summary { cursor:pointer; font-weight:600 } summary small { font-weight:400; color:var(--soft) }
.pair { margin:.6rem 0; padding-left:.8rem; border-left:3px solid var(--line) } .pair p { margin:.15rem 0 }
.hist text { font-size:12px; fill:var(--soft) } .hist.small text { font-size:26px } .said { font-size:.88rem;
  margin:.2rem 0 .8rem } .multiples { display:grid; gap:1rem;
  grid-template-columns:repeat(auto-fit,minmax(17rem,1fr)) } figure { margin:0 } figcaption { font-size:.92rem }
@media (max-width:40rem) { .hist text, .hist.small text { font-size:21px } h1 { font-size:1.4rem }
  body { padding:1.2rem .8rem 3rem } .bar { min-width:4rem } .cards { grid-template-columns:repeat(2,1fr) }
  .card { padding:.5rem .7rem } .card b { font-size:1.15rem } th,td { padding:.35rem .4rem } }
@media print { details { break-inside:avoid } .card, .bar, .stack, i, .key { print-color-adjust:exact } }
</style>
"""


#: Changes of a step that are shown, and characters of an excerpt.
_PAIRS, _EXCERPT = 3, 120


def card_page(facts: Facts) -> str:
    """Return the page; see :func:`bert_ops.corpus.card.write_card` for the facts."""
    metrics, profile = facts["metrics"], facts["profile"]
    whole = profile["all"]
    body = "".join(
        [
            _STYLE,
            cards(_headline(facts)),
            "<h2>From rows to documents</h2>",
            f'<p class="soft">{number(metrics["read"])} rows were read; each became a document or is counted here.</p>',
            _wide(funnel(removals(facts))),
            _reasons(facts),
            "<h2>Sources</h2>",
            _sources(facts),
            "<h2>Splits, tasks and labels</h2>",
            _splits(facts),
            "<h2>Lengths</h2>",
            f'<p class="soft">{_lengths(whole["lengths"])}</p>',
            histogram(whole["lengths"], label="Documents by length in characters"),
            _by_source(profile),
            "<h2>Classes of characters</h2>",
            f'<p class="soft">{number(whole["characters"])} characters, {number(whole["distinct_characters"])} '
            "different ones.</p>",
            class_bars({"all sources": whole, **profile["sources"]}),
            "<h2>Most frequent tokens</h2>",
            _tokens(whole),
            "<h2>Examples</h2>",
            _examples(facts),
            "<h2>Known limits</h2><ul>",
            *(f"<li>{_code(limit)}</li>" for limit in LIMITS),
            "</ul>",
        ]
    )
    return page("Data card", body, subtitle="What the corpus is made of, and what was left out")


def _headline(facts: Facts) -> list[tuple[str, str]]:
    metrics, whole = facts["metrics"], facts["profile"]["all"]
    read = max(int(metrics["read"]), 1)
    near = duplicates(metrics)["near_duplicate"]
    return [
        (number(metrics["documents"]), "documents"),
        (number(whole["characters"]), "characters"),
        (f"{whole['bytes'] / 1e6:,.1f} MB", "as UTF-8"),
        (percent(metrics["documents"] / read), f"of {number(metrics['read'])} rows read"),
        (number(metrics["rejected"]), "rows rejected"),
        (number(metrics["duplicates_removed"]), f"duplicates removed, {number(near)} of them near"),
    ]


def _reasons(facts: Facts) -> str:
    counts = facts["metrics"].get("rejected_by_reason") or {}
    if not counts:
        return '<p class="soft">No row was rejected.</p>'
    said, dropped = facts.get("reasons") or {}, (facts.get("examples") or {}).get("dropped") or {}
    rows = []
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        name = escape(reason.replace("_", " "))
        link = f'<a href="#dropped-{escape(reason)}">{name}</a>' if dropped.get(reason) else name
        rows.append([link, number(count), escape(said.get(reason, ""))])
    return "<h3>Why rows were rejected</h3>" + _wide(table(["reason", "rows", "meaning"], rows, numeric=[1]))


def _sources(facts: Facts) -> str:
    by_source = facts["metrics"].get("by_source") or {}
    rows, notes = [], []
    for source in facts.get("sources") or []:
        count, size = files_of(source)
        name, licence = escape(str(source["name"])), source.get("licence")
        rows.append(
            [
                f'<strong>{name}</strong><br><span class="soft">{escape(str(source.get("kind", "")))}</span>',
                f"{number(count)} ({_size(size)})" if count else "–",
                escape(encodings(source)) or "–",
                number(source.get("rows")),
                number(by_source.get(source["name"], 0)),
                escape("; ".join(usage(source))) or "–",
                escape(str(licence)) if licence else '<span class="soft">not declared</span>',
            ]
        )
        if source.get("query"):
            notes.append(
                f"<p><strong>{name}</strong>: <code>{escape(' '.join(source['query'].split()))}</code> gave "
                f"{number(source.get('row_count'))} rows"
                + (
                    f", SHA-256 <code>{escape(source['content_hash'][:16])}…</code>"
                    if source.get("content_hash")
                    else ""
                )
                + "</p>"
            )
    headers = ["source", "files", "encoding", "rows read", "documents", "used", "licence"]
    return _wide(table(headers, rows, numeric=[1, 3, 4])) + "".join(notes)


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _splits(facts: Facts) -> str:
    splits = splits_of(facts["profile"])
    total = max(sum(row["documents"] for _, row in splits), 1)
    rows = [
        [escape(split), number(row["documents"]), percent(row["documents"] / total), number(row["characters"])]
        for split, row in splits
    ]
    parts = [_wide(table(["split", "documents", "share", "characters"], rows, numeric=[1, 2, 3]))]
    for title, names, counts in label_tables(facts["metrics"]):
        counted = title.startswith("Labels")
        rows = [
            [escape(split), *(_label(n, sum(map(int, of_split))) if counted else number(n) for n in of_split)]
            for split, of_split in counts
        ]
        parts.append(f"<h3>{escape(title.replace('`', ''))}</h3>")
        parts.append(_wide(table(["split", *map(escape, names)], rows, numeric=range(1, len(names) + 1))))
    said = leakage(facts["metrics"])
    return "".join(parts) + (f"<h3>Leakage</h3><p>{said}</p>" if said else "")


def _label(count: int, total: int) -> str:
    return f'{number(count)} <span class="soft">({percent(count / total) if total else "–"})</span>'


def _lengths(lengths: Facts) -> str:
    quantiles = lengths["quantiles"]
    return (
        f"From {number(lengths['min'])} to {number(lengths['max'])} characters, on average {number(lengths['mean'])}. "
        f"Half of the documents have {number(quantiles['0.5'])} or fewer, 90% have {number(quantiles['0.05'])} to "
        f"{number(quantiles['0.95'])}."
    )


def _by_source(profile: Facts) -> str:
    if len(profile["sources"]) < 2:
        return ""
    figures = [
        f"<figure><figcaption><strong>{escape(name)}</strong> "
        f'<span class="soft">median {number(facts["lengths"]["quantiles"]["0.5"])}</span></figcaption>'
        + histogram(facts["lengths"], label=f"Documents of {name} by length", small=True)
        + "</figure>"
        for name, facts in profile["sources"].items()
    ]
    return f'<div class="multiples">{"".join(figures)}</div>'


def _tokens(whole: Facts) -> str:
    lists = (
        ("Letters", whole["letters"], ""),
        ("Words", whole["words"], f"of two and more characters, in a sample of {number(whole['words_counted_in'])}"),
        ("Words of one character", whole["one_character_words"], "in the same sample; most of them are function words"),
        ("Punctuation and symbols", whole["punctuation"], ""),
    )
    return "".join(
        f'<h3>{title} <small class="soft">{escape(note)}</small></h3><ul class="tokens">'
        + "".join(f"<li>{escape(token)}<small>{number(count)}</small></li>" for token, count in tokens)
        + "</ul>"
        for title, tokens, note in lists
        if tokens
    )


def _examples(facts: Facts) -> str:
    examples = facts.get("examples") or {}
    metrics, said = facts["metrics"], facts.get("reasons") or {}
    parts = []
    kept = examples.get("kept") or []
    if kept:
        rows = [[escape(str(row["source"])), _text(row.get("text") or row.get("excerpt") or "")] for row in kept]
        parts.append("<h3>Kept</h3>" + _wide(table(["source", "text"], rows)))
    dropped = {reason: rows for reason, rows in (examples.get("dropped") or {}).items() if rows}
    counts = {**duplicates(metrics), **(metrics.get("rejected_by_reason") or {})}
    if dropped:
        parts.append("<h3>Dropped, by reason</h3>")
    for reason, found in sorted(dropped.items()):
        count = counts.get(reason)
        note = " · ".join(filter(None, [f"{number(count)} rows" if count else "", said.get(reason, "")]))
        rows = [
            [escape(str(row.get("location", ""))), escape(str(row.get("detail") or "")), _text(row["excerpt"])]
            for row in found
        ]
        parts.append(
            f'<details open id="dropped-{escape(reason)}"><summary>{escape(reason.replace("_", " "))} '
            f"<small>{escape(note)}</small></summary>" + _wide(table(["where", "detail", "text"], rows)) + "</details>"
        )
    changed = {step: rows for step, rows in (examples.get("changed") or {}).items() if rows}
    if changed:
        parts.append("<h3>Changed, by step</h3>")
    for step, pairs in changed.items():
        parts.append(
            f"<details open><summary>{escape(step.replace('_', ' '))}</summary>"
            + "".join(_pair(pair) for pair in pairs[:_PAIRS])
            + "</details>"
        )
    return "".join(parts) or '<p class="soft">None were handed over.</p>'


def _pair(pair: Facts) -> str:
    return (
        f'<div class="pair"><p class="text"><span class="bad" title="before">−</span> {_text(pair["before"])}</p>'
        f'<p class="text"><span class="good" title="after">+</span> {_text(pair["after"])}</p></div>'
    )


def _text(text: str) -> str:
    """A text for people; characters that show nothing are written as their code points."""
    text = text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 1]}…"
    runs = (escape(run) if shown else f'<span class="hidden">{run}</span>' for run, shown in visible(text))
    return f'<span class="text">{"".join(runs)}</span>'


def _code(text: str) -> str:
    """Escape text for HTML; what stands between backticks becomes code."""
    parts = escape(text).split("`")
    return "".join(part if index % 2 == 0 else f"<code>{part}</code>" for index, part in enumerate(parts))


def _wide(html: str) -> str:
    """Let a table scroll within the page where the screen is narrower than it."""
    return f'<div class="wide">{html}</div>\n'
