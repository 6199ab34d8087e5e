"""Great Expectations' own Data Docs page of a suite, made to open without a network and to repeat byte for byte.

As it comes, the page loads some fifteen scripts, styles and fonts from elsewhere and a logo that counts visits, and
holds load times and random ids. The view's templates that do so are replaced here; the tables are rendered by Great
Expectations.
"""

from __future__ import annotations

import itertools
from html import escape
from typing import Any

from bert_ops.quality.checks import Suite
from bert_ops.quality.engine import Validation, exception_message, quiet

_STYLE = """
:root { color-scheme: light dark; --ink:#1c2330; --soft:#5b6675; --line:#dfe4ea; --back:#fff; --card:#f6f8fa;
  --good:#1a7f4b; --bad:#c5283d; --link:#0b5cad }
@media (prefers-color-scheme: dark) { :root { --ink:#e6eaf0; --soft:#9aa6b5; --line:#333c49; --back:#12161c;
  --card:#1b212a; --good:#4cc38a; --bad:#ff7b88; --link:#6cb2f7 } }
* { box-sizing:border-box } body { margin:0 auto; max-width:72rem; padding:2rem 1.25rem 4rem; background:var(--back);
  color:var(--ink); font:16px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans CJK SC","PingFang SC",
  "Microsoft YaHei",sans-serif } a { color:var(--link) } h4 { font-size:1.5rem; margin:0 } h5 { font-size:1.15rem;
  margin:0 } h6 { font-size:.95rem; margin:.8rem 0 .2rem } .h6 { font-weight:600 } .lead { color:var(--soft);
  margin:.2rem 0 }
.ge-section { margin-top:2rem } .alert { border-bottom:1px solid var(--line); padding-bottom:.3rem }
table { border-collapse:collapse; width:100%; margin:.5rem 0; font-size:.94rem } th,td { padding:.42rem .6rem;
  border-bottom:1px solid var(--line); text-align:left; vertical-align:top; overflow-wrap:anywhere } th {
  color:var(--soft); font-weight:600 } .table-bordered { font-size:.88rem; background:var(--card); margin-bottom:.6rem }
.ge-section > .row > .table-responsive > table > tbody > tr > td:first-child { width:5.5rem }
.ge-section > .row > .table-responsive > table > tbody > tr > td:last-child { width:12rem }
.badge { background:var(--card); border:1px solid var(--line); border-radius:.25rem; padding:0 .3rem; font-size:.9em }
.text-success { color:var(--good) } .text-danger,
.text-warning { color:var(--bad) } i.fas { font-style:normal; font-weight:700 }
i.fa-times::before { content:"\\2717" } i.fa-check-circle::before { content:"\\2713" }
i.fa-exclamation-triangle::before { content:"!" } pre { white-space:pre-wrap }
nav a { margin-right:.9rem; white-space:nowrap } ul { padding-left:1.2rem } @media print { body { max-width:none } }
"""

#: Templates of the view that would load something, or that need scripts; all others stay as they are.
_TEMPLATES = {
    "page.j2": """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{ suite_title }}</title><style>{{ suite_style | safe }}</style></head>
<body><h4>{{ suite_title }}</h4>
<p class="lead">Data Docs by Great Expectations {{ ge_version }}. <a href="../index.html">Back to the verdict</a></p>
<nav>{% for section in sections %}
<a href="#section-{{ loop.index }}">{{ section['section_name'] }}</a>
{% endfor %}</nav>
{% for section in sections %}{% set section_loop = loop -%}{% include 'section.j2' %}{% endfor %}
{{ suite_examples | safe }}
</body></html>
""",
    # Only tracebacks are collapsed, and those are left out.
    "collapse.j2": "",
}


def render(validation: Validation) -> dict[str, str]:
    """Return the Data Docs page of each suite, by suite name."""
    with quiet():
        return {
            suite.name: _page(document, title=suite.title, examples=_examples(suite, document))
            for suite, document in zip(validation.suites, validation.raw, strict=True)
        }


def _examples(suite: Suite, document: dict[str, Any]) -> str:
    """Failing rows of each expectation that has some, by what tells them apart."""
    parts = []
    for check, outcome in zip(suite.checks, document["results"], strict=True):
        rows = outcome["examples"]
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row))
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(str(row.get(name)))}</td>" for name in names) + "</tr>" for row in rows
        )
        parts.append(f"<h6>{escape(check.what)}</h6><table><tbody><tr>{head}</tr>{body}</tbody></table>")
    if not parts:
        return ""
    return f'<div class="ge-section" id="failing-rows"><h5>Failing rows</h5>{"".join(parts)}</div>'


def _page(document: dict[str, Any], *, title: str, examples: str) -> str:
    from great_expectations.core.expectation_validation_result import expectationSuiteValidationResultSchema
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    result = expectationSuiteValidationResultSchema.load(_repeatable(document))
    rendered = ValidationResultsPageRenderer().render(result)
    # Of the overview only the statistics stay: the rest is about run names, load times and a site that is not there.
    overview = rendered.sections[0]
    overview.content_blocks = [block for block in overview.content_blocks if block.content_block_type == "table"]
    html: str = _view().render(rendered, suite_title=escape(title), suite_style=_STYLE, suite_examples=examples)
    return "\n".join(line.rstrip() for line in html.splitlines() if line.strip()) + "\n"


def _repeatable(document: dict[str, Any]) -> dict[str, Any]:
    """Keep of a result what depends on the data alone, with texts escaped (the view's templates do not)."""
    results = []
    for outcome in document["results"]:
        config, result = outcome["expectation_config"], dict(outcome["result"])
        arguments = {key: value for key, value in config["kwargs"].items() if key != "batch_id"}
        if "element_count" not in result:
            # Aggregates report a count without a percentage, at which the renderer stumbles.
            result.pop("unexpected_count", None)
        error = exception_message(outcome.get("exception_info") or {})
        results.append(
            {
                "success": outcome["success"],
                "expectation_config": {**config, "kwargs": arguments, "meta": {}},
                "result": _escaped(result),
                "exception_info": {
                    "raised_exception": error is not None,
                    "exception_message": error,
                    # The renderer takes no None here; a traceback names paths of this machine.
                    "exception_traceback": "" if error is not None else None,
                },
            }
        )
    return {
        "success": document["success"],
        "suite_name": document["suite_name"],
        "results": results,
        "statistics": document["statistics"],
        "suite_parameters": {},
        "meta": {"great_expectations_version": document["meta"]["great_expectations_version"]},
    }


def _escaped(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _escaped(item, name) for name, item in value.items()}
    if isinstance(value, list) and key == "partial_unexpected_list":
        return [_escaped(item, "value") for item in value]
    if isinstance(value, list) and key == "value":
        # The two values of a pair; the renderer would run them together.
        return escape(" ≠ ".join(map(str, value)))
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value


def _view() -> Any:
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, DictLoader

    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([DictLoader(_TEMPLATES), view.env.loader])
    numbers = itertools.count(1)
    view.env.filters["generate_html_element_uuid"] = lambda prefix=None: f"{prefix or ''}{next(numbers)}"
    return view
