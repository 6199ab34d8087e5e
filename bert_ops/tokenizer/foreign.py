"""Tokenizer folders from elsewhere: ``tokenizer.json`` or ``vocab.txt``, with the settings that stand beside them.

What is read becomes the content of a ``tokenizer.json`` in this house's form: the five tokens that BERT needs keep
their ids and are called by BERT's names, nothing is padded or cut by itself, and case and accents are treated as
``tokenizer_config.json`` says, which is what ``transformers`` goes by.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bert_ops.errors import ArtifactError
from bert_ops.io import damaged, missing, read_json
from bert_ops.progress import note
from bert_ops.tokenizer.params import REQUIRED_SPECIAL_TOKENS

#: Prefix of a piece that continues a word.
CONTINUATION = "##"

#: Characters of the longest word that is split into pieces; a longer one is ``[UNK]`` (BERT's own limit).
LONGEST_WORD = 100

#: Keys under which a folder says what it calls the five tokens.
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")

#: Classes of ``transformers`` that split texts as BERT does (``Fast`` left off), and those that follow tokenizer.json.
_AS_BERT = {"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"}
_AS_FILE = {"PreTrainedTokenizer", "TokenizersBackend"}

#: Keys of tokenizer_config.json -> those of the normalizer.
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}

#: Share of pieces with capital letters from which a vocabulary is taken to know case.
_CASED_SHARE = 0.01


def read(folder: Path, *, made_by: str | None) -> tuple[dict[str, Any], bool]:
    """Read a tokenizer folder.

    Args:
        folder: the folder.
        made_by: the stage that writes such a folder, for the remedy in messages; None if it comes from elsewhere.

    Returns:
        The content of a ``tokenizer.json``, and whether it differs from the one in the folder.

    Raises:
        ArtifactError: there is no vocabulary, it is damaged, or the texts would be split otherwise than by WordPiece.

    """
    settings = read_settings(folder, made_by=made_by)
    names = {role: _content(settings.get(role)) for role in ROLES}
    kind = settings.get("tokenizer_class")
    plain = kind.removesuffix("Fast") if isinstance(kind, str) else None
    if kind is not None and plain not in _AS_BERT | _AS_FILE:
        raise ArtifactError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class is {kind!r}, which splits texts by rules of its own",
            allowed="BertTokenizer, or PreTrainedTokenizerFast with a tokenizer.json of WordPiece",
            remedy="choose a checkpoint with a WordPiece vocabulary",
        )
    path = folder / "tokenizer.json"
    if path.is_file():
        original = read_json(path, made_by=made_by)
        content = _checked(json.loads(json.dumps(original)), path, made_by=made_by)
    elif (folder / "vocab.txt").is_file() and plain not in _AS_FILE:
        original, path = None, folder / "vocab.txt"
        content = _from_vocabulary(path, settings, made_by=made_by)
    else:
        raise missing(path, made_by=made_by)
    as_bert = plain not in _AS_FILE
    _apply(settings, content, as_bert=as_bert)
    content = _with_bert_names(content, names, path)
    if as_bert or content.get("post_processor") is None:
        content["post_processor"] = _frame(content)
    return content, content != original


def read_settings(folder: Path, *, made_by: str | None) -> dict[str, Any]:
    """Read ``tokenizer_config.json`` and ``special_tokens_map.json``.

    As in ``transformers``, the map counts more, except in folders of versions that write all into the former.

    Raises:
        ArtifactError: one is damaged.

    """
    found: list[dict[str, Any]] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        value = read_json(folder / name, made_by=made_by) if (folder / name).is_file() else {}
        if not isinstance(value, dict):
            raise damaged(folder / name, "it holds no JSON object", made_by=made_by)
        found.append({key: item for key, item in value.items() if item is not None or key == "strip_accents"})
    config, names = found
    return {**names, **config} if "added_tokens_decoder" in config else {**config, **names}


def _checked(content: Any, path: Path, *, made_by: str | None) -> dict[str, Any]:
    """A ``tokenizer.json`` that holds WordPiece."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise damaged(path, "it has no model", made_by=made_by)
    kind = model.setdefault("type", "WordPiece" if "continuing_subword_prefix" in model else None)
    if kind != "WordPiece":
        raise ArtifactError(
            f"{path} holds a tokenizer of kind {kind}",
            allowed="WordPiece",
            remedy="choose a checkpoint with a WordPiece vocabulary",
        )
    content["added_tokens"] = content.get("added_tokens") or []
    content["truncation"] = content["padding"] = None
    try:
        added = {token["content"]: token["id"] for token in content["added_tokens"]}
        ids = {**added, **model["vocab"]}
        whole = all(type(number) is int and number >= 0 for number in ids.values()) and len(set(ids.values())) == len(
            ids
        )
        whole = whole and all(ids[token] == number for token, number in added.items())
    except (AttributeError, KeyError, TypeError):
        whole = False
    if not whole:
        raise damaged(path, "its pieces have no ids, or one id twice", made_by=made_by)
    return dict(content)


def _from_vocabulary(path: Path, settings: dict[str, Any], *, made_by: str | None) -> dict[str, Any]:
    """Read ``vocab.txt`` as ``transformers`` does: a piece a line, numbered from 0; the last of equal ones counts."""
    try:
        # Only these end a line: U+2028 and others that Python splits at are pieces of real vocabularies.
        lines = path.read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
    except (UnicodeDecodeError, OSError) as error:
        raise damaged(path, str(error), made_by=made_by) from error
    if lines and not lines[-1]:
        lines.pop()
    vocab = {piece: number for number, piece in enumerate(lines)}
    added = _added(path.parent, settings, vocab, made_by=made_by)
    lowercase = settings.get("do_lower_case")
    if lowercase is None:
        cased = sum(any(map(str.isupper, piece)) for piece in vocab if not piece.startswith("[")) / max(len(vocab), 1)
        lowercase = cased < _CASED_SHARE
        note(
            f"{path.parent} does not say whether case matters: {cased:.0%} of the pieces have capital letters, so it "
            f"{'does not' if lowercase else 'does'} (do_lower_case in tokenizer_config.json says it)"
        )
    normalizer = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": lowercase}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": _content(settings.get("unk_token")) or "[UNK]",
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": LONGEST_WORD,
            "vocab": vocab,
        },
    }


def _added(
    folder: Path, settings: dict[str, Any], vocab: dict[str, int], *, made_by: str | None
) -> list[dict[str, Any]]:
    """Tokens beside a vocab.txt that are found before a text is split."""
    listed: dict[str, dict[str, Any]] = {}
    path = folder / "added_tokens.json"
    try:
        for token, number in (read_json(path, made_by=made_by) if path.is_file() else {}).items():
            listed[token] = _added_token(token, int(number), special=False)
        for number, token in (settings.get("added_tokens_decoder") or {}).items():
            listed[token["content"]] = {**_added_token(token["content"], int(number), special=False), **token}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(folder, f"its added tokens are no tokens with ids ({error!r})", made_by=made_by) from error
    more = settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or []
    for token in filter(None, map(_content, more)):
        if token in vocab or token in listed:
            listed[token] = {**listed.get(token, _added_token(token, vocab.get(token, 0))), "special": True}
    return sorted(listed.values(), key=lambda token: int(token["id"]))


def _added_token(content: str, number: int, *, special: bool = True) -> dict[str, Any]:
    # An ordinary one is also found where only case or accents differ.
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special}
    return {"id": number, "content": content, **flags, "special": special}


def _apply(settings: dict[str, Any], content: dict[str, Any], *, as_bert: bool) -> None:
    """Treat case, accents and Chinese as ``tokenizer_config.json`` says."""
    normalizer = content.get("normalizer") or {}
    if as_bert and normalizer.get("type") == "BertNormalizer":
        content["normalizer"] = normalizer | {
            ours: settings[theirs] for theirs, ours in NORMALIZER.items() if theirs in settings
        }


def _with_bert_names(content: dict[str, Any], names: dict[str, str | None], path: Path) -> dict[str, Any]:
    """Call the five tokens by BERT's names, whatever the folder calls them; their ids stay.

    Raises:
        ArtifactError: one is missing, or another piece has its name.

    """
    ids = dict(content["model"]["vocab"]) | {token["content"]: token["id"] for token in content["added_tokens"]}
    renamed: dict[str, str] = {}
    for role, wanted in zip(ROLES, REQUIRED_SPECIAL_TOKENS, strict=True):
        called = names[role]
        found = called if called in ids else wanted if wanted in ids else None
        if found is None:
            raise ArtifactError(
                f"{path} lacks {called or wanted} ({role})",
                allowed=f"a vocabulary with {', '.join(REQUIRED_SPECIAL_TOKENS)}, under these names or others",
                remedy="name the token in tokenizer_config.json, or choose another checkpoint",
            )
        if found != wanted and wanted in ids and wanted not in names.values():
            raise ArtifactError(f"{path} has {wanted} beside {found}, which is its {role}", remedy="rename that piece")
        renamed[found] = wanted
    if len(renamed) < len(ROLES):
        raise ArtifactError(f"{path} has one token for several of {', '.join(ROLES)}", allowed="five different ones")
    content = _renamed(content, {old: new for old, new in renamed.items() if old != new})
    for old, new in renamed.items():
        content["model"]["vocab"][new] = ids[old]
    listed = {token["content"]: token for token in content["added_tokens"]}
    for old, new in renamed.items():
        listed[new] = {**listed.get(new, _added_token(new, ids[old])), "special": True}
    content["added_tokens"] = sorted(listed.values(), key=lambda token: int(token["id"]))
    content["model"]["unk_token"] = "[UNK]"
    return content


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Replace texts and keys anywhere in JSON."""
    if not names:
        return value
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _frame(content: dict[str, Any]) -> dict[str, Any]:
    """``[CLS] A [SEP]``, and for pairs ``[CLS] A [SEP] B [SEP]`` with segment 1 from B on."""
    vocab = content["model"]["vocab"]

    def special(name: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": segment}}

    single = [special("[CLS]", 0), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]", 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}, special("[SEP]", 1)],
        "special_tokens": {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")},
    }


def _content(token: Any) -> str | None:
    """Text of a token, which may stand for itself or have properties."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def follows_bert(content: dict[str, Any]) -> bool:
    """Whether ``BertTokenizer`` of ``transformers`` splits texts as this ``tokenizer.json`` does."""
    model, normalizer = content["model"], content.get("normalizer") or {}
    return (
        model["continuing_subword_prefix"] == CONTINUATION
        and model["max_input_chars_per_word"] == LONGEST_WORD
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and (content.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and content["post_processor"] == _frame(content)
    )


def input_names(folder: Path, settings: dict[str, Any], *, made_by: str | None) -> dict[str, Any]:
    """What ``transformers`` should give the model, where that is not ids, segments and mask.

    A model with one segment has no number for the second text of a pair.
    """
    if isinstance(settings.get("model_input_names"), list):
        return {"model_input_names": settings["model_input_names"]}
    path = folder / "config.json"
    config = read_json(path, made_by=made_by) if path.is_file() else None
    if isinstance(config, dict) and config.get("type_vocab_size") == 1:
        return {"model_input_names": ["input_ids", "attention_mask"]}
    return {}
