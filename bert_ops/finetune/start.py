"""The model that fine-tuning starts from: ours, or any BERT's checkpoint folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig
from bert_ops.tokenizer import wordpiece


def load_start(folder: Path) -> tuple[EncoderConfig, Tokenizer]:
    """Architecture and tokenizer of a model to start from.

    Raises:
        ArtifactError: a file is missing or damaged, is of no BERT, or the two do not fit.

    """
    config = huggingface.load_config(folder, made_by="pretrain")
    tokenizer = wordpiece.load(folder, made_by="pretrain")
    huggingface.check_vocabulary(tokenizer, config, source=folder)
    return replace(config, pad_id=wordpiece.special_ids(tokenizer).pad), tokenizer
