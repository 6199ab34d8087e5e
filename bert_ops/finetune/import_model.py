"""Command ``import_model``: any BERT checkpoint folder as a model folder of this house, ready to be fine-tuned."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bert_ops.errors import InputError
from bert_ops.io import atomic_folder, file_sha256, require_folder, write_text
from bert_ops.model import huggingface
from bert_ops.model.encoder import EncoderConfig
from bert_ops.model.heads import PretrainingModel
from bert_ops.model.huggingface import Checkpoint
from bert_ops.model.huggingface_names import DECODER, names_of
from bert_ops.progress import note
from bert_ops.tokenizer import foreign, wordpiece

#: Parts of a checkpoint that are kept where they are there, and what they are called in messages.
PARTS = {
    "encoder.": "encoder",
    "pooler.": "pooler",
    "mlm.": "masked-language-model head",
    "nsp.": "sentence-pair head",
}

#: Files that travel with a model, because its licence wants them to.
_LEGAL = ("LICENSE", "LICENCE", "NOTICE", "COPYING")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "folder", type=Path, help="checkpoint folder: config.json, weights, and vocab.txt or tokenizer.json"
    )
    parser.add_argument("--out", type=Path, required=True, help="model folder to write, for `finetune --init`")


@dataclass(frozen=True)
class Imported:
    """A checkpoint under our names.

    Args:
        config: architecture.
        weights: of the parts that are kept.
        parts: names of these parts.
        left_out: names, in the files, of weights that fine-tuning has no use for.

    """

    config: EncoderConfig
    weights: dict[str, Tensor]
    parts: list[str]
    left_out: list[str]

    @property
    def architecture(self) -> str:
        """What ``transformers`` calls a model with these parts."""
        if len(self.parts) == len(PARTS):
            return "pretraining"
        return "masked_language_model" if PARTS["mlm."] in self.parts else "encoder"

    @property
    def line(self) -> str:
        """Sizes and parts in words."""
        config, count = self.config, sum(tensor.numel() for tensor in self.weights.values())
        return (
            f"{config.layers} layers of {config.hidden_size}, {config.heads} heads, {config.vocab_size:,} pieces, "
            f"{config.max_positions} positions, {count:,} parameters: {', '.join(self.parts)}"
        )


def run(arguments: argparse.Namespace) -> None:
    """Import a checkpoint folder.

    Raises:
        InputError: the folder does not exist, or ``--out`` would overwrite something else.
        ArtifactError: the folder is no BERT, is not whole, or is pickled with code in it.

    """
    source, out = require_folder(arguments.folder, what="the checkpoint"), arguments.out
    _check_target(source, out)
    tokenizer = wordpiece.load(source, made_by=None)
    config = huggingface.load_config(source, made_by=None)
    huggingface.check_vocabulary(tokenizer, config, source=source)
    config = replace(config, pad_id=wordpiece.special_ids(tokenizer).pad)
    checkpoint = huggingface.open_checkpoint(source, made_by=None)
    imported = read(checkpoint, config)
    with atomic_folder(out) as folder:
        huggingface.save_weights(imported.weights, folder, config=config, architecture=imported.architecture)
        length = foreign.read_settings(source, made_by=None).get("model_max_length")
        limit = min(length, config.max_positions) if isinstance(length, int) and length > 0 else config.max_positions
        wordpiece.copy(source, folder, max_length=limit, made_by=None)
        write_text(folder / "README.md", model_card(imported, source))
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name.upper().startswith(_LEGAL):
                shutil.copyfile(path, folder / path.name)
    note(f"{out}: {imported.line}")
    if imported.left_out:
        note(f"left out, for fine-tuning has no use for it: {_some(imported.left_out)}")
    if PARTS["pooler."] not in imported.parts:
        note("there is no pooler: that of a task that labels whole texts starts from random weights")


def read(checkpoint: Checkpoint, config: EncoderConfig) -> Imported:
    """Read the parts of a checkpoint that it has whole.

    A masked-language-model head whose decoder is not the token embedding cannot be told in our form and is left out.

    Raises:
        ArtifactError: a weight of the encoder is missing or of another shape than ``config`` says.

    """
    with torch.device("meta"):
        expected = PretrainingModel(config).state_dict()
    tied = checkpoint.ties_decoder()
    kept = []
    for prefix in PARTS:
        names = [name for name in expected if name.startswith(prefix)]
        if prefix == "encoder." or (checkpoint.has(names) and (prefix != "mlm." or tied)):
            kept.append(prefix)
    names = [name for name in expected if name.startswith(tuple(kept))]
    weights = checkpoint.read(names)
    huggingface.check_shapes(weights, expected, source=checkpoint.folder, made_by=None)
    used = {part for name in names for part in names_of(name)}
    if "mlm." in kept:
        used |= {DECODER, DECODER.replace("weight", "bias")}
    left_out = sorted(stored for today, stored in checkpoint.names.items() if today not in used)
    return Imported(config, weights, [PARTS[prefix] for prefix in kept], left_out)


def _check_target(source: Path, out: Path) -> None:
    """Refuse to overwrite the source, or a folder that holds no model."""
    here, there = source.resolve(), out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise InputError(f"--out {out} and {source} overlap", remedy="choose another folder for --out")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file()):
        raise InputError(f"--out {out} exists and is no model folder", remedy="choose a new folder for --out")


def model_card(imported: Imported, source: Path) -> str:
    """``README.md`` of the model folder: where it comes from, and what is in it."""
    files = sorted(path for path in source.iterdir() if path.is_file() and path.suffix in {".safetensors", ".bin"})
    sums = "".join(f"- `{path.name}`: {file_sha256(path)}\n" for path in files)
    left_out = f"Left out: {_some(imported.left_out)}.\n\n" if imported.left_out else ""
    return (
        "---\nlibrary_name: transformers\n---\n\n"
        f"# {source.resolve().name}, imported with bert-ops\n\n"
        f"{imported.line[0].upper()}{imported.line[1:]}.\n\n{left_out}"
        "Its licence is that of the model it comes from. SHA-256 of the weights that were read:\n\n"
        f"{sums or '- (other files)'}\n"
        "Fine-tune from it with `bert-ops finetune --init FOLDER`.\n"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
