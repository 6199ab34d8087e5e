"""WordPiece as BERT uses it: clean, split Chinese by character, fold case, split into words, then into pieces.

The algorithms are those of the ``tokenizers`` library; this module only puts them together and saves the result in
the files that ``transformers`` loads.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bert_ops.errors import InputError
from bert_ops.io import damaged, missing, write_json, write_text
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS, TokenizerParams

PAD, UNK, CLS, SEP, MASK = range(5)

#: What a tokenizer folder holds.
FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")

#: Prefix of a piece that continues a word.
CONTINUATION = "##"


def build(vocab: dict[str, int], *, lowercase: bool, strip_accents: bool, special_tokens: Iterable[str]) -> Tokenizer:
    """Put a BERT tokenizer together from a vocabulary.

    Raises:
        InputError: a required special token is not in the vocabulary, or ids have gaps.

    """
    absent = [token for token in REQUIRED_SPECIAL_TOKENS if token not in vocab]
    if absent:
        raise InputError(f"the vocabulary lacks {', '.join(absent)}", allowed="BERT needs all of them")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise InputError("the vocabulary's ids have gaps or repeat", allowed="0 … size - 1, each once")
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab=vocab, unk_token="[UNK]", continuing_subword_prefix=CONTINUATION, max_input_chars_per_word=100
        )
    )
    _add_frame(tokenizer, lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.add_special_tokens(list(special_tokens))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return tokenizer


def _add_frame(tokenizer: Tokenizer, *, lowercase: bool, strip_accents: bool) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)


def train(texts: Iterable[str], params: TokenizerParams) -> Tokenizer:
    """Train a WordPiece vocabulary.

    Every character that occurs at least ``min_frequency`` times gets a piece before any merge, and a second one
    (``##x``) if it continues a word; the rest becomes ``[UNK]``. The library numbers continuations in the order of a
    randomised hash table and breaks ties between merges by number, so the alphabet is handed to it in a fixed order:
    the same corpus gives the same bytes.

    Raises:
        InputError: there is no text, or ``vocab_size`` cannot hold the alphabet.
    """
    words = _words(texts, params)
    if not words:
        raise InputError("there is no text to train a vocabulary on", remedy="check the training split of data/corpus")
    alphabet = _alphabet(words, params.min_frequency)
    words = Counter({word: count for word, count in words.items() if alphabet.issuperset(word)})
    continuations = {f"{CONTINUATION}{character}" for word in words for character in word[1:]}
    fixed = [*params.special_tokens, *sorted(alphabet), *sorted(continuations)]
    if len(fixed) > params.vocab_size:
        raise InputError(
            f"`tokenizer.vocab_size` is {params.vocab_size}, smaller than the alphabet: {len(alphabet)} characters "
            f"occur at least {params.min_frequency} times, {len(continuations)} of them continue words, "
            f"and there are {len(params.special_tokens)} special tokens",
            allowed=f"at least {len(fixed)}",
            remedy="raise `tokenizer.vocab_size` or `tokenizer.min_frequency`",
        )
    frame = Tokenizer(models.WordPiece(unk_token="[UNK]", continuing_subword_prefix=CONTINUATION))
    frame.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame.train_from_iterator(
        # a word of one character has nothing to merge
        (" ".join([word] * count) for word, count in words.items() if len(word) > 1),
        trainers.WordPieceTrainer(
            vocab_size=params.vocab_size,
            min_frequency=params.min_frequency,
            special_tokens=fixed,
            limit_alphabet=len(alphabet),
            continuing_subword_prefix=CONTINUATION,
            show_progress=False,
        ),
        length=len(words),
    )
    return build(
        frame.get_vocab(with_added_tokens=True),
        lowercase=params.lowercase,
        strip_accents=params.strip_accents,
        special_tokens=params.special_tokens,
    )


def _words(texts: Iterable[str], params: TokenizerParams) -> Counter[str]:
    """Count the words that BERT's normaliser and splitter make of the texts."""
    frame = Tokenizer(models.WordPiece())
    _add_frame(frame, lowercase=params.lowercase, strip_accents=params.strip_accents)
    normalizer, splitter = frame.normalizer, frame.pre_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return counts


def _alphabet(words: Counter[str], min_frequency: int) -> set[str]:
    """Characters that occur at least ``min_frequency`` times."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            counts[character] += times
    return {character for character, times in counts.items() if times >= min_frequency}


def save(tokenizer: Tokenizer, folder: Path, params: TokenizerParams, *, max_length: int | None = None) -> None:
    """Write ``tokenizer.json``, ``vocab.txt`` and the configuration that ``transformers.AutoTokenizer`` reads."""
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    pieces = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece, _ in pieces))
    names = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), REQUIRED_SPECIAL_TOKENS, strict=True)
    )
    config: dict[str, Any] = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": params.lowercase,
        "strip_accents": params.strip_accents,
        "tokenize_chinese_chars": True,
        **names,
    }
    if max_length is not None:
        config["model_max_length"] = max_length
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", names)


def copy(source: Path, target: Path) -> None:
    """Copy a tokenizer's files into a model folder, which carries its tokenizer along."""
    for name in FILES:
        shutil.copyfile(source / name, target / name)


def load(folder: Path, *, made_by: str = "tokenizer") -> Tokenizer:
    """Load ``tokenizer.json`` from an artifact folder.

    Raises:
        ArtifactError: the file is missing or damaged.

    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise missing(path, made_by=made_by)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for any malformed file
        raise damaged(path, str(error).splitlines()[0], made_by=made_by) from error
