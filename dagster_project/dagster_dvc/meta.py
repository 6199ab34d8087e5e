"""The types of what ``meta`` of a stage may hold; :mod:`.translator` says what the keys mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import PipelineError
from .pipeline import Stage


class Meta(BaseModel):
    """``meta`` of a stage in ``dvc.yaml``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    group: str = "pipeline"
    kinds: list[str] = []
    owners: list[str] = []
    tags: dict[str, str] = {}
    pool: str | None = None
    checks: list[dict[str, Any]] = []
    preview: list[str] = []
    push: bool = False


META_KEYS = frozenset(Meta.model_fields)


def require_typed_meta(stage: Stage) -> None:
    """Refuse a ``meta`` with unknown keys or values of other types.

    Raises:
        PipelineError: it has some; the message names them.
    """
    try:
        Meta.model_validate(dict(stage.meta))
    except ValidationError as error:
        found = [f"{'.'.join(['meta', *map(str, e['loc'])])}: {e['msg']}" for e in error.errors(include_url=False)]
        raise wrong_meta(stage, "; ".join(found)) from None


def wrong_meta(stage: Stage, problem: str) -> PipelineError:
    """Error about the ``meta`` of a stage."""
    return PipelineError(
        f"dvc.yaml: stage {stage.name}: {problem}", remedy=f"meta may hold {', '.join(sorted(META_KEYS))}"
    )


def without_wrong_meta(stage: Stage) -> Stage:
    """The stage itself, or without its ``meta`` if that cannot be used: its state can be shown all the same."""
    try:
        require_typed_meta(stage)
    except PipelineError:
        return replace(stage, meta={})
    return stage
