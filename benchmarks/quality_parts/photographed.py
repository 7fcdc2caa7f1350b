"""A real model, and folders of photographs as in DreamBooth's dataset, judged in the spaces of CLIP and DINOv2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.data.listing import subfolders
from ti_train.data.picture import Picture
from ti_train.errors import UserError
from ti_train.evaluation.clip import Clip, without_placeholder
from ti_train.evaluation.dino import Dino
from ti_train.evaluation.evaluate import PAPERS_PROMPTS
from ti_train.evaluation.measures import Features, Measure, further_measures, measured, others
from ti_train.host import Embeddings
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.prompts import PLACEHOLDER
from ti_train.text import Remarks

from .pictures import Judged, Question
from .worlds import WORD, Concept

CLASSES = "prompts_and_classes.txt"  # DreamBooth's list; its lines begin with "FOLDER,CLASS"


class Photographed:
    """Every subfolder of `photographs` is a concept.

    Fidelity, also under an edit: the mean cosine similarity to its images, in DINOv2's space if it is given, else in
    CLIP's. Edit shown: that to the prompt's text, in CLIP's.
    """

    def __init__(
        self, model: Path, photographs: Path, clip: Clip, dino: Dino | None, device: str, dtype: str, few: bool
    ) -> None:
        self.name, self.model, self.few = model.stem, model, few
        self.words: Embeddings = {}
        self.host = DiffusersHost.load(model, device, dtype)
        self.clip = clip.to(self.host.device)
        self.dino = dino and dino.to(self.host.device)
        self.features: Features = self.dino.features if self.dino else self.clip.features
        self.concepts: Mapping[str, Concept] = concepts_in(photographs)
        self.images = {name: self._read(concept) for name, concept in self.concepts.items()}
        self.seen: dict[str, tuple[Tensor, list[Measure]]] = {}  # what is computed of a concept's images once

    def _read(self, concept: Concept) -> list[Picture]:
        return list(read_pictures(find_pictures(concept.folder), self.host.resolution, Remarks()))

    def _see(self, concept: Concept) -> tuple[Tensor, list[Measure]]:
        """The features of the concept's images, and what else samples are compared with."""
        own, dino = self.images[concept.name], self.dino.features if self.dino else None
        everything = (Image.fromarray(p.pixels) for pictures in self.images.values() for p in pictures)
        measures = further_measures(own, others(own, everything), self.clip.features, dino)
        return self.features([Image.fromarray(p.pixels) for p in own]), measures

    def questions(self, concept: Concept) -> Sequence[Question]:  # noqa: ARG002 - the same for all
        prompts, times = PAPERS_PROMPTS["object"], 1 if self.few else 2
        edits = list(prompts.edits) * times
        plain = [named(prompts.plain)] * 8 * times
        return [Question("plain", plain, ()), Question("edits", [named(edit) for edit in edits], edits)]

    def judged(self, concept: Concept, question: Question, pictures: Sequence[Image.Image]) -> list[Judged]:
        if concept.name not in self.seen:
            self.seen[concept.name] = self._see(concept)
        own, measures = self.seen[concept.name]
        likeness = cosines(self.features(pictures), own)
        if question.name == "plain":
            further = measured(measures, pictures)
            return [Judged(value, None, further) for value in likeness]
        texts = [self.clip.text_features(without_placeholder(asked)) for asked in question.asked]
        seen = self.clip.features(pictures)
        return [Judged(k, float(s @ text)) for k, s, text in zip(likeness, seen, texts, strict=True)]


def named(prompt: str) -> str:
    return prompt.replace(PLACEHOLDER, f"<{WORD}>")


def cosines(samples: Tensor, images: Tensor) -> list[float]:
    """Of each sample [N, D] the mean cosine similarity to images [M, D], of unit norm."""
    means: list[float] = (samples @ images.T).mean(1).tolist()
    return means


def concepts_in(photographs: Path) -> dict[str, Concept]:
    """The folder's subfolders. The initial text of each is its class in DreamBooth's list, else the words of its name.

    Raises UserError if there are none.
    """
    listed = photographs / CLASSES
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    classes = dict(line.strip().split(",", 1) for line in lines if line.count(",") == 1)
    concepts = {}
    for folder in subfolders(photographs):
        words = "".join(letter if letter.isalpha() else " " for letter in folder.name)
        concepts[folder.name] = Concept(folder.name, folder, classes.get(folder.name) or " ".join(words.split()))
    if not concepts:
        raise UserError(
            f"'{photographs}' has no subfolders with images, one for each subject, such as {photographs}/dog."
        )
    return concepts
