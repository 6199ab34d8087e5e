"""Errors of the bridge: one class a cause, each message with what happened, where, and the next thing to do."""

from __future__ import annotations


class BridgeError(Exception):
    """Base of what a user of the bridge can cause and mend."""

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}\n  remedy: {self.remedy}"


class ProjectNotFound(BridgeError):
    """No folder with a ``dvc.yaml`` was found."""


class PipelineError(BridgeError):
    """``dvc.yaml`` or the ``params.yaml`` that it is filled from cannot be used."""


class LockFileError(BridgeError):
    """``dvc.lock`` cannot be read."""


class SettingsError(BridgeError):
    """Section ``automation`` of ``params.yaml`` holds what is not allowed."""


class SourceError(BridgeError):
    """What a sensor watches (folder, table, metrics file) is missing or cannot be reached."""


class StageFailed(BridgeError):
    """A stage, or DVC on its behalf, ended with an error."""

    def __init__(self, what: str, *, remedy: str, exit_code: int) -> None:
        super().__init__(what, remedy=remedy)
        self.exit_code = exit_code


class OverrideError(BridgeError):
    """A value that the launchpad gives for a parameter is not allowed."""


class ExperimentError(BridgeError):
    """An experiment cannot be run or applied."""


class RemoteError(BridgeError):
    """A remote is not configured, cannot be reached, or lacks what was asked of it."""


def explain_cause(error: BaseException) -> str:
    """The innermost cause in one line; for YAML, with the line and column that it complains about."""
    while error.__cause__ is not None:
        error = error.__cause__
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'not valid YAML'}"
    return " ".join(str(error).split()) or type(error).__name__
