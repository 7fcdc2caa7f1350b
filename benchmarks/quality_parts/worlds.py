"""Where embeddings are trained and judged: a model, concepts that no word of it names, a judge that knows the truth."""

from __future__ import annotations

import cmath
import importlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from PIL import Image

from demo import concepts as drawn
from demo.judge import SHAPES, solid
from demo.measure import edit_shown, fidelity, pair_fidelity, pixels, read, segment
from demo.world import BACKGROUNDS
from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.formats import load_embedding
from ti_train.host import Embeddings, SampleRequest, Vectors
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.prompts import parse
from ti_train.text import Remarks

from .pictures import Judged, Question

ROOT = Path(__file__).resolve().parents[2]
WORD = "word"  # the embedding's name in prompts
STEPS, GUIDANCE, AT_ONCE = 20, 4.0, 16


@dataclass(frozen=True)
class Concept:
    """What is to be learnt: a folder of its images, the initial text, and whether it is a style."""

    name: str
    folder: Path
    init: str
    style: bool = False


class World(Protocol):
    """A model with concepts and a judge."""

    name: str
    model: Path  # a folder that diffusers loads
    host: DiffusersHost
    concepts: Mapping[str, Concept]
    words: Embeddings  # that questions name besides the one that is judged
    few: bool  # half the pictures

    def questions(self, concept: Concept) -> Sequence[Question]: ...

    def judged(self, concept: Concept, question: Question, pictures: Sequence[Image.Image]) -> list[Judged]: ...


def answers(world: World, concept: Concept, vectors: Vectors) -> Iterator[tuple[Question, list[Judged]]]:
    """Samples what the concept's questions ask for, and judges it."""
    words = {**world.words, WORD: vectors}
    for question in world.questions(concept):
        prompts, side = [parse(prompt, words) for prompt in question.prompts], world.host.resolution
        pictures: list[Image.Image] = []
        for first in range(0, len(prompts), AT_ONCE):
            part = tuple(prompts[first : first + AT_ONCE])
            seeds = tuple(range(question.seed + first, question.seed + first + len(part)))
            pictures += world.host.sample(SampleRequest(part, seeds, side, side, STEPS, GUIDANCE), words)
        yield question, world.judged(concept, question, pictures)


def ceiling(world: World, concept: Concept) -> float:
    """The fidelity of the concept's own images, encoded and decoded: a training sees nothing but the latents."""
    judged = world.judged(concept, world.questions(concept)[0], decoded(world.host, concept))
    return fmean(one.fidelity or 0.0 for one in judged)


@torch.inference_mode()
def decoded(host: DiffusersHost, concept: Concept) -> list[Image.Image]:
    """What the model's autoencoder leaves of the concept's images."""
    left = []
    for picture in read_pictures(find_pictures(concept.folder), host.resolution, Remarks()):
        pixels = torch.tensor(picture.pixels).permute(2, 0, 1)[None].to(host.vae.device, host.vae.dtype) / 127.5 - 1
        encoded = host.vae.encode(pixels)
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        shown = host.vae.decode(latents).sample[0].clamp(-1, 1).float().cpu().permute(1, 2, 0)
        left.append(Image.fromarray(((shown + 1) * 127.5).round().byte().numpy()))
    return left


# An initial text of two tokens beside those of one; hues that no colour's name is near; styles.
EMBEDDED = {
    "teal-heart": "",
    "lime-star": "",
    "violet-arrow": "",
    "spring-ring": "green ring",
    "magenta-moon": "",
    "rose-drop": "",
    "dusk-lines": "",
    "woodcut": "",
}


class Embedded:
    """The model of demo/, and its judge of pixels."""

    name, model = "embedded", ROOT / "demo/model"

    def __init__(self, scratch: Path, device: str, dtype: str, few: bool) -> None:
        self.host, self.few = DiffusersHost.load(self.model, device, dtype), few
        self.truths: dict[str, drawn.Concept] = {}
        self.concepts: dict[str, Concept] = {}
        for name, init in EMBEDDED.items():
            truth = drawn.CONCEPTS[name]
            drawn.write(truth, scratch / "concepts" / self.name / name)
            self.truths[name] = truth
            folder = scratch / "concepts" / self.name / name
            self.concepts[name] = Concept(name, folder, init or truth.init, truth.kind == "style")
        self.words: Embeddings = {
            path.stem: load_embedding(path).fitted_to(self.host.widths)
            for path in sorted((ROOT / "demo/words").glob("*.safetensors"))
        }

    def questions(self, concept: Concept) -> Sequence[Question]:
        times = 1 if self.few else 2
        plain = self.truths[concept.name].plain_prompt.format(f"<{WORD}>")
        if concept.style:
            asked = [(f"{text.replace('*', f'<{WORD}>')}", shape) for text, shape in SHAPES.items()] * 2 * times
            return [
                Question("plain", [plain] * 8 * times, ()),
                Question("shape", [prompt for prompt, _ in asked], [shape for _, shape in asked]),
            ]
        other = "magenta-moon" if concept.name != "magenta-moon" else "teal-heart"
        styles = ["sketch", "neon"] * 2 * times
        phrases = {"sketch": "a sketch of a", "neon": "a neon sign of a"}
        return [
            Question("plain", [plain] * 8 * times, ()),
            Question("background", [f"{plain} on a {place} background" for place in BACKGROUNDS], list(BACKGROUNDS)),
            Question("style", [f"{phrases[style]} <{WORD}>" for style in styles], styles),
            Question("beside", [f"{plain} beside a <{other}>"] * 4 * times, [other] * 4 * times),
        ]

    def judged(self, concept: Concept, question: Question, pictures: Sequence[Image.Image]) -> list[Judged]:
        truth = self.truths[concept.name]
        if question.name == "plain":
            return [Judged(fidelity(picture, truth), None) for picture in pictures]
        if question.name == "shape":
            readings = [read(image, solid(segment(image))) for image in map(pixels, pictures)]
            kept = [fidelity(picture, truth) for picture in pictures]
            return [Judged(k, float(r.shape == s)) for k, r, s in zip(kept, readings, question.asked, strict=True)]
        if question.name == "beside":
            pairs = [pair_fidelity(picture, truth, drawn.CONCEPTS[question.asked[0]]) for picture in pictures]
            return [Judged(own, other) for own, other in pairs]
        shown = [edit_shown(p, **{question.name: asked}) for p, asked in zip(pictures, question.asked, strict=True)]
        kept_under = [
            None if asked == "neon" else fidelity(p, truth) for p, asked in zip(pictures, question.asked, strict=True)
        ]
        return [Judged(k, float(s)) for k, s in zip(kept_under, shown, strict=True)]


LEFT = "of what the autoencoder leaves"  # of the concept's images: all that a training sees of them
# name: (shape, hue in turns, texture, initial text), hidden from the captions; "hexagon" has two of CLIP's tokens.
DRAWN = {
    "jade-heart": ("heart", 0.47, "plain", "heart"),
    "lime-star": ("star", 0.22, "checkered", "star"),
    "indigo-arrow": ("arrow", 0.69, "plain", "arrow"),
    "coral-ring": ("ring", 0.035, "checkered", "ring"),
    "olive-hexagon": ("hexagon", 0.235, "plain", "hexagon"),
    "azure-flower": ("flower", 0.54, "plain", "flower"),
}


class Drawn:
    """A drawn world in a folder of its own: assemble.py writes the model, concepts.py images, judge.py judges."""

    def __init__(self, folder: Path, scratch: Path, device: str, dtype: str, few: bool) -> None:
        self.name, self.few = folder.resolve().name, few
        self.words: Embeddings = {}
        model = scratch / self.name
        with modules_of(folder, "assemble", "concepts", "judge") as (assemble, concepts, judge):
            if not (model / "diffusers").exists():
                tokenizer = importlib.import_module("tokenizer").write(model / "tokenizer")
                assemble.diffusers(model / "diffusers", str(tokenizer))
            concepts.write(scratch / "concepts" / self.name, DRAWN)
            self.judge, self.reader = judge, judge.load()
        self.model = model / "diffusers"
        self.host = DiffusersHost.load(self.model, device, dtype)
        self.concepts = {
            name: Concept(name, scratch / "concepts" / self.name / name, init) for name, (*_, init) in DRAWN.items()
        }
        self.truths = {name: self._truth(concept) for name, concept in self.concepts.items()}

    def _truth(self, concept: Concept) -> tuple[dict[str, Any], dict[str, Any]]:
        """That of the concept, and with the hue that the autoencoder leaves of its images."""
        truth: dict[str, Any] = json.loads((concept.folder / "concept.json").read_text())
        hues = [report["hue"] for report in self.judge.judge(decoded(self.host, concept), self.reader)]
        mean = sum(cmath.rect(1, math.tau * hue) for hue in hues)
        return truth, truth | {"hue": cmath.phase(mean) / math.tau % 1}

    def questions(self, concept: Concept) -> Sequence[Question]:
        times, edits = 1 if self.few else 2, self.truths[concept.name][0]["edits"]
        places = [text.rsplit(" on a ", 1)[1].split()[0] for text in edits["background"]]
        styles = ["sketch", "neon"] * 2 * times
        return [
            Question("plain", [f"a photo of a <{WORD}>"] * 8 * times, ()),
            Question("background", [text.format(f"<{WORD}>") for text in edits["background"]], places),
            Question("style", [text.format(f"<{WORD}>") for text in edits["style"]] * 2 * times, styles),
        ]

    def judged(self, concept: Concept, question: Question, pictures: Sequence[Image.Image]) -> list[Judged]:
        (truth, left), reports = self.truths[concept.name], self.judge.judge(list(pictures), self.reader)
        found = [self.judge.fidelity(report, truth) for report in reports]
        if question.name == "plain":
            seen = [self.judge.fidelity(report, left) for report in reports]
            return [Judged(value, None, {LEFT: one}) for value, one in zip(found, seen, strict=True)]
        shown = [report[question.name][asked] for report, asked in zip(reports, question.asked, strict=True)]
        return [Judged(None if question.name == "style" else f, s) for f, s in zip(found, shown, strict=True)]


@contextmanager
def modules_of(folder: Path, *names: str) -> Iterator[tuple[Any, ...]]:
    """Modules of a folder that is no package."""
    sys.path.insert(0, str(folder))
    try:
        yield tuple(importlib.import_module(name) for name in names)
    finally:
        sys.path.remove(str(folder))
