"""What Dagster loads: ``defs``."""

from pathlib import Path

from dagster_project.dagster_dvc import build_definitions

defs = build_definitions(fallback=Path(__file__).resolve().parent.parent, preload=["dagster_project.definitions"])
