"""Command line of the bridge: ``python -m dagster_project.dagster_dvc sync``, ``serve`` or ``repro``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import dagster as dg

from .errors import BridgeError
from .file_server import serve
from .pipeline import find_project
from .resources import DvcProject
from .runner import reproduce
from .sync import report


def main() -> int:
    """Run one command; a message and exit status 2 where the user can mend something."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="tell the Dagster instance of DAGSTER_HOME what DVC did outside of it")
    serving = commands.add_parser("serve", help="serve the outputs of the stages on 127.0.0.1, for links in Dagster")
    serving.add_argument("--port", type=int, default=3001, help="default: %(default)s")
    running = commands.add_parser("repro", help="`dvc repro` that waits for what others, such as Dagster, are running")
    running.add_argument("rest", nargs=argparse.REMAINDER, help="arguments of `dvc repro`")
    arguments = parser.parse_args()
    try:
        root = find_project(fallback=Path(__file__).resolve().parents[2])
        if arguments.command == "serve":
            serve(root, port=arguments.port)
        elif arguments.command == "repro":
            return reproduce(root, arguments.rest)
        else:
            sys.stderr.write(_sync(root))
    except BridgeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _sync(root: Path) -> str:
    dvc = DvcProject(root=str(root))
    with dg.DagsterInstance.get() as instance:
        count = report(instance, dvc)
    return f"Dagster: {count} assets brought up to date with dvc.lock\n" if count else "Dagster: up to date\n"


if __name__ == "__main__":
    sys.exit(main())
