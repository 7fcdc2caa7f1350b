"""Fidelity and editability of an embedding, measured as in the paper (Gal et al. 2022, section 5).

Image similarity is the mean cosine similarity in CLIP space between samples of "a photo of *" and the training images.
Text similarity is the cosine similarity between the mean of an edit prompt's samples and the prompt without its
placeholder. There is a trade-off: an embedding that copies its images scores high in the first only, an embedding
without effect in the second only. So both are reported, with two references: the initial text (the model before
training) and the training images themselves (a perfect copy).

samples.py writes the samples, scores.py the tables and the plot. The judge is CLIP (clip.py) or given by the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..data.dataset import read_pictures
from ..embedding import Embedding
from ..errors import UserError
from ..files import file_name
from ..formats import config_of, names_file
from ..host import Embeddings, Host, Prompt, Vectors
from ..names import LONGEST, OldName
from ..prompt_check import TokenCounter, unknown_marks
from ..prompts import PLACEHOLDER, slots
from ..text import Remarks, unicode_text, with_rest
from ..user_files import text_bytes
from .measures import Measure, measured
from .samples import Sampling, folder_of, read, sample_missing
from .scores import Score, name_of


@dataclass(frozen=True)
class EvaluationPrompts:
    """The prompts to sample: one for image similarity, edits for text similarity; `*` is the embedding."""

    plain: str
    edits: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((self.plain, *self.edits)))

    def with_edits(self, file: Path) -> EvaluationPrompts:
        """A copy with the edits of a text file, one per line. Raises UserError."""
        try:
            lines = unicode_text(text_bytes(file)).splitlines()
        except UserError as error:
            raise UserError(f"The prompt file '{file}' {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The prompt file '{file}' cannot be read as UTF-8 or UTF-16 text ({error}).") from None
        return self.with_lines(lines, f"'{file}'")

    def with_lines(self, lines: Iterable[str], source: str) -> EvaluationPrompts:
        """A copy with these edits. source: where they are, for messages. Raises UserError."""
        return EvaluationPrompts(self.plain, prompt_lines(lines, source))


def prompt_lines(lines: Iterable[str], source: str) -> tuple[str, ...]:
    """The prompts of a text, each once. Raises UserError for one without the placeholder, and if there are none."""
    prompts = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    for line in prompts:
        if PLACEHOLDER not in line:
            raise UserError(
                f"'{line}' in {source} lacks {PLACEHOLDER}. Write {PLACEHOLDER} where the embedding belongs."
            )
    if not prompts:
        raise UserError(f"{source} has no prompts. Write one per line, such as: an oil painting of {PLACEHOLDER}")
    return prompts


# The first three object edits are from section 5, the others from captions of the paper's figures.
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


def folder_name(embedding: str) -> str:
    """A folder for an embedding's results: its name, as far as that is a file name. Its file may say anything."""
    fits = OldName(embedding).is_file_name and len(embedding.encode()) <= LONGEST
    return embedding if fits else file_name(embedding)


@dataclass(frozen=True)
class Subject:
    """What replaces the placeholder: an embedding's vectors, or plain text (an initial text)."""

    label: str
    content: Vectors | str

    @property
    def kind(self) -> str:
        return "initial word" if isinstance(self.content, str) else "word"

    @property
    def name(self) -> str:
        """As shown to the user."""
        return name_of(self.label, self.kind)

    @property
    def folder(self) -> str:
        """Name of its folder of samples, from the embedding's name or the text."""
        return f"initial-{file_name(self.content)}" if isinstance(self.content, str) else folder_name(self.label)

    @property
    def embeddings(self) -> Embeddings:
        return {} if isinstance(self.content, str) else {PLACEHOLDER: self.content}

    @property
    def fingerprint(self) -> str:
        """Identifies the vectors or the text."""
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
    """References for `init`, or if it is "" for the initial texts of the embeddings; initial files are ignored."""
    recorded = [str(config_of(embedding).get("init", "")) for embedding in embeddings]
    texts = [init] if init else [text for text in dict.fromkeys(recorded) if text and not names_file(text)]
    return [Subject(text, text) for text in texts]


def training_pictures(files: Sequence[Path], side: int, warn: Remarks) -> list[Image.Image]:
    """Reads images cropped as for training; appends to `warn` what cannot be used. Raises UserError if none is left."""
    pictures = [Image.fromarray(picture.pixels) for picture in read_pictures(files, side, warn)]
    if not pictures:
        why = "None of the training images can be used. Give the folder that the embedding was trained on."
        raise UserError(why, *with_rest(warn))
    return pictures


def prompt_remarks(host: Host, embeddings: Iterable[Embedding], prompts: Iterable[str], what: str) -> list[str]:
    """What of prompts is not read as it was meant with the longest of the embeddings. what: "prompt", for messages."""
    longest = max(embedding.num_vectors for embedding in embeddings)
    counter, remarks = TokenCounter(host, {PLACEHOLDER: longest}), []
    for text in prompts:
        prompt, which = slots(text, {PLACEHOLDER: PLACEHOLDER}), f"{what} '{text}'"
        remarks += counter.remarks(prompt, f"The {which}")
        remarks += unknown_marks(prompt, [PLACEHOLDER], f"the {which}", host.known_marks)
    return remarks


NO_REFERENCE = "The embeddings have no initial text, so there is no row for it."


class Judge(Protocol):
    """Compares samples with the training images and with texts. For all measures higher is better."""

    name: str
    pictures: Sequence[Image.Image]

    def image_similarity(self, samples: Sequence[Image.Image]) -> float: ...

    def text_similarity(self, samples: Sequence[Image.Image], prompt: str) -> float: ...

    def similarity_of_pictures(self) -> float:
        """The image similarity among the training images."""


def settings_of(host: Host, judge: Judge, sampling: Sampling, prompts: EvaluationPrompts) -> dict[str, Any]:
    """What the scores depend on besides the embeddings and their images."""
    model = {"model": host.fingerprint, "settings": host.settings, "prediction": host.prediction}
    return {"judge": judge.name, **model, **asdict(sampling), "prompts": list(prompts)}


@dataclass(frozen=True)
class Sampled:
    """Progress: `done` of `total` samples are on disk."""

    done: int
    total: int


def evaluate(
    host: Host,
    subjects: Sequence[Subject],
    judge: Judge,
    prompts: EvaluationPrompts,
    sampling: Sampling,
    out: Path,
    measures: Sequence[Measure] = (),
) -> Iterator[Sampled | Score]:
    """Yields the score of the training images, then of each subject, with Sampled in between.

    measures: of the samples of the plain prompt, beside the judge's.

    Samples are files in `out`; existing ones are not sampled again, so an interrupted evaluation can be continued.
    Raises UserError if the existing files were made with other settings.
    """
    folders = [folder_of(out / s.folder, sampling.settings(host, s.fingerprint)) for s in subjects]
    done = sum(path.is_file() for folder in folders for text in prompts for path in sampling.files(folder, text))
    total = len(subjects) * len([*prompts]) * sampling.number
    yield Sampled(done, total)
    own = {text: judge.text_similarity(judge.pictures, text) for text in prompts.edits}
    references = {measure.name: measure.of_pictures for measure in measures}
    yield Score("training pictures", "training pictures", judge.similarity_of_pictures(), own, references)
    for subject, folder in zip(subjects, folders, strict=True):
        for text in prompts:
            for written in sample_missing(host, subject.prompt(text), subject.embeddings, text, sampling, folder):
                done += written
                yield Sampled(done, total)
        plain = read(sampling.files(folder, prompts.plain))
        edits = {text: judge.text_similarity(read(sampling.files(folder, text)), text) for text in prompts.edits}
        yield Score(subject.label, subject.kind, judge.image_similarity(plain), edits, measured(measures, plain))
