"""Removes finished runs that are older than some days, with their events, from the Dagster instance of DAGSTER_HOME.

A run stays if the newest materialization of an asset is its work: without it the asset would look as if never made.
Data, models and ``dvc.lock`` are not touched.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta

import dagster as dg

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def old_runs(instance: dg.DagsterInstance, before: datetime) -> list[str]:
    """Ids of the finished runs that were last changed before a time and that no asset needs, the oldest first."""
    newest = (instance.get_latest_materialization_event(key) for key in instance.all_asset_keys())
    needed = {event.run_id for event in newest if event is not None}
    records = instance.get_run_records(dg.RunsFilter(statuses=_FINISHED, updated_before=before), ascending=True)
    return [record.dagster_run.run_id for record in records if record.dagster_run.run_id not in needed]


def main() -> int:
    """Remove, or show, what is old."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, required=True, help="age from which a run goes, at least 1")
    parser.add_argument("--dry-run", action="store_true", help="show, remove nothing")
    arguments = parser.parse_args()
    if arguments.days < 1:
        parser.error(f"--days is {arguments.days}: at least 1")
    with dg.DagsterInstance.get() as instance:
        found = old_runs(instance, datetime.now(tz=UTC) - timedelta(days=arguments.days))
        for run_id in found:
            if not arguments.dry_run:
                instance.delete_run(run_id)
    sys.stdout.write(f"{len(found)} runs {'would be' if arguments.dry_run else 'were'} removed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
