"""What Dagster loads: ``defs``."""

from dagster_project.assemble import build_definitions

defs = build_definitions()
