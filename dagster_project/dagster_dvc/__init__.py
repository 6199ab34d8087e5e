"""Presents any DVC pipeline as Dagster's software-defined assets and runs it through DVC.

The package knows DVC and Dagster, and nothing of what the stages do: what a stage is called, what it needs, makes and
must satisfy is read from ``dvc.yaml``. See README.md for how another project takes it.
"""

from .assemble import build_definitions
from .config_types import Schema

__all__ = ["Schema", "build_definitions"]
