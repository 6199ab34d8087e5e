"""Section ``ingest.clean`` of params.yaml: one sub-section a step, in the order of the steps.

``normalization`` stands by itself because tokenizers and compressed models carry it too.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bert_ops.corpus.cleaning.patterns import check_pattern
from bert_ops.schema import Section, Share

#: Names of OpenCC's conversions: s simplified, t traditional, tw Taiwan, hk Hong Kong; a final p changes words too.
Conversion = Literal[
    "s2t", "t2s", "s2tw", "tw2s", "s2hk", "hk2s", "s2twp", "tw2sp", "s2hkp", "hk2sp", "t2tw", "tw2t", "t2hk", "hk2t"
]

#: Kinds of what identifies a person, in the order in which they are masked.
Pii = Literal["email", "id_number", "bank_card", "phone", "ip_address"]

#: Languages that py3langid 0.4 tells apart and that have a code of two letters (ISO 639-1).
LANGUAGES = frozenset(
    """
    af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr ht hu hy id ig
    is it ja jv ka kk km kn ko ku ky la lg ln lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt qu ro ru sa si
    sk sl so sq sr sv sw ta te th tl tr ug uk ur uz vi xh yo zh zu rw se sn st an fo lb wa ba mt nn oc tg tk tt vo
    """.split()  # noqa: SIM905 - a word list reads better than quotes around each word
)

Enabled = Annotated[bool, Field(description="whether the step runs")]
Characters = Annotated[int, Field(ge=1)]


class IntakeParams(Section):
    """Texts that no step should touch."""

    max_characters: Characters = Field(description="characters that a text may have before cleaning")


class MarkupParams(Section):
    """HTML tags and character references."""

    enabled: Enabled
    extra_elements: list[str] = Field(
        description="names of elements that are no HTML but count as markup (doc, docno, contenttitle)"
    )

    @field_validator("extra_elements")
    @classmethod
    def _are_names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9]*(?:[:-][a-z0-9]+)*", name):
                raise ValueError(f"extra_elements holds {name!r}; allowed: the name of an element in lower case")
        return names


class GarbledParams(Section):
    """Texts that were decoded with the wrong encoding."""

    enabled: Enabled
    max_share: Share = Field(
        description="largest share of characters that no text is written in: for private use, the replacement character"
    )


class ChineseParams(Section):
    """Simplified and traditional characters."""

    enabled: Enabled
    conversion: Conversion = Field(
        description="conversion of OpenCC: s simplified, t traditional, tw Taiwan, hk Hong Kong; p changes words too"
    )


class MenuParams(Section):
    """A line of navigation."""

    separators: str = Field(min_length=1, description="characters that stand between the items")
    min_items: int = Field(ge=2, description="items that a line of navigation has at least")
    max_item_characters: Characters = Field(description="characters that each of them has at most")


class BoilerplateParams(Section):
    """Lines that belong to a page and not to its text."""

    enabled: Enabled
    max_line_characters: int = Field(ge=1, le=500, description="characters; longer lines are kept unseen")
    drop_lines: list[str] = Field(description="regular expressions; a line in which one is found is dropped")
    menu: MenuParams | None = Field(None, description="what navigation looks like; absent: it is kept")

    @field_validator("drop_lines")
    @classmethod
    def _are_safe(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            problem = check_pattern(pattern)
            if problem is not None:
                raise ValueError(f"drop_lines: {pattern!r} {problem}")
        return patterns


class RunsParams(Section):
    """One character typed on and on."""

    enabled: Enabled
    max_run: int = Field(ge=1, le=1000, description="times that a letter, mark or symbol may stand in a row")
    max_digit_run: int = Field(ge=1, le=1000, description="times that a digit may stand in a row")


class NgramShare(Section):
    """Bound on n-grams of one length."""

    words: int = Field(ge=1, le=50, description="n; where words are not spaced, twice as many characters")
    max_share: Share = Field(description="share of the characters of the text")


class RepetitionParams(Section):
    """Texts that repeat themselves (Rae et al. 2021, appendix A1.1)."""

    enabled: Enabled
    min_characters: Characters = Field(description="characters; shorter texts pass")
    duplicate_lines: Share = Field(description="largest share of lines that stood before")
    duplicate_line_characters: Share = Field(description="largest share of characters in lines that stood before")
    top_ngrams: list[NgramShare] = Field(description="largest shares of the most frequent n-gram")
    duplicate_ngrams: list[NgramShare] = Field(description="largest shares of n-grams that stood before")


class LinesParams(Section):
    """Line breaks and white space; the step always runs, because sentences are split after it."""

    join_wrapped: bool = Field(description="whether hard-wrapped lines are joined; if not, each line is a paragraph")
    min_columns: int = Field(
        ge=1, description="columns that the widest line of a wrapped text has at least; a Han character takes two"
    )
    full_share: Share = Field(
        description="share of the widest line that a line and the first word of the next must fill to be a wrap"
    )
    hyphens: Literal["join", "keep"] = Field(
        description="a hyphen at the end of a line where the text does not say elsewhere how the word is written"
    )
    spaces_between_han: Literal["keep", "remove"] = Field(
        description="spaces between Han characters within a line; people type them for commas, OCR strews them"
    )


class PiiParams(Section):
    """What identifies a person."""

    enabled: Enabled
    tokens: dict[Pii, str] = Field(
        min_length=1,
        description="what replaces email, id_number, bank_card, phone and ip_address; a kind that is absent stays",
    )

    @field_validator("tokens")
    @classmethod
    def _are_words(cls, tokens: dict[Pii, str]) -> dict[Pii, str]:
        for kind, token in tokens.items():
            if not re.fullmatch(r"[^\s\d@]{1,30}", token):
                raise ValueError(f"tokens.{kind} is {token!r}; allowed: up to 30 characters, no space, digit or @")
        return tokens


class LengthParams(Section):
    """Length of a cleaned text; the step always runs, because nothing can be done with an empty text."""

    min_characters: Characters = Field(description="characters that a text needs at least, white space not counted")
    max_characters: Characters = Field(description="characters that a text may have at most, white space counted")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError(
                f"min_characters is {self.min_characters}; it must not exceed max_characters = {self.max_characters}"
            )
        return self


class SymbolsParams(Section):
    """Texts of signs and numbers."""

    enabled: Enabled
    min_characters: Characters = Field(description="characters; shorter texts pass")
    max_symbol_share: Share = Field(
        description="largest share of what is neither letter, digit nor space, a row of one symbol as one"
    )
    max_digit_share: Share = Field(description="largest share of digits; white space counts for neither")


class LanguageParams(Section):
    """Language of a text."""

    enabled: Enabled
    candidates: list[str] = Field(
        min_length=1, description="languages that the model chooses among, ISO 639-1; scripts of one language need none"
    )
    allowed: list[str] | None = Field(None, description="languages that pass, ISO 639-1; absent: all")
    min_confidence: Share = Field(description="probability from which the model is believed")
    min_characters: Characters = Field(description="letters that the model needs")
    sample_characters: Characters = Field(description="characters at the start of a text that are looked at")
    undetermined: Literal["keep", "reject"] = Field(description="texts whose language cannot be told")

    @model_validator(mode="after")
    def _are_languages(self) -> Self:
        for key, languages in (("candidates", self.candidates), ("allowed", self.allowed)):
            for language in languages or []:
                if language not in LANGUAGES:
                    raise ValueError(f"{key} holds {language!r}; allowed are {', '.join(sorted(LANGUAGES))}")
        if self.allowed is not None and not self.allowed:
            raise ValueError("allowed is empty, so that no text passes; leave it out to let all pass")
        return self


class CleaningParams(Section):
    """What each step of cleaning does, in the order of the steps."""

    intake: IntakeParams = Field(description="texts that no step should touch")
    markup: MarkupParams = Field(description="HTML tags and character references")
    normalization: Literal["NFC", "NFKC"] = Field(
        description="Unicode normalisation form (Unicode Standard Annex 15); NFKC also folds full-width forms"
    )
    garbled: GarbledParams = Field(description="texts that were decoded with the wrong encoding")
    chinese: ChineseParams = Field(description="simplified and traditional characters")
    boilerplate: BoilerplateParams = Field(description="lines that belong to a page and not to its text")
    runs: RunsParams = Field(description="one character typed on and on")
    repetition: RepetitionParams = Field(description="texts that repeat themselves")
    lines: LinesParams = Field(description="line breaks and white space")
    pii: PiiParams = Field(description="what identifies a person")
    length: LengthParams = Field(description="length of a cleaned text")
    symbols: SymbolsParams = Field(description="texts of signs and numbers")
    language: LanguageParams = Field(description="language of a text")
