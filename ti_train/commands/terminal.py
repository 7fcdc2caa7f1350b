"""The terminal that a command writes to."""

from __future__ import annotations

import io
import sys


def show_any_text() -> None:
    """Has both streams write what their encoding lacks as escapes, such as \\u732b, instead of failing.

    A Windows console, a pipe or a log file may have a legacy encoding, and file names may have bytes of none.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not so if a host or a test has replaced it
            stream.reconfigure(errors="backslashreplace")
