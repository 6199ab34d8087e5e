"""Base of the typed schema of ``params.yaml``.

Each package describes its own section in a ``params.py`` beside its code and derives it from :class:`Section`;
:mod:`bert_ops.params` composes them. No tracked field has a default here: DVC reads only the file, so a default in
code would never reach ``dvc.lock`` and ``dvc params diff`` would not show it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bert_ops.errors import InputError


class Section(BaseModel):
    """A section of ``params.yaml``: unknown keys are refused and values cannot be changed after loading.

    Types are strict: a quoted number, or `true` for 1, is a slip of the pen that DVC would record as it stands.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Seed = Annotated[int, Field(ge=0, lt=2**32, description="seed of every random draw of this stage")]
Threads = Annotated[
    int, Field(ge=1, le=1024, description="CPU threads; part of the result, because sums are ordered by it")
]
Share = Annotated[float, Field(ge=0.0, le=1.0)]

S = TypeVar("S")

_NUMBER = re.compile(r"[+-]?\d+\.?\d*(?:[eE][+-]?\d+)?")


class _Loader(yaml.SafeLoader):
    """The safe loader, to which ``1e-05`` is a number: DVC, which follows YAML 1.2, writes small values so."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+\Z"), list("+-0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Raises:
        InputError: the file is missing, is not UTF-8 or YAML, or is not a mapping.

    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 — a safe one
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist", remedy="run from the project's root, or name the file with --params"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", remedy="name a file with --params") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}", remedy="save the file as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}{where} is not valid YAML: {problem}", remedy="mend that line") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no sections", remedy="start it with `section:` keys")
    return value


def load_section(path: Path, name: str, schema: type[S] | TypeAdapter[S]) -> S:
    """Read and validate one section; ``name`` may be dotted (``tasks.sentiment``).

    Raises:
        InputError: the section is missing or a value is not allowed; the message names the dotted key.

    """
    value: Any = read_yaml(path)
    walked: list[str] = []
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            known = ", ".join(map(str, value)) if isinstance(value, dict) else "nothing"
            raise InputError(
                f"{path} has no section `{name}`",
                allowed=f"`{'.'.join(walked) or path.name}` holds {known}",
                remedy=f"add `{name}` to {path}",
            )
        value = value[key]
        walked.append(key)
    return validate(value, schema, where=name, source=path)


def validate(value: Any, schema: type[S] | TypeAdapter[S], *, where: str, source: Path) -> S:
    """Validate a raw value against a schema: a section, or an adapter where it may be one of several.

    Raises:
        InputError: every violated field on a line of its own, with dotted key, value and what is allowed.

    """
    adapter = schema if isinstance(schema, TypeAdapter) else TypeAdapter(schema)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problems = [describe(item, where, value) for item in error.errors(include_url=False)]
        raise InputError(
            f"{source}: {problems[0]}" if len(problems) == 1 else f"{source}:\n  " + "\n  ".join(problems),
            remedy=f"correct {'it' if len(problems) == 1 else 'them'} in {source}",
        ) from error


def describe(item: Any, where: str, value: Any) -> str:
    """One pydantic error as `key = value: what is allowed`; ``value`` is what was validated."""
    kind, message = item["type"], item["msg"]
    key = ".".join([*filter(None, [where]), *_keys(item["loc"], value, missing=kind == "missing")])
    if kind.startswith("union_tag_"):
        context = item["ctx"]
        key += "." + context["discriminator"].strip("'")
        if kind == "union_tag_not_found":
            return f"`{key}` is missing"
        return f"`{key}` is {context['tag']!r}: allowed are {context['expected_tags']}"
    if kind == "extra_forbidden":
        return f"`{key}` is not a known key"
    if kind == "missing":
        return f"`{key}` is missing"
    if kind == "value_error":
        return f"`{key}`: {message.removeprefix('Value error, ')}"
    hint = _number_hint(item["input"]) if kind in {"float_type", "int_type"} else ""
    return f"`{key}` is {item['input']!r}: {message[0].lower()}{message[1:]}{hint}"


def _number_hint(value: Any) -> str:
    """What to write for a number in quotes."""
    return f"; write {value} without quotes" if isinstance(value, str) and _NUMBER.fullmatch(value) else ""


def _keys(location: tuple[str | int, ...], value: Any, *, missing: bool) -> list[str]:
    """Keys of a pydantic location as they stand in the file: without the names of union members between them."""
    keys = []
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(value, dict) and part not in value and not (last and missing):
            continue
        keys.append(str(part))
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
    return keys
