"""Tags of tokens that stand for labelled spans of characters, and the way back.

Every piece of a word has its own tag: a continuation piece within an entity is ``I-`` or ``E-`` like any other token,
so that what is learned and what is answered is aligned to characters, not to words. The functions here work on the
tokens of all texts at once: ``offsets_M2`` holds the characters of each token, ascending within a text (those of
``tokenizers``), and ``starts`` (N + 1,) the first token of each text, and M. Tokens without characters, which special
tokens are at (0, 0), have no tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import InputError
from bert_ops.finetune.spans import Span, check_labels
from bert_ops.finetune.viterbi import viterbi

Scheme = Literal["BIO", "BIOES"]
Misaligned = Literal["widen", "drop", "fail"]

#: Prefixes of a label's tags, in the order of their ids; ``O`` has id 0.
PREFIXES: dict[Scheme, str] = {"BIO": "BI", "BIOES": "BIES"}

#: Target of tokens that the loss leaves out; ``ignore_index`` of PyTorch's losses.
IGNORED = -100

#: Misaligned spans that a message shows.
_SHOWN = 5

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]


def tag_names(labels: Sequence[str], scheme: Scheme) -> list[str]:
    """Names of tags by id: ``O``, then ``B-X``, ``I-X`` (BIOES: and ``E-X``, ``S-X``) of each label in turn.

    Raises:
        InputError: the scheme is unknown, or a label cannot be part of a tag.

    """
    check_labels(labels)
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in _prefixes(scheme))]


def read_tag_names(names: Sequence[str]) -> tuple[list[str], Scheme]:
    """Return labels and scheme that :func:`tag_names` made these names from.

    Raises:
        InputError: it did not make them.

    """
    labels = [name[2:] for name in names if name.startswith("B-")]
    for scheme in PREFIXES:
        if labels and list(names) == tag_names(labels, scheme):
            return labels, scheme
    raise InputError(
        f"no list of tags: {', '.join(map(repr, names[:9]))}{', …' if len(names) > 9 else ''}",
        allowed="O, then B-X and I-X of each label X (BIOES: B-X, I-X, E-X, S-X)",
    )


def _prefixes(scheme: Scheme) -> str:
    if scheme not in PREFIXES:
        raise InputError(f"the tagging scheme {scheme!r} is unknown", allowed=", ".join(PREFIXES))
    return PREFIXES[scheme]


@dataclass(frozen=True)
class Aligned:
    """Tags of tokens, and which spans they do not stand for exactly.

    Args:
        tags: (M,) tag of each token; :data:`IGNORED` for tokens without characters and those of dropped spans.
        spans: all there were.
        misaligned: those that begin or end within a token, or between tokens (on white space).
        lost: those of them that have no token of their own: an earlier span took it, or none stands there.
        cut: spans that reach outside of what the model reads of the text; the part within is learned.
        examples: some of the misaligned: number of the text, the span, the span that the tokens give (None: none).

    """

    tags: Ints
    spans: int
    misaligned: int
    lost: int
    cut: int
    examples: list[tuple[int, Span, Span | None]]

    def describe(self) -> list[str]:
        """Lines on what is not exact; none if all is."""
        lines = []
        if self.misaligned:
            shown = "; ".join(_shown(*example) for example in self.examples)
            amiss = f"{self.misaligned:,} of {self.spans:,} spans"
            lines.append(f"{amiss} begin or end within a token or on white space: {shown}")
        if self.cut:
            lines.append(f"{self.cut:,} of {self.spans:,} spans reach outside of what the model reads of their texts")
        return lines


def tags_of_spans(
    spans: Sequence[Sequence[Span]],
    offsets_M2: Ints,
    starts: Ints,
    *,
    labels: Sequence[str],
    scheme: Scheme,
    misaligned: Misaligned,
) -> Aligned:
    """Give each token the tag of the span that covers it, wholly or in part.

    A token that several spans share belongs to the first of them. What to do with spans that the tokens cannot stand
    for exactly is ``misaligned``: ``widen`` learns the whole tokens; ``drop`` leaves the span's tokens out of the
    loss, neither entity nor ``O`` (as spaCy's ``-``); ``fail`` stops. Scores compare with the spans as they were
    given in all three cases, so what cannot be answered counts as an error.

    Args:
        spans: of each text, ascending, as :func:`bert_ops.finetune.spans.check_spans` returns them.
        offsets_M2: characters of each token.
        starts: (N + 1,) first token of each text, and M.
        labels: in the order of :func:`tag_names`.
        scheme: which tags.
        misaligned: what to do with spans that the tokens cannot stand for.

    Raises:
        InputError: the scheme or a label is unknown, or spans are misaligned and that is to ``fail``.

    """
    prefixes = _prefixes(scheme)
    places, text_of = _content(offsets_M2, starts)
    flat = [span for row in spans for span in row]
    owner = np.repeat(np.arange(len(spans)), [len(row) for row in spans])
    first, last, wrong, cut = _place(flat, owner, offsets_M2[places], text_of)
    counts = np.maximum(last - first + 1, 0)
    examples = []
    for k in np.flatnonzero(wrong)[:_SHOWN]:
        covered = offsets_M2[places[first[k] : last[k] + 1]]
        got = Span(int(covered[0, 0]), int(covered[-1, 1]), flat[k].label) if len(covered) else None
        examples.append((int(owner[k]), flat[k], got))

    tags = np.full(len(offsets_M2), IGNORED, np.int64)
    tags[places] = _tags(
        first,
        counts,
        _label_ids(flat, labels),
        tokens=len(places),
        prefixes=prefixes,
        dropped=wrong & (misaligned == "drop"),
    )
    found = Aligned(tags, len(flat), int(wrong.sum()), int((wrong & (counts == 0)).sum()), int(cut.sum()), examples)
    if found.misaligned and misaligned == "fail":
        raise InputError(
            found.describe()[0],
            allowed="spans that begin and end where tokens do",
            remedy="correct the spans, or set tasks.TASK.misaligned to widen or drop",
        )
    return found


def _label_ids(flat: list[Span], labels: Sequence[str]) -> Ints:
    ids = {label: number for number, label in enumerate(labels)}
    unknown = sorted({span.label for span in flat} - set(ids))
    if unknown:
        raise InputError(f"spans have unknown labels: {', '.join(map(repr, unknown))}", allowed=", ".join(labels))
    return np.array([ids[span.label] for span in flat], np.int64)


def _place(flat: list[Span], owner: Ints, offsets_P2: Ints, text_of: Ints) -> tuple[Ints, Ints, Bools, Bools]:
    """First and last token of each span (last before first: none), whether it is misaligned, and whether it is cut.

    ``owner`` and ``text_of`` (P,) are the texts of the spans and of the tokens that have characters.
    """
    if not len(flat) or not len(offsets_P2):
        none = np.zeros(len(flat), np.int64)
        return none, none - 1, none > 0, none == 0
    # One ruler for all texts: a text's characters come after those of the texts before it.
    begin, end = np.array([span[:2] for span in flat], np.int64).T
    unit = max(int(end.max()), int(offsets_P2.max())) + 1
    left, right = (offsets_P2 + unit * text_of[:, None]).T
    begin, end = begin + unit * owner, end + unit * owner

    first = np.searchsorted(right, begin, "right")
    last = np.searchsorted(left, end, "left") - 1
    # A span may not have what an earlier one has.
    first = np.maximum(first, np.concatenate([[0], np.maximum.accumulate(last)[:-1] + 1]))
    some = first <= last
    exact = np.zeros(len(flat), bool)
    exact[some] = (left[first[some]] == begin[some]) & (right[last[some]] == end[some])
    lowest, highest = np.searchsorted(text_of, owner), np.searchsorted(text_of, owner, "right") - 1
    unread = lowest > highest
    cut = unread | (begin < left[np.minimum(lowest, len(left) - 1)]) | (end > right[highest])
    return first, last, ~exact & ~cut, cut


def _tags(first: Ints, counts: Ints, label: Ints, *, tokens: int, prefixes: str, dropped: Bools) -> Ints:
    """Tags of ``tokens`` tokens of which spans have ``counts`` from ``first`` on."""
    tags = np.zeros(tokens, np.int64)
    some = counts > 0
    first, counts, label, dropped = first[some], counts[some], label[some], dropped[some]
    base = 1 + len(prefixes) * label
    covered = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    tags[covered] = np.repeat(base + prefixes.index("I"), counts)
    if "E" in prefixes:
        tags[first + counts - 1] = base + prefixes.index("E")
    tags[first] = base + prefixes.index("B")
    if "S" in prefixes:
        tags[first[counts == 1]] = base[counts == 1] + prefixes.index("S")
    tags[covered[np.repeat(dropped, counts)]] = IGNORED
    return tags


def _content(offsets_M2: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Places of the tokens that have characters, and the text of each."""
    text_of = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    places = np.flatnonzero(offsets_M2[:, 1] > offsets_M2[:, 0])
    return places, text_of[places]


def _shown(text: int, span: Span, got: Span | None) -> str:
    became = "no token" if got is None else f"tokens of [{got.start}, {got.end}]"
    return f"{list(span)} of example number {text} ({became})"


def spans_of_tags(
    tags_M: Ints, offsets_M2: Ints, starts: Ints, *, labels: Sequence[str], scheme: Scheme
) -> list[list[Span]]:
    """Read tags as ``conlleval`` and seqeval (in its default mode) do, sequences that the scheme forbids included.

    A span begins at B and S, after O, E and S, and where the label changes; it ends before the next one begins and
    before O, and at E and S. Tokens without characters are skipped.

    Source: Tjong Kim Sang & Buchholz 2000 (conlleval); seqeval 1.2.2, ``get_entities``.
    """
    prefixes = _prefixes(scheme)
    places, text_of = _content(offsets_M2, starts)
    tags = tags_M[places]
    assert (tags >= 0).all(), "tags to be read have no holes"
    label, prefix = np.divmod(tags - 1, len(prefixes))
    outside = tags == 0
    opens, closes = (
        np.isin(prefix, [prefixes.index(p) for p in ps if p in prefixes]) & ~outside for ps in ("BS", "ES")
    )
    # What stands before a text's first token counts as O.
    before = np.concatenate([[True], (outside | closes)[:-1] | (text_of[1:] != text_of[:-1])])[: len(tags)]
    changed = np.concatenate([[True], label[1:] != label[:-1]])[: len(tags)]
    begin = ~outside & (opens | before | changed)
    first = np.flatnonzero(begin)
    ends = ~outside & np.concatenate([outside[1:] | begin[1:], [True]])[: len(tags)]
    last = np.flatnonzero(ends)
    out: list[list[Span]] = [[] for _ in range(len(starts) - 1)]
    rows = zip(
        text_of[first].tolist(),
        offsets_M2[places[first], 0].tolist(),
        offsets_M2[places[last], 1].tolist(),
        label[first].tolist(),
        strict=True,
    )
    for text, start, end, number in rows:
        # Several tokens can stand for one character (a normaliser's expansion): the first span keeps it.
        if not out[text] or start >= out[text][-1].end:
            out[text].append(Span(start, end, labels[number]))
    return out


def decode(
    logits_MC: Floats,
    offsets_M2: Ints,
    starts: Ints,
    *,
    labels: Sequence[str],
    scheme: Scheme,
    constrained: bool = True,
) -> list[list[Span]]:
    """Return the spans of each text.

    Args:
        logits_MC: of the tags of each token, in the order of :func:`tag_names`; logits or log-probabilities.
        offsets_M2: characters of each token.
        starts: (N + 1,) first token of each text, and M.
        labels: in the order of :func:`tag_names`.
        scheme: which tags.
        constrained: take the likeliest sequence that the scheme allows (Viterbi), not the likeliest tag of each token
            read leniently, which ``pipeline()`` of transformers does: that breaks entities apart and costs a small
            network some 9 points of entity F1, while Viterbi costs a microsecond a token (docs/LOG.md).

    """
    places, text_of = _content(offsets_M2, starts)
    tags = np.zeros(len(offsets_M2), np.int64)
    if constrained:
        inner = np.searchsorted(text_of, np.arange(len(starts)))
        tags[places] = viterbi(logits_MC[places], inner, prefixes=_prefixes(scheme))
    else:
        tags[places] = logits_MC[places].argmax(1)
    return spans_of_tags(tags, offsets_M2, starts, labels=labels, scheme=scheme)
