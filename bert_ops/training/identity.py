"""What a checkpoint belongs to: the parts that it and the run have to share, and how they differ if they do not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bert_ops.errors import InputError

#: Characters of a value that a message shows.
_SHOWN = 80


def check_identity(wanted: Mapping[str, str], *, found: Mapping[str, str], where: Path) -> None:
    """Compare what a run is with what a checkpoint belongs to.

    Args:
        wanted: parts of the run by name (architecture, vocabulary, parameters), each a hash, or JSON of its values.
        found: those that the checkpoint was written with.
        where: the checkpoint.

    Raises:
        InputError: they differ; the message names each part or value, as it is there and here.

    """
    parts = differences(found, wanted)
    if parts:
        raise InputError(
            f"the checkpoint {where} belongs to another run: {'; '.join(parts)}",
            remedy="go back to what that run was started with, or move its folder away to begin anew",
        )


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """What two identities differ in, as "part: value there, value here"; JSON objects value by value."""
    a, b = _values(there), _values(here)
    return [
        f"{name}: {_shown(a.get(name))} there, {_shown(b.get(name))} here"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def _values(identity: Mapping[str, str]) -> dict[str, str]:
    """Texts by name, those of JSON objects by dotted name."""
    values: dict[str, str] = {}
    for name, text in identity.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, dict) and value:
            inner = {f"{name}.{key}": json.dumps(item, ensure_ascii=False) for key, item in value.items()}
            values |= _values(inner)
        else:
            values[name] = text
    return values


def _shown(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
