"""``bert-ops doctor``: what this machine and installation are, and what is wrong with them.

Each line is ``ok``, ``warn`` (works, but slower or with less) or ``bad`` (something will fail), the last two with a
remedy. Nothing is changed and nothing is fetched. Versions come from the packages' metadata, so that a package that
fails to import is still named; only torch is imported, for the hardware.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from bert_ops.doctor import installation, machine, settings
from bert_ops.doctor.finding import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of lines, for tools")
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (the current one)")


def run(arguments: argparse.Namespace) -> None:
    """Print the findings.

    Raises:
        SystemExit: with code 1, if something is bad.

    """
    findings = list(examine(arguments.root, params=arguments.params))
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write(as_text(findings))
    if any(finding.level == "bad" for finding in findings):
        raise SystemExit(1)


def as_text(findings: list[Finding]) -> str:
    """Format the findings for a terminal."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<5} {finding.what:<20} {finding.found}\n")
        if finding.remedy:
            lines.append(f"{'':<26} -> {finding.remedy}\n")
    bad, warn = (sum(finding.level == level for finding in findings) for level in ("bad", "warn"))
    lines.append(f"\n{bad} bad, {warn} to know about, {len(findings) - bad - warn} fine\n")
    return "".join(lines)


def examine(root: Path, *, params: Path) -> Iterator[Finding]:
    """Yield all findings; a check that breaks is a finding itself, not the end of the others."""
    installed = installation.installed_versions()
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", lambda: installation.check_versions(installed, constraints=root / "constraints.txt")),
        ("combinations", lambda: installation.check_combinations(installed)),
        ("sample", lambda: installation.check_sample(installed)),
        ("processor", machine.check_processor),
        ("GPU", machine.check_gpu),
        ("memory", machine.check_memory),
        ("disk", lambda: machine.check_disk(root)),
        ("git", lambda: settings.check_git(root)),
        ("DVC", lambda: settings.check_dvc(root)),
        ("telemetry", lambda: settings.check_telemetry(root, os.environ)),
        ("params.yaml", lambda: settings.check_params(params)),
    ]
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            found = f"could not be examined: {type(error).__name__}: {error}"
            broken = isinstance(error, ImportError)
            remedy = installation.REINSTALL if broken else "report this line; the other lines still hold"
            yield Finding(level="bad" if broken else "warn", what=name, found=found, remedy=remedy)
