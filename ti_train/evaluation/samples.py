"""Samples as files, one for each prompt and seed: a long evaluation may be stopped at any point and loses none."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..files import file_name, write_atomically
from ..host import Embeddings, Host, Prompt, SampleRequest

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Sampling:
    """`number` pictures a prompt, of side x side pixels, with seeds that follow each other; the paper's figures."""

    side: int
    number: int = 64
    steps: int = 50
    guidance: float = 5.0
    first_seed: int = 0
    batch_size: int = 4

    def __post_init__(self) -> None:
        for what, value in (("--number", self.number), ("--steps", self.steps), ("--batch-size", self.batch_size)):
            if value < 1:
                raise UserError(f"{what} is {value}; it must be at least 1.")
        if self.side % 8 or self.side < 8:
            raise UserError(f"--resolution is {self.side}; it must be a multiple of 8.")

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.number)

    def settings(self, model: str, word: str) -> dict[str, object]:
        """What a sample depends on besides its prompt and its seed."""
        return {"model": model, "word": word, "steps": self.steps, "guidance": self.guidance, "resolution": self.side}

    def file(self, folder: Path, text: str, seed: int) -> Path:
        """The digest keeps apart what differs only in characters that a file name cannot show."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        return folder / f"{file_name(text)}-{digest}-{seed:04d}.png"

    def files(self, folder: Path, text: str) -> list[Path]:
        return [self.file(folder, text, seed) for seed in self.seeds]


def folder_of(folder: Path, settings: dict[str, object]) -> Path:
    """Makes or takes up a folder of samples. Raises UserError where it holds those of other settings."""
    file = folder / SETTINGS
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        changes = [f"{k} {there.get(k)}, now {v}" for k, v in settings.items() if there.get(k) != v]
        if changes:
            raise UserError(
                f"The samples in '{folder}' are of another run: {'; '.join(changes)}. Give the settings of that run, "
                "another --out, or delete the folder."
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(settings, indent=1).encode())
    return folder


def sample_missing(
    host: Host, prompt: Prompt, embeddings: Embeddings, text: str, sampling: Sampling, folder: Path
) -> Iterator[int]:
    """Samples one prompt with those seeds that have no file yet, a batch at a time; yields how many were written."""
    missing = [seed for seed in sampling.seeds if not sampling.file(folder, text, seed).is_file()]
    for start in range(0, len(missing), sampling.batch_size):
        seeds = tuple(missing[start : start + sampling.batch_size])
        request = SampleRequest(
            (prompt,) * len(seeds), seeds, sampling.side, sampling.side, sampling.steps, sampling.guidance
        )
        for seed, picture in zip(seeds, host.sample(request, embeddings), strict=True):
            data = io.BytesIO()
            picture.save(data, "PNG")
            write_atomically(sampling.file(folder, text, seed), data.getvalue())
        yield len(seeds)


def read(files: Sequence[Path]) -> list[Image.Image]:
    """RGB pictures, wholly in memory."""
    pictures = []
    for path in files:
        with Image.open(path) as picture:
            pictures.append(picture.convert("RGB"))
    return pictures
