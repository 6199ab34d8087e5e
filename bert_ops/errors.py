"""Errors that a person can act on: what happened, where, what is allowed, how to mend it.

Everything a user can cause ends as a :class:`BertOpsError`. The command line prints it as one message without a
traceback and exits with :attr:`BertOpsError.exit_code`; a traceback that reaches a user is therefore a bug of ours.
"""

from __future__ import annotations

from typing import ClassVar


class BertOpsError(Exception):
    """Base of all errors that a user can mend.

    Args:
        what: one sentence with the file or key and the offending value in it.
        allowed: what would have been accepted, if that is not plain from ``what``.
        remedy: the next thing to do, as an imperative.

    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, allowed: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.allowed = allowed
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.remedy:
            lines.append(f"  remedy:  {self.remedy}")
        return "\n".join(lines)


class InputError(BertOpsError):
    """Something that the user gave (a file, a value, a row) cannot be used."""


class ArtifactError(BertOpsError):
    """What an earlier stage left is missing, truncated or does not fit; running that stage again mends it."""

    exit_code = 3


class ValidationFailed(BertOpsError):
    """A critical expectation or gate does not hold; the report was written before this was raised."""

    exit_code = 4


class StorageError(BertOpsError):
    """The machine could not store what was made: disk full, no permission, read-only folder."""

    exit_code = 5
