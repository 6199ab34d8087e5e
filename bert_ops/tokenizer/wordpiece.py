"""WordPiece as BERT uses it: clean, split Chinese by character, fold case, split into words, then into pieces.

The algorithms are those of the ``tokenizers`` library; this module only puts them together, reads the folders of others
(:mod:`bert_ops.tokenizer.foreign`) and saves the result in the files that ``transformers`` loads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bert_ops.errors import ArtifactError, InputError
from bert_ops.io import damaged, write_json, write_text
from bert_ops.tokenizer import foreign
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
CONTINUATION = foreign.CONTINUATION

#: Characters of the longest word that is split into pieces; a longer one is ``[UNK]`` (BERT's own limit).
LONGEST_WORD = foreign.LONGEST_WORD


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
    settings: dict[str, Any] = {"do_lower_case": params.lowercase, "strip_accents": params.strip_accents}
    _write(
        tokenizer, folder, {"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": True, **settings}, max_length
    )


def _write(tokenizer: Tokenizer, folder: Path, settings: dict[str, Any], max_length: int | None) -> None:
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    by_id = {number: piece for piece, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    # An id that no piece has still takes a line.
    lines = [by_id.get(number, f"[unused_id_{number}]") for number in range(max(by_id) + 1)]
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in lines))
    names = dict(zip(foreign.ROLES, REQUIRED_SPECIAL_TOKENS, strict=True))
    length = {} if max_length is None else {"model_max_length": max_length}
    write_json(folder / "tokenizer_config.json", {**settings, **names, **length})
    write_json(folder / "special_tokens_map.json", names)


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Ids of the five tokens that BERT needs."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    return SpecialIds(*(vocab[token] for token in REQUIRED_SPECIAL_TOKENS))


def copy(
    source: Path,
    target: Path,
    *,
    max_length: int | None = None,
    truncation: Literal["head", "tail", "windows"] | None = None,
    made_by: str | None = "tokenizer",
) -> None:
    """Write the tokenizer of a folder, ours or another's, into a model folder, which carries its tokenizer along.

    ``transformers`` encodes with what is written as :func:`load` does.

    Args:
        source: folder with a tokenizer.
        target: folder of the model.
        max_length: tokens that the model reads; None keeps what the source says.
        truncation: end of longer texts that ``transformers`` keeps when it is asked to cut (the head of windows); None
            keeps what the source says.
        made_by: the stage that writes the source, for the remedy in messages; None if it comes from elsewhere.

    Raises:
        ArtifactError: the tokenizer is missing, damaged, or no WordPiece.

    """
    tokenizer = load(source, made_by=made_by)
    given = foreign.read_settings(source, made_by=made_by)
    content = json.loads(tokenizer.to_str())
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if foreign.follows_bert(content):
        settings = {
            "tokenizer_class": "BertTokenizer",
            **{theirs: content["normalizer"][ours] for theirs, ours in foreign.NORMALIZER.items()},
        }
    settings |= foreign.input_names(source, given, made_by=made_by)
    cut_left = given.get("truncation_side") == "left" if truncation is None else truncation == "tail"
    if cut_left:
        settings["truncation_side"] = "left"
    _write(tokenizer, target, settings, given.get("model_max_length") if max_length is None else max_length)


def load(folder: Path, *, made_by: str | None = "tokenizer") -> Tokenizer:
    """Load the tokenizer of a folder: ``tokenizer.json`` or ``vocab.txt``, and what stands beside them.

    Raises:
        ArtifactError: it is missing or damaged, no WordPiece, or lacks one of the five tokens that BERT needs.

    """
    content, changed = foreign.read(folder, made_by=made_by)
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(json.dumps(content)) if changed else Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for any malformed file
        raise damaged(path, str(error).splitlines()[0], made_by=made_by) from error
    ids, special = tokenizer.encode("").ids, special_ids(tokenizer)
    if ids != [special.cls, special.sep]:
        raise ArtifactError(
            f"{path} frames texts as {tokenizer.encode('').tokens}, not as [CLS] text [SEP]",
            remedy="choose a checkpoint whose tokenizer is BERT's",
        )
    return tokenizer
