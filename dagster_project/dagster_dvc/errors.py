"""Errors of the bridge: one class a cause, each message with what happened, where, and the next thing to do."""

from __future__ import annotations

import re

#: What to do about causes that DVC names without a way out: a regular expression and the remedy.
_REMEDIES = (
    (
        r"failed to reproduce '[^']*': (\[Errno 2\]|missing data|dependency '[^']*' does not exist)",
        "what the stage reads is not there: materialize what makes it, or bring it back with `dvc checkout`, or with "
        "`dvc pull` if DVC's cache lacks it too; a raw input has to be put there again",
    ),
    (r"output '[^']*' does not exist", "the command has to make it: correct `cmd` or `outs` in dvc.yaml"),
    (
        r"Parameters? '.*' (are|is) missing from",
        "add them to that file, or take them out of `params` of the stage in dvc.yaml",
    ),
    (
        r"is not a git repository",
        "`git init` makes it one; without Git, tell DVC so: `dvc config --local core.no_scm true`",
    ),
    (
        r"not inside of a DVC repository|do not exist.*\.dvc|is not a DVC repository",
        "`dvc init` makes it one (`dvc init --no-scm` without Git)",
    ),
    (r"no remote specified|No remote provided", "name one: `dvc remote add --default NAME URL` (a folder will do)"),
    (
        r"Checkout failed|missing-files|Missing cache files",
        "DVC's cache lacks them: `dvc pull` fetches what was pushed, `dvc repro` makes the rest anew",
    ),
    (r"is git-ignored", "take it out of .gitignore"),
)


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


def remedy_for(cause: str, *, otherwise: str) -> str:
    """What to do about an error that DVC printed."""
    return next((remedy for words, remedy in _REMEDIES if re.search(words, cause)), otherwise)
