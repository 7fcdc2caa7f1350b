"""The records: one JSON file for each arm, concept, seed and number of images, so that a stopped benchmark goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ti_train.files import file_name, write_atomically


@dataclass(frozen=True)
class Record:
    """An embedding, and what it shows, each 0 to 1."""

    world: str
    arm: str
    concept: str
    seed: int
    images: int  # seen in training
    fidelity: float
    edit: float
    kept: float
    norm: float  # mean over the vectors
    vectors: int
    seconds: float
    by_question: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    settings: str = ""  # digest of all that the embedding depends on
    further: Mapping[str, float] = field(default_factory=dict)  # measures of this world, by name

    @property
    def key(self) -> tuple[str, str, int]:
        """What arms are compared over: pairs of equal concept and seed."""
        return self.world, self.concept, self.seed


def digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Records:
    """Those in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, world: str, arm: str, images: int, concept: str, seed: int) -> Path:
        return self.folder / file_name(world) / f"{file_name(arm)}-{images}" / f"{concept}-{seed}.json"

    def has(self, world: str, arm: str, images: int, concept: str, seed: int, settings: str) -> bool:
        file = self._file(world, arm, images, concept, seed)
        return file.is_file() and json.loads(file.read_text())["settings"] == settings

    def add(self, record: Record) -> None:
        file = self._file(record.world, record.arm, record.images, record.concept, record.seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(asdict(record), indent=1).encode())

    def all(self) -> list[Record]:
        return [Record(**json.loads(file.read_text())) for file in sorted(self.folder.rglob("*.json"))]
