"""What a code location shows where ``dvc.yaml`` cannot be used: the message, and what ``dvc.lock`` still records."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from .errors import BridgeError
from .lock_file import LockedStage, read_lock
from .pipeline import overlaps
from .resources import DvcProject
from .state_sensor import dvc_state
from .translator import to_key
from .workspace import asset_key

_MESSAGE_KEY = dg.AssetKey(["dvc_yaml_cannot_be_read"])


def fallback_definitions(root: Path | None, error: BridgeError) -> dg.Definitions:
    """Show an error as an asset, and the stages of the last run beside it; the sensor repeats the error.

    Args:
        root: the project, if one was found.
        error: why its pipeline cannot be used.
    """
    message = message_spec(error, key=_MESSAGE_KEY)
    if root is None:
        return dg.Definitions(assets=[message])
    try:
        lock = read_lock(root)
    except BridgeError as other:
        second = message_spec(other, key=dg.AssetKey(["dvc_lock_cannot_be_read"]))
        return _definitions(root, [message, second])
    return _definitions(root, [message, *(_recorded_spec(lock, name) for name in lock)])


def message_spec(error: BridgeError, *, key: dg.AssetKey) -> dg.AssetSpec:
    """Describe an error as an asset that nothing can materialize."""
    description = f"**{error.what}**\n\nRemedy: {error.remedy}. Then reload the code location."
    return dg.AssetSpec(key=key, group_name="pipeline", description=description, kinds={"error"})


def _definitions(root: Path, specs: list[dg.AssetSpec]) -> dg.Definitions:
    distinct = {spec.key: spec for spec in specs}
    return dg.Definitions(
        assets=list(distinct.values()), sensors=[dvc_state], resources={"dvc": DvcProject(root=str(root))}
    )


def _recorded_spec(lock: dict[str, LockedStage], name: str) -> dg.AssetSpec:
    """Describe a stage as ``dvc.lock`` records it; it has the key of its asset, so its history stays visible."""
    locked = lock[name]
    upstream = [
        other
        for other, entry in lock.items()
        if other != name and any(overlaps(o, d) for o in entry.outputs for d in locked.dependencies)
    ]
    return dg.AssetSpec(
        key=to_key(asset_key(name)),
        deps=[to_key(asset_key(other)) for other in upstream],
        group_name="pipeline",
        kinds={"dvc"},
        description="The last run, as dvc.lock records it. It cannot be materialized while dvc.yaml cannot be used.",
        metadata={
            "stage": name,
            "command": dg.MetadataValue.md(f"```\n{locked.command}\n```"),
            "made": dg.MetadataValue.md("\n".join(f"- `{path}`: {h}" for path, h in locked.outputs.items())),
        },
    )
