"""What assets and sensors share: where the project lies and how to read its state."""

from pathlib import Path

import dagster as dg

from .lock_file import LockedStage, read_lock
from .pipeline import Pipeline, read_pipeline
from .workspace import Snapshot, read_workspace, take_snapshot


class DvcProject(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A DVC project on this machine.

    Args:
        root: folder that holds ``dvc.yaml``.
        patience_s: seconds that a materialization waits for another process that uses the same files.
    """

    root: str
    patience_s: float = 24 * 3600.0

    @property
    def folder(self) -> Path:
        """The project's folder."""
        return Path(self.root)

    def pipeline(self) -> Pipeline:
        """Read ``dvc.yaml`` as it is now."""
        return read_pipeline(self.folder)

    def lock(self) -> dict[str, LockedStage]:
        """Read ``dvc.lock`` as it is now."""
        return read_lock(self.folder)

    def snapshot(self, *, only: str | None = None) -> Snapshot:
        """Compute the versions of all sources and stages as they are now, or no more than those of one stage."""
        pipeline = self.pipeline()
        return take_snapshot(pipeline, read_workspace(pipeline, self.lock(), only=only))
