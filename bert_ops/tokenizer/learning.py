"""Learning a WordPiece vocabulary: counting words as they stream by, merging pieces, adapting a given vocabulary."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bert_ops.errors import InputError
from bert_ops.progress import note
from bert_ops.tokenizer import characters, wordpiece
from bert_ops.tokenizer.joined import join, runs_in
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS, TokenizerParams
from bert_ops.tokenizer.wordpiece import CONTINUATION, LONGEST_WORD

#: Occurrences of words that the trainer is fed at most. It counts what it is fed, one by one; above this all counts are
#: divided by the same number, which changes the order of merges only between pieces that are nearly as frequent.
_FED_OCCURRENCES = 20_000_000
_FED_LINE = 1000


class WordCounter:
    """Counts the words that BERT's normaliser and splitter make of texts, in bounded memory.

    Characters that are words by themselves are counted in an array. Runs between them are counted as they stand and
    split into words when there are many. If there are too many different words the rarest are dropped, every count
    that is then still exact to within the number of such rounds (lossy counting: Manku & Motwani 2002).

    Args:
        params: casing, accents, and the tokens that are no words.
        most_runs: different runs that are held before they are split into words.
        most_words: different words that are held before the rarest are dropped (about 120 bytes each).

    """

    def __init__(self, params: TokenizerParams, *, most_runs: int = 2**18, most_words: int = 2**21) -> None:
        bare = wordpiece.build(
            {token: number for number, token in enumerate(REQUIRED_SPECIAL_TOKENS)},
            lowercase=params.lowercase,
            strip_accents=params.strip_accents,
            special_tokens=REQUIRED_SPECIAL_TOKENS,
        )
        frame = characters.frame_of(json.loads(bare.to_str()))
        assert frame is not None
        self.frame, self.kinds = frame, characters.kinds(frame)
        self.normalizer, self.splitter = bare.normalizer, bare.pre_tokenizer
        tokens = sorted([*params.special_tokens, *params.user_tokens], key=len, reverse=True)
        self.tokens = re.compile("|".join(map(re.escape, tokens)))
        self.most_runs, self.most_words = most_runs, most_words
        self.single = np.zeros(len(self.kinds), np.int64)
        self.runs: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.rounds = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count the words of texts; special and user tokens in them are left out."""
        if not texts:
            return
        joined = join(texts)
        if self.tokens.search(joined.text):
            joined = join([self.tokens.sub(" ", text) for text in texts])
        kinds = self.kinds[joined.points]
        self.single += np.bincount(joined.points[kinds == characters.ISOLATED], minlength=len(self.single))
        starts, stops = runs_in(kinds == characters.CONTEXT)
        self.runs.update(map(joined.text.__getitem__, map(slice, starts.tolist(), stops.tolist())))
        if len(self.runs) > self.most_runs:
            self._split_runs()

    def _split_runs(self) -> None:
        for run, times in self.runs.items():
            for word, _ in self.splitter.pre_tokenize_str(self.normalizer.normalize_str(run)):
                if len(word) <= LONGEST_WORD:
                    self.words[word] += times
        self.runs.clear()
        while len(self.words) > self.most_words:
            self.rounds += 1
            self.words = Counter({word: times for word, times in self.words.items() if times > self.rounds})

    def result(self) -> Counter[str]:
        """Words and how often they occurred."""
        self._split_runs()
        words = self.words.copy()
        points = np.flatnonzero(self.single)
        for word, times in zip(characters.words_of(self.frame, points), self.single[points].tolist(), strict=True):
            words[word] += times
        return words


def count(batches: Iterable[Sequence[str]], params: TokenizerParams) -> Counter[str]:
    """Count the words of texts that come in batches.

    Raises:
        InputError: there is no word.

    """
    counter = WordCounter(params)
    for texts in batches:
        counter.add(texts)
    words = counter.result()
    if not words:
        raise InputError("there is no text to train a vocabulary on", remedy="check the training split of data/corpus")
    if counter.rounds:
        note(f"tokenizer: left out words that occur up to {counter.rounds} times, for there are too many")
    return words


def train(words: Counter[str], params: TokenizerParams) -> Tokenizer:
    """Train a WordPiece vocabulary (Schuster & Nakajima 2012; Wu et al. 2016, section 4.1).

    Every character that occurs at least ``min_frequency`` times gets a piece before any merge, and a second one
    (``##x``) if it continues a word; the rest becomes ``[UNK]``. The library numbers continuations in the order of a
    randomised hash table and breaks ties between merges by number, so the alphabet is handed to it in a fixed order:
    the same corpus gives the same bytes.

    Raises:
        InputError: ``vocab_size`` cannot hold the alphabet.

    """
    alphabet = _alphabet(words, params.min_frequency)
    continuations = _continuations(words, set(alphabet))
    fixed = [*params.special_tokens, *params.user_tokens]
    fixed += [piece for piece in (*sorted(alphabet), *sorted(continuations)) if piece not in fixed]
    if len(fixed) > params.vocab_size:
        raise InputError(
            f"`tokenizer.vocab_size` is {params.vocab_size}, smaller than the alphabet: {len(alphabet)} characters "
            f"occur at least {params.min_frequency} times, {len(continuations)} of them continue words, "
            f"and there are {len(params.special_tokens) + len(params.user_tokens)} special and user tokens",
            allowed=f"at least {len(fixed)}",
            remedy="raise `tokenizer.vocab_size` or `tokenizer.min_frequency`",
        )
    pieces = _merge(words, set(alphabet), fixed=fixed, size=params.vocab_size, min_frequency=params.min_frequency)
    return _build({piece: number for number, piece in enumerate(pieces)}, params)


def adapt(words: Counter[str], params: TokenizerParams, *, vocabulary: Path) -> Tokenizer:
    """Keep every piece of a given ``vocab.txt`` under its id and append pieces of the corpus up to ``vocab_size``.

    Appended are, in this order: special and user tokens that are not there; characters of the corpus, the most
    frequent first, then those that continue words; then the pieces that training on the corpus alone would learn.

    Raises:
        InputError: the file cannot be used, or has more pieces than ``vocab_size``.

    """
    given = read_vocabulary(vocabulary)
    if len(given) > params.vocab_size:
        raise InputError(
            f"`tokenizer.vocab_size` is {params.vocab_size}, but {vocabulary} has {len(given)} pieces, which all stay",
            allowed=f"at least {len(given)}",
            remedy="raise `tokenizer.vocab_size`",
        )
    alphabet = _alphabet(words, params.min_frequency)
    continuations = _continuations(words, set(alphabet))
    frequent = sorted(alphabet, key=lambda character: (-alphabet[character], character))
    wanted = [
        *params.special_tokens,
        *params.user_tokens,
        *frequent,
        *(piece for character in frequent if (piece := CONTINUATION + character) in continuations),
    ]
    own = [*params.special_tokens, *params.user_tokens]
    own += [piece for piece in (*sorted(alphabet), *sorted(continuations)) if piece not in own]
    size = max(params.vocab_size, len(own))
    learned = _merge(words, set(alphabet), fixed=own, size=size, min_frequency=params.min_frequency)
    pieces = list(dict.fromkeys([*given, *wanted, *learned]))[: params.vocab_size]
    lost = [token for token in (*params.special_tokens, *params.user_tokens) if token not in set(pieces)]
    if lost:
        raise InputError(
            f"`tokenizer.vocab_size` is {params.vocab_size}; {vocabulary} leaves no room for {', '.join(lost)}",
            allowed=f"at least {params.vocab_size + len(lost)}",
            remedy="raise `tokenizer.vocab_size`",
        )
    _note_casing(given, params, vocabulary)
    return _build({piece: number for number, piece in enumerate(pieces)}, params)


def read_vocabulary(path: Path) -> list[str]:
    """Pieces of a ``vocab.txt``, in the order of their ids.

    Raises:
        InputError: the file is missing, not UTF-8, repeats a piece, has an empty line, or lacks a token BERT needs.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"`tokenizer.vocabulary` {path} cannot be read: {error}", remedy="name a vocab.txt in UTF-8"
        ) from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    first: dict[str, int] = {}
    for number, piece in enumerate(lines, start=1):
        if not piece or piece in first:
            problem = f"repeats {piece!r} of line {first[piece]}" if piece else "is empty"
            raise InputError(
                f"{path} line {number} {problem}", allowed="one piece a line, each once; its id is the line's number"
            )
        first[piece] = number
    absent = [token for token in REQUIRED_SPECIAL_TOKENS if token not in first]
    if absent:
        raise InputError(f"{path} lacks {', '.join(absent)}", allowed="BERT needs all of them")
    if lines[0] != REQUIRED_SPECIAL_TOKENS[0]:
        raise InputError(f"{path} has {lines[0]!r} in its first line", allowed="[PAD], whose id must be 0")
    return lines


def _build(vocab: dict[str, int], params: TokenizerParams) -> Tokenizer:
    return wordpiece.build(
        vocab,
        lowercase=params.lowercase,
        strip_accents=params.strip_accents,
        special_tokens=params.special_tokens,
        user_tokens=params.user_tokens,
    )


def _note_casing(given: list[str], params: TokenizerParams, path: Path) -> None:
    """Say so if many pieces of a vocabulary can never be used because case is folded."""
    ordinary = [piece for piece in given if not piece.startswith("[")]
    upper = sum(piece != piece.lower() for piece in ordinary)
    if params.lowercase and upper > len(ordinary) / 100:
        note(
            f"tokenizer: {upper} of {len(ordinary)} pieces of {path} have capital letters and will never be used, "
            "because `tokenizer.lowercase` is true"
        )


def _alphabet(words: Counter[str], min_frequency: int) -> Counter[str]:
    """Characters that occur at least ``min_frequency`` times, with their counts."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            counts[character] += times
    return Counter({character: times for character, times in counts.items() if times >= min_frequency})


def _continuations(words: Counter[str], alphabet: set[str]) -> set[str]:
    """Pieces ``##x`` of the characters that stand inside words of the alphabet."""
    return {f"{CONTINUATION}{character}" for word in words if alphabet.issuperset(word) for character in word[1:]}


def _merge(words: Counter[str], alphabet: set[str], *, fixed: list[str], size: int, min_frequency: int) -> list[str]:
    """Pieces in the order of their ids: the fixed ones, then those that merging learns."""
    # a word of one character has nothing to merge
    usable = {word: n for word, n in words.items() if len(word) > 1 and alphabet.issuperset(word)}
    divisor = -(-sum(usable.values()) // _FED_OCCURRENCES) or 1
    frame = Tokenizer(models.WordPiece(unk_token="[UNK]", continuing_subword_prefix=CONTINUATION))
    frame.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame.train_from_iterator(
        _lines(usable, divisor),
        trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=-(-min_frequency // divisor),
            special_tokens=fixed,
            limit_alphabet=len(alphabet),
            continuing_subword_prefix=CONTINUATION,
            show_progress=False,
        ),
        length=len(usable),
    )
    vocab = frame.get_vocab(with_added_tokens=True)
    return sorted(vocab, key=lambda piece: vocab[piece])


def _lines(words: dict[str, int], divisor: int) -> Iterator[str]:
    """Each word as often as it counts, a bounded number of times a line."""
    for word in sorted(words):
        for done in range(0, words[word] // divisor, _FED_LINE):
            yield " ".join([word] * min(_FED_LINE, words[word] // divisor - done))
