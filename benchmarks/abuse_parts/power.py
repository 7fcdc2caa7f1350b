"""Power cuts: the folders that a disk may have after one, by the recorded calls of a run.

What was not synced may be there or not. A file's data: those of its last sync, all, zeros in the place of what was
written since, or half of that. Names (creations, renames, removals): up to any of those since their folder's last sync,
in order, as on file systems with a journal; a folder that is synced has all of its own. After Pillai et al. 2014, "All
File Systems Are Not Created Equal" (OSDI), without their reordering of names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .disk import Call

Folder = dict[str, bytes]  # path in the folder -> content


@dataclass
class File:
    data: bytes = b""
    synced: bytes = b""

    def variants(self) -> tuple[bytes, bytes, bytes, bytes]:
        """What a power cut may leave: nothing since the sync, everything, zeros, half of it."""
        kept = len(self.synced) if self.data.startswith(self.synced) else 0
        rest = self.data[kept:]
        return self.synced, self.data, self.data[:kept] + bytes(len(rest)), self.data[:kept] + rest[: len(rest) // 2]


@dataclass
class Disk:
    """names: as the process sees them. durable: as they are on disk. pending: (path, file or None) since then."""

    names: dict[Path, File] = field(default_factory=dict)
    durable: dict[Path, File] = field(default_factory=dict)
    pending: list[tuple[tuple[Path, File | None], ...]] = field(default_factory=list)

    def apply(self, call: Call) -> None:
        match call.kind:
            case "open" | "empty" if call.path not in self.names:
                self._named((call.path, File()))
            case "empty":
                self.names[call.path].data = b""
            case "write":
                file = self.names[call.path]
                file.data = file.data[: call.offset].ljust(call.offset, b"\0") + call.data
            case "truncate":
                self.names[call.path].data = self.names[call.path].data[: call.offset]
            case "sync" if call.path in self.names:
                self.names[call.path].synced = self.names[call.path].data
            case "sync":
                self._synced(call.path)
            case "rename":
                self._named((call.path, None), (Path(call.other), self.names[call.path]))
            case "unlink":
                self._named((call.path, None))

    def _named(self, *changes: tuple[Path, File | None]) -> None:
        self.pending.append(changes)
        _change(self.names, changes)

    def _synced(self, folder: Path) -> None:
        own = [changes for changes in self.pending if all(path.parent == folder for path, _ in changes)]
        for changes in own:
            _change(self.durable, changes)
        self.pending = [changes for changes in self.pending if changes not in own]

    def after_a_cut(self, root: Path) -> Iterator[Folder]:
        for count in range(len(self.pending) + 1):
            there = dict(self.durable)
            for changes in self.pending[:count]:
                _change(there, changes)
            for which in range(4):
                yield {path.relative_to(root).as_posix(): file.variants()[which] for path, file in there.items()}


def _change(names: dict[Path, File], changes: tuple[tuple[Path, File | None], ...]) -> None:
    for path, file in changes:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def folders_after_a_cut(calls: list[Call], root: Path, before: Folder) -> Iterator[tuple[int, Folder]]:
    """The different folders that a power cut may leave, each with the number of the call after which it does."""
    files = {root / name: File(data, data) for name, data in before.items()}
    disk, seen = Disk(dict(files), dict(files)), set()
    for number, call in enumerate(calls, 1):
        disk.apply(call)
        for folder in disk.after_a_cut(root):
            if (key := frozenset(folder.items())) not in seen:
                seen.add(key)
                yield number, folder
