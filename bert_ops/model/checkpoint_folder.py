"""Reading the weights of a checkpoint folder: safetensors, in one file or in shards, or a pickle that is harmless.

A pickle is a program. ``torch.load(weights_only=True)`` runs none of it except the few calls that rebuild tensors, and
refuses a file that asks for more; such a file is refused here too, with how to convert it. Nothing is ever loaded in
any other way, and no file outside the folder is opened, whatever an index says.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bert_ops.errors import ArtifactError
from bert_ops.io import damaged, missing, read_json, rerun

#: Tensors of a folder by name; each is read when it is asked for.
Stored = dict[str, Callable[[], Tensor]]

SAFETENSORS = "model.safetensors"
#: Names of weights, and the endings of their shards; the first that is there is read.
_WHOLE = {SAFETENSORS: ".safetensors", "pytorch_model.bin": ".bin"}
#: Endings of pickles under other names, and what trainers leave beside weights.
_PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|trainer_state).*")
_OTHERS = {
    ".h5": "TensorFlow",
    ".index": "TensorFlow",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".gguf": "llama.cpp",
}
_LFS_POINTER = b"version https://git-lfs"

#: Types that weights may have; whole numbers stand for quantized ones, whose scales are not ours to guess.
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def open_folder(folder: Path, *, made_by: str | None) -> Stored:
    """Find the tensors of a checkpoint folder.

    ``model.safetensors`` is preferred to ``model.safetensors.index.json`` with its shards, and both to pickles.

    Args:
        folder: the folder.
        made_by: the stage that wrote it, for the remedy in messages; None if it comes from elsewhere.

    Raises:
        ArtifactError: there are no weights, they are damaged, or they are pickled with more in them than tensors.

    """
    for whole, suffix in _WHOLE.items():
        if (folder / whole).is_file():
            return _open_file(folder / whole, made_by=made_by)
        index = folder / f"{whole}.index.json"
        if index.is_file():
            return _open_shards(index, suffix=suffix, made_by=made_by)
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    found = [path for path in files if path.suffix in _PICKLES and not _NO_WEIGHTS.fullmatch(path.name)]
    if len(found) == 1:
        return _open_file(found[0], made_by=made_by)
    if made_by is not None and not found:
        raise missing(folder / SAFETENSORS, made_by=made_by)
    raise _no_weights(folder, files, found)


def _no_weights(folder: Path, files: list[Path], found: list[Path]) -> ArtifactError:
    if found:
        what = f"{folder} holds several files that may be its weights: {', '.join(path.name for path in found)}"
        return ArtifactError(what, allowed=f"{SAFETENSORS}, or one of them", remedy="leave the right one there alone")
    others = sorted({f"{path.name} ({_OTHERS[path.suffix]})" for path in files if path.suffix in _OTHERS})
    return ArtifactError(
        f"{folder} holds no {SAFETENSORS}" + (f", but {', '.join(others)}" if others else ""),
        allowed=f"{SAFETENSORS}; {SAFETENSORS}.index.json with its shards; pytorch_model.bin that holds tensors alone",
        remedy="fetch that file too, or write it with transformers' save_pretrained",
    )


def _open_shards(index: Path, *, suffix: str, made_by: str | None) -> Stored:
    """Read an index (``weight_map``: tensor to file) and open the files that it names."""
    value = read_json(index, made_by=made_by)
    places = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise damaged(index, "it has no weight_map of tensors to files", made_by=made_by)
    for name in sorted(set(places.values())):
        # A name with a folder in it could lead anywhere.
        if "/" in name or "\\" in name or "\0" in name or name.startswith(".") or not name.endswith(suffix):
            raise ArtifactError(
                f"{index} names the file {name!r}",
                allowed=f"plain file names that end in {suffix}, beside the index",
                remedy="do not use this folder unless you know who wrote it",
            )
    shards = {name: _shard(index.parent / name, made_by=made_by) for name in sorted(set(places.values()))}
    astray = sorted(tensor for tensor, name in places.items() if tensor not in shards[name])
    if astray:
        raise damaged(index, f"{places[astray[0]]} does not hold {_some(astray)}", made_by=made_by)
    return {tensor: shards[name][tensor] for tensor, name in places.items()}


def _shard(path: Path, *, made_by: str | None) -> Stored:
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist, though the index names it", remedy=rerun(made_by))
    return _open_file(path, made_by=made_by)


def _open_file(path: Path, *, made_by: str | None) -> Stored:
    try:
        with path.open("rb") as handle:
            first = handle.read(len(_LFS_POINTER))
    except OSError as error:
        raise damaged(path, str(error), made_by=made_by) from error
    if first == _LFS_POINTER:
        raise ArtifactError(
            f"{path} is a Git LFS pointer: the weights themselves were not fetched",
            remedy="fetch them with `git lfs pull` in that folder",
        )
    return open_safetensors(path, made_by=made_by) if path.suffix == ".safetensors" else _open_pickle(path)


def open_safetensors(path: Path, *, made_by: str | None) -> Stored:
    """Open one file of tensors.

    Raises:
        ArtifactError: it is missing or damaged; when a tensor is read, it is not of finite numbers.

    """
    if not path.is_file():
        raise missing(path, made_by=made_by)
    try:
        opened: Any = safe_open(path, framework="pt")
        names: list[str] = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise damaged(path, str(error), made_by=made_by) from error
    return {name: partial(_read, partial(opened.get_tensor, name), name, path) for name in names}


def _open_pickle(path: Path) -> Stored:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols of pickle, which say nothing to a user
            value = _load_pickle(path)
    except MemoryError:
        raise
    except Exception as error:  # what a made-up pickle can make the reader raise is not known beforehand
        raise refused(path, _reason(error)) from error
    if isinstance(value, dict) and not all(isinstance(item, Tensor) for item in value.values()):
        raise refused(path, "it holds other things beside tensors")
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        raise refused(path, "it holds no dictionary of named tensors")
    return {name: partial(_read, tensor.detach, name, path) for name, tensor in value.items()}


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        # Files from before torch 1.6 cannot be mapped into memory.
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """What torch says, without its advice to load the file nevertheless."""
    code = re.search(r"GLOBAL ([A-Za-z_][\w.]+)", str(error))
    return f"it asks for {code[1]}, which is code" if code else "it is damaged, or holds no tensors"


def refused(path: Path, why: str) -> ArtifactError:
    """Build the error for a pickle that is not loaded, which says how to convert it."""
    return ArtifactError(
        f"{path} is a pickle that cannot be read as tensors alone: {why}",
        allowed=f"{SAFETENSORS}, or a pickled dictionary of tensors",
        remedy="ask its owner for safetensors, or convert it on a machine where it may run code, for a pickle is a "
        "program: load it with transformers' from_pretrained and write it with save_pretrained, or with "
        f"safetensors.torch.save_file(torch.load('{path.name}', weights_only=False), '{SAFETENSORS}')",
    )


def _read(get: Callable[[], Tensor], name: str, path: Path) -> Tensor:
    """Read a tensor as float32.

    Raises:
        ArtifactError: it has another kind of numbers, is not stored densely, or holds NaN or infinity.

    """
    tensor = get()
    if tensor.dtype not in _FLOATS or tensor.layout != torch.strided or tensor.device.type != "cpu":
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ArtifactError(
            f"{path}: {name} is {kind if tensor.layout == torch.strided else f'sparse {kind}'}",
            allowed="dense float32, float16, bfloat16 or float64",
            remedy="export the model without quantization",
        )
    out = tensor.float()
    if not torch.isfinite(out).all():
        raise ArtifactError(f"{path}: {name} holds NaN or infinity", remedy="ask for the float32 weights")
    return out


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
