"""The typed schema of ``params.yaml`` as Dagster's config types, so that the launchpad checks and completes overrides.

Every field is optional: what is left out keeps the value of ``params.yaml``. Ranges and rules across fields, which
Dagster's config cannot express, are checked by :class:`Schema` before anything starts.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, ValidationError

from .errors import OverrideError


@dataclass(frozen=True)
class Schema:
    """What ``params.yaml`` may hold.

    Args:
        model: pydantic model of the whole file; without one, types are those of the values in the file.
        validate: raises an exception whose text names key, value and what is allowed; the model's own errors if absent.
    """

    model: type[BaseModel] | None = None
    validate: Callable[[Mapping[str, Any]], object] | None = None

    def fields(self, values: Mapping[str, Any], sections: tuple[str, ...] = ()) -> dict[str, dg.Field]:
        """Config fields of some sections (of all, if none is named), as they stand in ``values``."""
        known = self.model.model_fields if self.model is not None else {}
        found = {}
        for name in sections or tuple(values):
            value = values.get(name)
            kind = type_of(known[name].annotation, value) if name in known else type_of_value(value)
            found[name] = dg.Field(kind, is_required=False, description=f"overrides section `{name}` of params.yaml")
        return found

    def check(self, values: Mapping[str, Any]) -> None:
        """Validate the whole file with the overrides in it.

        Raises:
            OverrideError: a value is not allowed; the message names it.
        """
        try:
            if self.validate is not None:
                self.validate(values)
            elif self.model is not None:
                self.model.model_validate(values)
        except ValidationError as error:
            lines = [f"`{'.'.join(map(str, e['loc']))}` is {e['input']!r}: {e['msg']}" for e in error.errors()]
            raise OverrideError("\n".join(lines), remedy="correct it in the launchpad") from error
        except Exception as error:
            raise OverrideError(str(error), remedy="correct it in the launchpad; nothing was started") from error


def type_of(annotation: Any, value: Any = None) -> Any:
    """Dagster's config type for a Python annotation; ``value`` tells the keys of a mapping that a person chose."""
    if get_origin(annotation) is not None:
        return _type_of_generic(get_origin(annotation), get_args(annotation), value)
    if _is_model(annotation):
        return _shape(annotation, value if isinstance(value, Mapping) else {})
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choice([str(member.value) for member in annotation])
    scalars = {int: dg.Int, float: dg.Float, bool: dg.Bool, str: dg.String}
    return scalars.get(annotation, dg.Any)


def type_of_value(value: Any) -> Any:
    """Dagster's config type for a value that no schema describes."""
    if isinstance(value, Mapping):
        return dg.Shape({str(k): dg.Field(type_of_value(v), is_required=False) for k, v in value.items()})  # type: ignore[no-untyped-call]
    if isinstance(value, list):
        kinds = {type(item) for item in value}
        return dg.Array(type_of_value(value[0])) if len(kinds) == 1 and kinds <= {int, float, str, bool} else list
    return {bool: dg.Bool, int: dg.Int, float: dg.Float, str: dg.String}.get(type(value), dg.Any)


def merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``values`` with the overrides in it, mapping by mapping; a list is replaced as a whole."""
    merged = copy.deepcopy(dict(values))
    for key, value in overrides.items():
        inner = merged.get(key)
        merged[key] = merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def changes(values: Mapping[str, Any], merged: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key to value before and after, for what differs."""
    found: dict[str, tuple[Any, Any]] = {}
    for key, after in merged.items():
        before = values.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= changes(before, after, f"{prefix}{key}.")
        elif before != after:
            found[f"{prefix}{key}"] = (before, after)
    return found


def read_params(root: Path, name: str = "params.yaml") -> dict[str, Any]:
    """Read a parameter file as DVC does; an absent file is empty.

    Raises:
        OverrideError: it is no mapping, or not YAML.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import LocalFileSystem
    from dvc.utils.serialize import load_path

    path = root / name
    if not path.exists():
        return {}
    try:
        values = load_path(str(path), LocalFileSystem())
    except (DvcException, OSError) as error:
        raise OverrideError(f"{path} cannot be read: {error}", remedy="mend it") from error
    if not isinstance(values, dict):
        raise OverrideError(f"{path} holds no sections", remedy="start it with `section:` keys")
    return values


def _type_of_generic(origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    kind: Any = dg.Any
    if origin is Annotated:
        kind = type_of(arguments[0], value)
    elif origin in (Union, types.UnionType):
        kind = _type_of_union([a for a in arguments if a is not type(None)], value, len(arguments))
    elif origin is Literal and all(isinstance(a, str) for a in arguments):
        kind = _choice([str(a) for a in arguments])
    elif origin in (list, tuple, set, frozenset):
        members = {a for a in arguments if a is not Ellipsis}
        kind = dg.Array(type_of(arguments[0])) if len(members) == 1 else list
    elif origin in (dict, Mapping):
        kind = _mapping(arguments[1], value)
    return kind


def _type_of_union(members: list[Any], value: Any, count: int) -> Any:
    """A union of models is the fields of all of them; of scalars, the wider type; anything else is free."""
    models = [m for m in map(_unwrap, members) if _is_model(m)]
    if models and len(models) == len(members):
        fields: dict[str, Any] = {}
        for model in models:
            for name, field in model.model_fields.items():
                # The same name may mean another type in another member; the schema judges then.
                kind = type_of(field.annotation, value.get(name) if isinstance(value, Mapping) else None)
                same = name not in fields or fields[name].config_type.key == dg.Field(kind).config_type.key
                fields[name] = dg.Field(kind if same else dg.Any, is_required=False, description=field.description)
        return dg.Shape(fields)  # type: ignore[no-untyped-call]
    if len(members) == 1:
        inner = type_of(members[0], value)
        return dg.Noneable(inner) if count > 1 else inner
    return dg.Float if set(members) == {int, float} else dg.Any


def _unwrap(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _choice(names: list[str]) -> dg.Enum:
    label = "_".join("".join(c if c.isalnum() else "_" for c in name) for name in names)
    return dg.Enum(f"one_of_{label}", [dg.EnumValue(name) for name in names])


def _shape(model: type[BaseModel], values: Mapping[str, Any]) -> dg.Shape:
    fields = {
        name: dg.Field(type_of(field.annotation, values.get(name)), is_required=False, description=field.description)
        for name, field in model.model_fields.items()
    }
    return dg.Shape(fields)  # type: ignore[no-untyped-call]


def _mapping(annotation: Any, value: Any) -> Any:
    """A mapping whose keys a person chose: those that exist are typed, others are left to the schema."""
    known = value if isinstance(value, Mapping) else {}
    return dg.Permissive({str(k): dg.Field(type_of(annotation, v), is_required=False) for k, v in known.items()})  # type: ignore[no-untyped-call]
