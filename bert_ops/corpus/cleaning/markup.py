"""Step ``markup``: HTML tags and character references.

Source: the HTML Living Standard, section 13.2.5 (tokenisation), but only what is surely markup is taken for it. A tag
must have the name of an HTML element (or one that the parameters add) and well-formed attributes, and a comment or a
script must be closed, so that "a < b and c > d", "I <3 you" and "<<三国>>" stay what they are. References follow
``html.unescape``; those without a semicolon stay if a letter, a digit or ``=`` follows, as the standard has it within
attributes: ``?a=1&copy=2`` is an address.

A tag that ends or begins a block becomes a blank line, ``<br>`` a line break, a cell a space, and any other nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from html.entities import html5

from bert_ops.corpus.cleaning.alignment import Edit, apply
from bert_ops.corpus.records import Draft

_BLOCK = frozenset(
    """
    address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure
    footer form frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html isindex legend li main menu nav noscript ol
    optgroup option p pre search section select summary table tbody template textarea tfoot thead title tr ul
    """.split()  # noqa: SIM905 - a word list reads better than quotes around each word
)
_INLINE = frozenset(
    """
    a abbr acronym applet area audio b base basefont bdi bdo big button canvas cite code col colgroup data datalist del
    dfn em embed font frame i iframe img input ins kbd label link map mark marquee meta meter nobr noframes object
    output param picture progress q rp rt ruby s samp slot small source span strike strong sub sup svg time track tt u
    var video wbr xml
    """.split()  # noqa: SIM905 - a word list reads better than quotes around each word
)
#: Elements whose content is no text.
_RAW = {name: re.compile(rf"</{name}\s*+>", re.IGNORECASE) for name in ("script", "style")}
_BREAKS, _CELLS = frozenset({"br"}), frozenset({"td", "th"})

#: Attributes that stand without a value; any other word in a tag without ``=`` says that it is none.
_FLAGS = (
    "async|autofocus|autoplay|checked|compact|controls|declare|default|defer|disabled|download|hidden|inert|ismap"
    "|itemscope|loop|multiple|muted|nohref|noresize|noshade|novalidate|nowrap|open|readonly|required|reversed|selected"
)
_VALUE = r"""\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'|[^\s"'<>`]++)"""
_TAG = re.compile(
    rf"""<(/?)([A-Za-z][A-Za-z0-9]*+(?:[:-][A-Za-z0-9]++)*+)"""
    rf"""(?:\s++(?:[A-Za-z_:@][\w:.@-]*+{_VALUE}|(?:{_FLAGS})(?![\w:.@=-])))*+\s*+/?>""",
    re.ASCII | re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"&(?:#(?:[0-9]{1,8}+(?![0-9])|[xX][0-9a-fA-F]{1,6}+(?![0-9a-fA-F]));?"
    r"|[A-Za-z][A-Za-z0-9]{1,31}+(?:;|(?![A-Za-z0-9=])))"
)
_DECLARATION = re.compile(r"<!(?:(?i:DOCTYPE)\b|\[|[A-Z]+ )", re.ASCII)
_INSTRUCTION = re.compile(r"<\?[A-Za-z]")
_START = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
#: What opens it, what closes it, and whether its content stays.
_SECTIONS = (("<!--", "-->", False), ("<![CDATA[", "]]>", True), ("<?", ">", False), ("<!", ">", False))


def markup_step(*, extra_elements: Iterable[str]) -> Callable[[Draft], None]:
    """Return the step that removes markup.

    Args:
        extra_elements: further names of elements, in lower case; they count as blocks.

    """
    blocks = _BLOCK | frozenset(extra_elements)

    def remove(draft: Draft) -> None:
        if "<" in draft.text or "&" in draft.text:
            apply(draft, _edits(draft.text, blocks))

    return remove


def _edits(text: str, blocks: frozenset[str]) -> list[Edit]:
    edits: list[Edit] = []
    unclosed: set[str] = set()
    match = _START.search(text)
    while match is not None:
        start = match.start()
        edit = _reference(text, start) if text[start] == "&" else _element(text, start, blocks, unclosed)
        if edit is not None:
            edits.append(edit)
        match = _START.search(text, start + 1 if edit is None else edit[1])
    return edits


def _reference(text: str, start: int) -> Edit | None:
    match = _REFERENCE.match(text, start)
    if match is None:
        return None
    reference = match.group()
    if reference[-1] != ";" and reference[1] != "#" and reference[1:] not in html5:
        return None  # "&notit" only begins like one
    decoded = html.unescape(reference)
    return None if decoded == reference else (start, match.end(), decoded)


def _element(text: str, start: int, blocks: frozenset[str], unclosed: set[str]) -> Edit | None:
    """Edit for what begins with ``<``; ``unclosed`` remembers what is nowhere closed, so that time stays linear."""
    if text[start + 1] in "!?":
        return _section(text, start, unclosed)
    match = _TAG.match(text, start)
    if match is None:
        return None
    name = match.group(2).lower()
    if name in _RAW:
        end = match.end() if match.group(1) else _end_of_raw(text, match.end(), name, unclosed)
        return (start, end, "")
    for names, replacement in ((blocks, "\n\n"), (_BREAKS, "\n"), (_CELLS, " "), (_INLINE, "")):
        if name in names:
            return (start, match.end(), replacement)
    # A name with a prefix (<o:p>, <v:shape>) comes from a word processor.
    return (start, match.end(), "") if ":" in name else None


def _end_of_raw(text: str, position: int, name: str, unclosed: set[str]) -> int:
    """Where the content of a script or style sheet and its end tag end; where it begins if it is never closed."""
    closing = None if name in unclosed else _RAW[name].search(text, position)
    if closing is None:
        unclosed.add(name)
        return position
    return closing.end()


def _section(text: str, start: int, unclosed: set[str]) -> Edit | None:
    """Edit for a comment, a CDATA section, a processing instruction or a declaration."""
    for opening, closing, content_stays in _SECTIONS:
        if not text.startswith(opening, start):
            continue
        if (opening == "<!" and not _DECLARATION.match(text, start)) or (
            opening == "<?" and not _INSTRUCTION.match(text, start)
        ):
            return None
        end = -1 if opening in unclosed else text.find(closing, start + len(opening))
        if end < 0:
            unclosed.add(opening)
            return None
        return (start, end + len(closing), text[start + len(opening) : end] if content_stays else "")
    return None
