"""Samples as files, one for each prompt and seed, so that an interrupted evaluation loses none."""

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
from ..text import json_value

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Sampling:
    """`number` images per prompt of side x side pixels, with consecutive seeds; the paper's values by default."""

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

    def request(
        self, host: Host, prompts: tuple[Prompt, ...], seeds: tuple[int, ...], negative: Prompt = ("",)
    ) -> SampleRequest:
        """Images of these prompts, with the sampler and scheduler that suit the model's family."""
        own, side = host.sampling, self.side
        return SampleRequest(
            prompts, seeds, side, side, self.steps, self.guidance, negative, own.sampler, own.scheduler
        )

    def settings(self, host: Host, embedding: str) -> dict[str, object]:
        """What a sample depends on besides prompt and seed. embedding: its fingerprint."""
        return {
            "model": host.fingerprint,
            "settings": host.settings,
            "prediction": host.prediction,
            "word": embedding,
            "steps": self.steps,
            "guidance": self.guidance,
            "resolution": self.side,
        }

    def file(self, folder: Path, text: str, seed: int) -> Path:
        """The path of a sample; the digest separates prompts with the same file name."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        return folder / f"{file_name(text)}-{digest}-{seed:04d}.png"

    def files(self, folder: Path, text: str) -> list[Path]:
        return [self.file(folder, text, seed) for seed in self.seeds]


def folder_of(folder: Path, settings: dict[str, object]) -> Path:
    """Creates a folder of samples, or checks an existing one. Raises UserError if its settings differ.

    Those that the folder's version did not record are taken for the same, and recorded.
    """
    file, there = folder / SETTINGS, dict[str, object]()
    if file.is_file():
        try:
            there = dict(json_value(file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise UserError(f"'{file}' is damaged ({error}). Delete the folder, or use another --out.") from None
        changes = [f"{k} {there[k]}, now {v}" for k, v in settings.items() if there.get(k, v) != v]
        if changes:
            raise UserError(
                f"The samples in '{folder}' were made with other settings: {'; '.join(changes)}. Use the same settings "
                "or another --out, or delete the folder."
            )
    if there.keys() < settings.keys():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(settings, indent=1).encode())
    return folder


def sample_missing(
    host: Host, prompt: Prompt, embeddings: Embeddings, text: str, sampling: Sampling, folder: Path
) -> Iterator[int]:
    """Samples a prompt with the seeds that have no file yet; yields the number of files written after each batch."""
    missing = [seed for seed in sampling.seeds if not sampling.file(folder, text, seed).is_file()]
    for start in range(0, len(missing), sampling.batch_size):
        seeds = tuple(missing[start : start + sampling.batch_size])
        request = sampling.request(host, (prompt,) * len(seeds), seeds)
        for seed, picture in zip(seeds, host.sample(request, embeddings), strict=True):
            data = io.BytesIO()
            picture.save(data, "PNG")
            write_atomically(sampling.file(folder, text, seed), data.getvalue())
        yield len(seeds)


def read(files: Sequence[Path]) -> list[Image.Image]:
    """Loads images as RGB."""
    pictures = []
    for path in files:
        with Image.open(path) as picture:
            pictures.append(picture.convert("RGB"))
    return pictures
