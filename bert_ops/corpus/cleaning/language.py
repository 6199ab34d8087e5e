"""Step ``language``: which language a text is in, by its script where that says it, by py3langid where it does not.

Chinese, Japanese, Korean and the languages that have a script of their own need no model: the script that most of the
text is written in decides, counted in UTF-8 bytes, so that a Han character weighs as much as three Latin letters. What
shares a script (Latin, Cyrillic, Arabic, Devanagari, Bengali, Hebrew) goes to the naive Bayes model of py3langid (Lui
and Baldwin 2012, "langid.py: An Off-the-shelf Language Identification Tool"), which chooses among given candidates.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from bert_ops.corpus.cleaning.params import LANGUAGES, LanguageParams
from bert_ops.corpus.cleaning.scripts import by_script, script_of
from bert_ops.corpus.records import Draft, Unfit
from bert_ops.errors import InputError

REASONS = {
    "language": "the language is not among ingest.clean.language.allowed",
    "language_unknown": "the language cannot be told, and ingest.clean.language.undetermined is reject",
}

#: Frequent words of English and of no other language that py3langid knows; a word of them in so many characters, and
#: at least so many and two different ones, make a text English.
_ENGLISH = re.compile(r"\b(?:the|and|that|this|with|from|which|have|you|for|are)\b")
_ENGLISH_WORDS, _ENGLISH_DISTANCE = 3, 100
_LETTERS = re.compile(r"[^\W\d_]+")


def language_step(params: LanguageParams) -> Callable[[Draft], None]:
    """Return the step that names the language of a text and lets only some pass."""
    candidates = tuple(sorted(set(params.candidates)))
    allowed = None if params.allowed is None else frozenset(params.allowed)

    def identify(draft: Draft) -> None:
        sample = draft.text[: params.sample_characters]
        language = by_script(sample)
        if language is not None and language not in LANGUAGES:
            language = _by_model(sample, language, params, candidates)
        draft.language = language
        if language is None:
            if params.undetermined == "reject":
                raise Unfit("language_unknown", "too short, too mixed, or no language that is known")
        elif allowed is not None and language not in allowed:
            raise Unfit("language", f"{language}; allowed: {', '.join(sorted(allowed))}")

    return identify


def _by_model(text: str, script: str, params: LanguageParams, candidates: tuple[str, ...]) -> str | None:
    """Ask the model, which sees only the words of the script."""
    if text.isascii() and "en" in candidates and _is_english(text):
        return "en"
    words = _LETTERS.findall(text)
    if not text.isascii():
        words = [word for word in words if script_of(word[0]) == script]
    if sum(map(len, words)) < params.min_characters:
        return None
    language, confidence = _model(candidates).classify(" ".join(words))
    return str(language) if confidence >= params.min_confidence else None


def _is_english(text: str) -> bool:
    """Say whether enough English words stand in the text that no other language has, which is ten times as quick."""
    found = _ENGLISH.findall(text)
    return len(found) >= _ENGLISH_WORDS and len(set(found)) > 1 and len(found) * _ENGLISH_DISTANCE >= len(text)


@cache
def _model(candidates: tuple[str, ...]) -> Any:
    """Load the model, once a process (0.5 s).

    Raises:
        InputError: the package is not there.

    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise InputError(
            f"ingest.clean.language needs the package py3langid, which is not there: {error}",
            remedy="install it, or switch the step off: ingest.clean.language.enabled: false",
        ) from error
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages(candidates)
    return model
