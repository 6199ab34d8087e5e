"""Command line of the bridge: ``python -m dagster_project.dagster_dvc sync``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import dagster as dg

from .errors import BridgeError
from .pipeline import find_project
from .resources import DvcProject
from .sync import report


def main() -> int:
    """Run one command; a message and exit status 2 where the user can mend something."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="tell the Dagster instance of DAGSTER_HOME what DVC did outside of it")
    parser.parse_args()
    try:
        sys.stderr.write(_sync())
    except BridgeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _sync() -> str:
    dvc = DvcProject(root=str(find_project(fallback=Path(__file__).resolve().parents[2])))
    with dg.DagsterInstance.get() as instance:
        count = report(instance, dvc)
    return f"Dagster: {count} assets brought up to date with dvc.lock\n" if count else "Dagster: up to date\n"


if __name__ == "__main__":
    sys.exit(main())
