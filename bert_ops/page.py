"""Self-contained HTML pages: one style for all reports, no script and nothing fetched, light and dark, printable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink:#1c2330; --soft:#5b6675; --line:#dfe4ea; --back:#fff; --card:#f6f8fa;
  --good:#1a7f4b; --warn:#9a6700; --bad:#c5283d; --link:#0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6eaf0; --soft:#9aa6b5; --line:#333c49; --back:#12161c;
  --card:#1b212a; --good:#4cc38a; --warn:#e0b03d; --bad:#ff7b88; --link:#6cb2f7; } }
* { box-sizing: border-box } body { margin:0 auto; max-width:64rem; padding:2rem 1.25rem 4rem; background:var(--back);
  color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI","Noto Sans CJK SC","PingFang SC",
  "Microsoft YaHei",sans-serif; } h1 { font-size:1.75rem; margin:0 0 .25rem } h2 { margin:2.2rem 0 .6rem;
  font-size:1.25rem; border-bottom:1px solid var(--line); padding-bottom:.3rem } h3 { font-size:1.05rem }
p.sub { color:var(--soft); margin:.1rem 0 1.2rem } a { color:var(--link) }
table { border-collapse:collapse; width:100%; margin:.6rem 0 1rem; font-size:.94rem } th,td { padding:.42rem .6rem;
  border-bottom:1px solid var(--line); text-align:left; vertical-align:top } th { color:var(--soft); font-weight:600 }
td.n,th.n { text-align:right; font-variant-numeric:tabular-nums } td.n { white-space:nowrap }
.good { color:var(--good) } .warn { color:var(--warn) } .bad { color:var(--bad) } .soft { color:var(--soft) }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(11rem,1fr)); gap:.8rem; margin:1rem 0 }
.card { background:var(--card); border:1px solid var(--line); border-radius:.5rem; padding:.8rem 1rem }
.card b { display:block; font-size:1.45rem; font-variant-numeric:tabular-nums } .card span { color:var(--soft);
  font-size:.88rem } code { background:var(--card); padding:.1rem .3rem; border-radius:.25rem; font-size:.9em }
iframe { border:0; width:100%; height:24rem } svg { max-width:100% } @media print { body { max-width:none } }
"""


def page(title: str, body: str, *, subtitle: str = "") -> str:
    """Return a whole HTML document; ``body`` is HTML already, ``title`` and ``subtitle`` are text."""
    sub = f'<p class="sub">{escape(subtitle)}</p>' if subtitle else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{sub}\n{body}\n</body></html>\n"
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int] = ()) -> str:
    """Return an HTML table; cells are HTML already (use :func:`html.escape`), ``numeric`` columns align right."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if column in numeric else ''}>{value}</{tag}>" for column, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{cells('th', headers)}</tr></thead><tbody>\n{body}</tbody></table>\n"


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Return a row of figures: (figure, what it is), both text."""
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for v, k in values)
        + "</div>\n"
    )
