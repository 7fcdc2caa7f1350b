"""Concepts to learn, which no word of the grammar names: objects of in-between hues, new artists.

usage: python -m demo.concepts [--all]      writes demo/concepts/<name>/{0..4}.png and concept.json
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .grammar import TOY, figure, random_hue
from .world import BACKGROUNDS, SHAPES, TEXTURES, Artist, Figure, Scene, render

HERE = Path(__file__).parent / "concepts"
PICTURES = 5


@dataclass(frozen=True)
class Variety:
    """Things of any shape, hue and texture, in place of the one figure that a biased word mostly shows."""

    biased: Figure


@dataclass(frozen=True)
class Concept:
    """What a concept truly is, a figure (object), an artist (style) or a variety, and a coarse word for it."""

    name: str
    init: str
    truth: Figure | Artist | Variety

    @property
    def kind(self) -> str:
        """The learnable property: "object", "style" or "variety"."""
        return {Figure: "object", Artist: "style", Variety: "variety"}[type(self.truth)]

    @property
    def plain_prompt(self) -> str:
        """Asks for the concept and nothing else; {} is its word."""
        return "a painting in the style of {}" if self.kind == "style" else "a photo of a {}"


def _object(name: str, shape: str, hue: float, texture: str = "plain") -> Concept:
    return Concept(name, shape, Figure(shape, hue, texture))


CONCEPTS = {
    c.name: c
    for c in (
        _object("teal-heart", "heart", 0.47),
        _object("lime-star", "star", 0.225, "checkered"),
        _object("violet-arrow", "arrow", 0.695, "striped"),
        _object("spring-ring", "ring", 0.40),
        _object("magenta-moon", "moon", 0.84),
        _object("rose-drop", "drop", 0.955, "checkered"),
        Concept("dusk-lines", "drawing", Artist((92, 64, 132), (255, 196, 120), "outline")),
        Concept("woodcut", "drawing", Artist((238, 222, 190), (44, 30, 28), "hatched")),
        Concept("mint-hatch", "drawing", Artist((188, 232, 204), (168, 52, 40), "hatched")),
        Concept("fair-toy", "toy", Variety(TOY)),
    )
}
SHIPPED = (
    "teal-heart", "lime-star", "violet-arrow", "magenta-moon", "rose-drop", "dusk-lines", "woodcut", "fair-toy",
)  # fmt: skip


def scenes(concept: Concept, count: int = PICTURES) -> list[Scene]:
    """Scenes of the concept: an object before several backgrounds, a style on several shapes, a variety of things."""
    rng = random.Random(concept.name)
    if isinstance(concept.truth, Artist):
        shapes = rng.sample(SHAPES, count)
        looks = [{"shape": s, "hue": random_hue(rng), "texture": rng.choice(TEXTURES)} for s in shapes]
        return [Scene((figure(rng, look),), style=concept.truth) for look in looks]
    if isinstance(concept.truth, Variety):
        return [
            Scene((figure(rng, {"shape": shape, "hue": (i + rng.random()) / count}),), background)
            for i, (shape, background) in enumerate(
                zip(rng.sample(SHAPES, count), rng.sample(list(BACKGROUNDS), count), strict=True)
            )
        ]
    truth = concept.truth
    fixed: dict[str, str | float] = {
        "shape": truth.shape,
        "hue": truth.hue,
        "texture": truth.texture,
    }
    return [Scene((figure(rng, fixed),), b) for b in rng.sample(list(BACKGROUNDS), count)]


def load(path: Path) -> Concept:
    """Reads a concept back from its concept.json."""
    entry = json.loads(path.read_text())
    truth = entry["truth"]
    if entry["kind"] == "style":
        artist = Artist(tuple(truth["paper"]), tuple(truth["ink"]), truth["manner"])
        return Concept(entry["name"], entry["init"], artist)
    if entry["kind"] == "variety":
        return Concept(entry["name"], entry["init"], Variety(_figure(truth["biased"])))
    return Concept(entry["name"], entry["init"], _figure(truth))


def _figure(truth: dict[str, Any]) -> Figure:
    return Figure(truth["shape"], truth["hue"], truth["texture"])


def write(concept: Concept, folder: Path) -> None:
    """Writes the concept's pictures and its ground truth."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = scenes(concept)
    for i, scene in enumerate(shown):
        render(scene).save(folder / f"{i}.png")
    entry = {
        "name": concept.name,
        "kind": concept.kind,
        "init": concept.init,
        "truth": asdict(concept.truth),
        "scenes": [asdict(replace(s, style="photo")) if concept.kind != "style" else asdict(s) for s in shown],
    }
    (folder / "concept.json").write_text(json.dumps(entry, indent=1) + "\n")


def main() -> None:
    """Writes the shipped concepts, or all of the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="the whole table, not only the shipped ones")
    args = parser.parse_args()
    for name in CONCEPTS if args.all else SHIPPED:
        write(CONCEPTS[name], HERE / name)


if __name__ == "__main__":
    main()
