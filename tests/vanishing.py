"""A file or folder that is removed while somebody lists what is around it: at each moment in turn."""

from __future__ import annotations

import builtins
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


def at_each_moment(path: Path, act: Callable[[], Any]) -> Iterator[Any]:
    """The results of an act whose nth look at the path, for each n that it reaches, finds it gone. It is put back."""
    looks, gone = 0, True
    while gone:
        looks += 1
        with tempfile.TemporaryDirectory() as elsewhere:
            with vanishing(path, looks, Path(elsewhere, path.name)):
                result = act()
            gone = not path.exists()
            if gone:
                shutil.move(Path(elsewhere, path.name), path)
                yield result


@contextmanager
def vanishing(gone: Path, looks: int, to: Path) -> Iterator[None]:
    """Moves a file or folder away before it is asked about, opened or listed for the nth time."""
    left = looks

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *args: Any, **named: Any) -> Any:
            nonlocal left
            if isinstance(path, str | os.PathLike) and os.fspath(path) == str(gone):
                left -= 1
                if left == 0:
                    os.rename(gone, to)
            return call(path, *args, **named)

        return called

    with ExitStack() as patches:
        for module, name in ((os, "stat"), (os, "scandir"), (io, "open"), (builtins, "open")):
            patches.enter_context(patch.object(module, name, before(getattr(module, name))))
        if accessor := getattr(pathlib, "_NormalAccessor", None):  # of Python 3.10, whose paths keep the functions
            for name in ("stat", "scandir", "open"):
                patches.enter_context(patch.object(accessor, name, staticmethod(before(getattr(accessor, name)))))
        yield
