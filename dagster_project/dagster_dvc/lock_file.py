"""Reader: ``dvc.lock`` to frozen records.

It is plain YAML; DVC rewrites it in place, so a reader may meet an empty file for some milliseconds and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import LockFileError, explain_cause
from .pipeline import Parameter

#: ``dvc.lock`` is empty for 8-32 ms while DVC rewrites it; a reader waits far longer than that before it complains.
_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 40, 0.025


@dataclass(frozen=True)
class LockedStage:
    """What ``dvc.lock`` records of the last run of a stage; hashes are DVC's, ``.dir`` suffix included."""

    command: str
    dependencies: Mapping[str, str]
    outputs: Mapping[str, str]
    sizes: Mapping[str, int]
    parameters: Mapping[Parameter, Any]
    #: What DVC's own loader takes: the entry of ``dvc.lock``.
    entry: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def read_lock(root: Path) -> dict[str, LockedStage]:
    """Read ``dvc.lock``; an absent file means that nothing ran yet.

    Raises:
        LockFileError: it is empty or damaged, and stays so.
    """
    from dvc.utils.serialize import YAMLFileCorruptedError

    path = root / "dvc.lock"
    problem = "is empty"
    for _ in range(_LOCK_ATTEMPTS):
        try:
            found = _locked_stages(path.read_text(encoding="utf-8"), str(path))
            if isinstance(found, dict):
                return dict(found)
            problem = found
        except FileNotFoundError:
            return {}
        except (
            YAMLFileCorruptedError,
            UnicodeDecodeError,
            KeyError,
            TypeError,
            AttributeError,
            StopIteration,
        ) as error:
            problem = f"is damaged: {explain_cause(error)}"
        time.sleep(_LOCK_PAUSE_S)
    raise LockFileError(
        f"{path} {problem}",
        remedy="restore it with `git checkout dvc.lock` if it is committed; else delete it and run `dvc repro`: "
        "what is in DVC's run-cache is not computed again",
    )


@lru_cache(maxsize=4)
def _locked_stages(text: str, path: str) -> dict[str, LockedStage] | str:
    """Parse once what is read for each stage of a run; it takes 0.1 s. Of a text without stages, say what is wrong."""
    # DVC's parser, not PyYAML: the latter reads `1e-05`, as DVC writes small parameters, as a string.
    from dvc.utils.serialize import parse_yaml

    content = parse_yaml(text, path)
    if isinstance(content, dict) and isinstance(content.get("stages"), dict):
        return {name: _locked(entry) for name, entry in content["stages"].items()}
    return "holds no stages" if content else "is empty"


def _locked(entry: Mapping[str, Any]) -> LockedStage:
    dependencies, outputs = entry.get("deps") or [], entry.get("outs") or []
    return LockedStage(
        command=entry["cmd"] if isinstance(entry["cmd"], str) else "\n".join(entry["cmd"]),
        dependencies={item["path"]: _hash(item) for item in dependencies},
        outputs={item["path"]: _hash(item) for item in outputs},
        sizes={item["path"]: int(item.get("size") or 0) for item in outputs},
        parameters={
            Parameter(file=file, key=key): value
            for file, values in (entry.get("params") or {}).items()
            for key, value in values.items()
        },
        entry=entry,
    )


def _hash(item: Mapping[str, Any]) -> str:
    """DVC names the hash after its algorithm: ``md5`` for local files, ``etag`` or ``checksum`` for remote ones."""
    return str(next(item[name] for name in ("md5", "etag", "checksum") if name in item))
