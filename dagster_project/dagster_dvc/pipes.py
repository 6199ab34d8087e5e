"""Opens Dagster Pipes in a process that DVC starts: context in the environment, messages in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param


def pipes_environment(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, messages: Path, keys: Sequence[dg.AssetKey] = ()
) -> dict[str, str]:
    """Environment that lets ``dagster_pipes.open_dagster_pipes()`` find its way back.

    Args:
        context: of the step.
        messages: file that the process appends its messages to.
        keys: assets that the process makes.
    """
    data: dict[str, Any] = {
        "asset_keys": [key.to_user_string() for key in keys] or None,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": context.run.run_id,
        "job_name": context.run.job_name,
        "retry_number": context.retry_number,
        "extras": {},
    }
    return {
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"data": data}),
        DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": str(messages)}),
    }
