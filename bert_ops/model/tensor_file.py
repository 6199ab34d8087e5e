"""Writing safetensors so that a full disk is seen as one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors in host memory that share no storage.

    Raises:
        OSError: the system refused it, with ``errno`` set; the library gives the number in its text alone.

    """
    try:
        save_file(tensors, path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
