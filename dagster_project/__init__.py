"""Dagster's view of bert-ops. The bridge between Dagster and DVC is a package of its own, ``dagster_dvc``."""
