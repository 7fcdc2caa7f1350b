"""How faithful and how editable a learnt word is, as its paper measures it (Gal et al. 2022, section 5).

Two figures, which pull against each other. Image similarity: the mean cosine, in CLIP's space, between samples of "a
photo of *" and the training pictures. Text similarity: for each edit prompt, the cosine between the samples' mean and
the prompt without its placeholder. Either alone misleads: a word that copies its pictures scores high in the first, one
that means nothing in the second, so both are told, with two references beside them: the initial word (what the
model knew before) and the training pictures themselves (what a perfect copy would score).

Samples become files in samples.py, tables and the plot are made in scores.py. The judge is CLIP (clip.py), or another
that a caller brings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from ..data.dataset import read_pictures
from ..embedding import Embedding
from ..errors import UserError
from ..files import file_name
from ..formats import config_of, names_file
from ..host import Embeddings, Host, Prompt, Vectors
from ..prompts import PLACEHOLDER, slots
from .samples import Sampling, folder_of, read, sample_missing
from .scores import Score


@dataclass(frozen=True)
class EvaluationPrompts:
    """What is sampled: one prompt for the image similarity, edits for the text similarity; `*` is the word."""

    plain: str
    edits: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((self.plain, *self.edits)))

    def with_edits(self, file: Path) -> EvaluationPrompts:
        """The edits of a text file, one a line. Raises UserError."""
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The prompts '{file}' cannot be read as UTF-8 text ({error}).") from None
        edits = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
        for line in edits:
            if PLACEHOLDER not in line:
                raise UserError(
                    f"'{line}' in '{file}' lacks {PLACEHOLDER}. Write {PLACEHOLDER} where the word belongs."
                )
        if not edits:
            raise UserError(f"'{file}' has no prompts. Write one a line, such as: an oil painting of {PLACEHOLDER}")
        return EvaluationPrompts(self.plain, edits)


# Section 5 names the first three edits of an object; the others are captions of the paper's figures.
PAPERS_PROMPTS = {
    "object": EvaluationPrompts(
        "a photo of *",
        (
            "a photo of * on the moon",
            "an oil painting of *",
            "Elmo holding a *",
            "app icon of *",
            "crochet *",
            "Banksy art of *",
            "a * backpack",
            "a * themed lunchbox",
        ),
    ),
    "style": EvaluationPrompts(
        "a painting in the style of *",
        (
            "the streets of Paris in the style of *",
            "adorable corgi in the style of *",
            "painting of a black hole in the style of *",
            "Times Square in the style of *",
        ),
    ),
}


@dataclass(frozen=True)
class Subject:
    """What stands in the placeholder's place: a learnt word's vectors, or plain text (an initial word)."""

    label: str
    content: Vectors | str

    @property
    def kind(self) -> str:
        return "initial word" if isinstance(self.content, str) else "word"

    @property
    def folder(self) -> str:
        """A word's file name names its folder; plain text may hold what no file name can."""
        return f"initial-{file_name(self.content)}" if isinstance(self.content, str) else self.label

    @property
    def embeddings(self) -> Embeddings:
        return {} if isinstance(self.content, str) else {PLACEHOLDER: self.content}

    @property
    def fingerprint(self) -> str:
        """Tells one word from another that has the same name."""
        if isinstance(self.content, str):
            return self.content
        digest = hashlib.sha256()
        for encoder, vectors in sorted(self.content.items()):
            digest.update(encoder.encode() + vectors.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def prompt(self, text: str) -> Prompt:
        if isinstance(self.content, str):
            return (text.replace(PLACEHOLDER, self.content),)
        return slots(text, {PLACEHOLDER: PLACEHOLDER})


def initial_texts(embeddings: Iterable[Embedding], init: str) -> list[Subject]:
    """`init`, or where it is "" what the embeddings say they began with, each once; a file to begin with is no word."""
    told = [str(config_of(embedding).get("init", "")) for embedding in embeddings]
    texts = [init] if init else [text for text in dict.fromkeys(told) if text and not names_file(text)]
    return [Subject(text, text) for text in texts]


def training_pictures(files: Sequence[Path], side: int, warn: list[str]) -> list[Image.Image]:
    """Cropped as for training; names in `warn` what cannot be used. Raises UserError when none is left."""
    pictures = [Image.fromarray(picture.pixels) for picture in read_pictures(files, side, warn)]
    if not pictures:
        raise UserError("None of the training pictures can be used. Give the folder that the word was learnt from.")
    return pictures


class Judge(Protocol):
    """Compares samples with the training pictures, which it holds, and with texts. Every figure: higher is better."""

    name: str
    pictures: Sequence[Image.Image]

    def image_similarity(self, samples: Sequence[Image.Image]) -> float: ...

    def text_similarity(self, samples: Sequence[Image.Image], prompt: str) -> float: ...

    def similarity_of_pictures(self) -> float:
        """The image similarity of the training pictures among themselves."""


@dataclass(frozen=True)
class Sampled:
    """So many of all samples are on disk."""

    done: int
    total: int


def evaluate(
    host: Host, subjects: Sequence[Subject], judge: Judge, prompts: EvaluationPrompts, sampling: Sampling, out: Path
) -> Iterator[Sampled | Score]:
    """Yields each subject's score as it is known, the training pictures' first, and Sampled between.

    Samples are files under `out`: those that are there already are not sampled again, so the call may be stopped at
    any point and made anew. Raises UserError where the files there were made with other settings.
    """
    folders = [folder_of(out / s.folder, sampling.settings(host.fingerprint, s.fingerprint)) for s in subjects]
    done = sum(path.is_file() for folder in folders for text in prompts for path in sampling.files(folder, text))
    total = len(subjects) * len([*prompts]) * sampling.number
    yield Sampled(done, total)
    own = {text: judge.text_similarity(judge.pictures, text) for text in prompts.edits}
    yield Score("training pictures", "training pictures", judge.similarity_of_pictures(), own)
    for subject, folder in zip(subjects, folders, strict=True):
        for text in prompts:
            for written in sample_missing(host, subject.prompt(text), subject.embeddings, text, sampling, folder):
                done += written
                yield Sampled(done, total)
        image = judge.image_similarity(read(sampling.files(folder, prompts.plain)))
        edits = {text: judge.text_similarity(read(sampling.files(folder, text)), text) for text in prompts.edits}
        yield Score(subject.label, subject.kind, image, edits)
