"""A file that is deleted while somebody lists its folder: at each moment in turn."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


def at_each_moment(file: Path, act: Callable[[], Any]) -> Iterator[Any]:
    """The results of an act whose nth look into the file, for each n that it reaches, finds it deleted."""
    data, looks, deleted = file.read_bytes(), 0, True
    while deleted:
        looks += 1
        with vanishing(file, looks):
            result = act()
        deleted = not file.exists()
        if deleted:
            yield result
            file.write_bytes(data)


@contextmanager
def vanishing(file: Path, looks: int) -> Iterator[None]:
    """Deletes a file before it is asked about or opened for the nth time."""
    left = looks

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *args: Any, **named: Any) -> Any:
            nonlocal left
            if isinstance(path, str | os.PathLike) and os.fspath(path) == str(file):
                left -= 1
                if left == 0:
                    os.unlink(file)
            return call(path, *args, **named)

        return called

    with (
        patch.object(os, "stat", before(os.stat)),
        patch.object(io, "open", before(io.open)),
        patch.object(builtins, "open", before(builtins.open)),
    ):
        yield
