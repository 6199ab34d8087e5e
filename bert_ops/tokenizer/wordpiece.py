"""WordPiece as BERT uses it: clean, split Chinese by character, fold case, split into words, then into pieces.

The algorithms are those of the ``tokenizers`` library; this module only puts them together and saves the result in
the files that ``transformers`` loads.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bert_ops.errors import InputError
from bert_ops.io import damaged, missing, write_json, write_text
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS, TokenizerParams

#: Ids in a vocabulary that this project trained; one that was adapted may have others (:func:`special_ids`).
PAD, UNK, CLS, SEP, MASK = range(5)


class SpecialIds(NamedTuple):
    """Ids of the tokens that frame and mask sequences."""

    pad: int = PAD
    unk: int = UNK
    cls: int = CLS
    sep: int = SEP
    mask: int = MASK


#: What a tokenizer folder holds.
FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")

#: Prefix of a piece that continues a word.
CONTINUATION = "##"

#: Characters of the longest word that is split into pieces; a longer one is ``[UNK]`` (BERT's own limit).
LONGEST_WORD = 100


def build(
    vocab: dict[str, int],
    *,
    lowercase: bool,
    strip_accents: bool,
    special_tokens: Iterable[str],
    user_tokens: Iterable[str] = (),
) -> Tokenizer:
    """Put a BERT tokenizer together from a vocabulary.

    Special and user tokens are found in a text as they are written, before case is folded, and are never split;
    special ones are left out when ids are turned back into text. All of them must be in the vocabulary.

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
            vocab=vocab,
            unk_token="[UNK]",
            continuing_subword_prefix=CONTINUATION,
            max_input_chars_per_word=LONGEST_WORD,
        )
    )
    _add_frame(tokenizer, lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.add_special_tokens(list(special_tokens))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in user_tokens])
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


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Ids of the five tokens that BERT needs."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    return SpecialIds(*(vocab[token] for token in REQUIRED_SPECIAL_TOKENS))


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
