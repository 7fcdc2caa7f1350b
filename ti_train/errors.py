"""The error types whose messages are shown to users as they are."""

from __future__ import annotations

from .text import printable


class UserError(ValueError):
    """Something the user can fix. The message says what happened, what was given, what is needed, and how to fix it.

    It is made printable: names and texts of files are in it.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(printable, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class PassingError(UserError):
    """A UserError that may not occur again: memory that others use."""


class BusyError(PassingError):
    """A PassingError of an embedding that another run trains."""


class DiskError(UserError):
    """A UserError of a folder that cannot be written: a full disk, a read-only or a lost one."""
