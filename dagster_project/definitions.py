"""What Dagster loads: ``defs``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_ops.params import Params
from bert_ops.schema import validate
from dagster_project.dagster_dvc import Schema, build_definitions


def _validate(values: Mapping[str, Any]) -> None:
    validate(dict(values), Params, where="", source=Path("params.yaml"))


defs = build_definitions(
    fallback=Path(__file__).resolve().parent.parent,
    schema=Schema(model=Params, validate=_validate),
    preload=["dagster_project.definitions"],
)
