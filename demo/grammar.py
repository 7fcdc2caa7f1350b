"""The demo world's language: captions and the scenes they describe, nouns for whole objects."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .world import ARTISTS, BACKGROUNDS, HUES, MANNERS, SHAPES, TEXTURES, Artist, Figure, Scene

JITTER = 0.015  # how far, in turns, a figure's hue may lie from its colour word's
KEEP_AWAY = 0.036  # no noun's hue comes nearer than this to a held-out one
HELD_OUT_HUES = (0.225, 0.40, 0.47, 0.695, 0.84, 0.955)  # of the concepts: no word names them

OBJECT_TEMPLATES = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}",
    "a photo of a clean {}", "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}",
    "a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}",
    "a cropped photo of a {}", "a photo of the {}", "a good photo of the {}", "a photo of one {}",
    "a close-up photo of the {}", "a rendition of the {}", "a photo of the clean {}",
    "a rendition of a {}", "a photo of a nice {}", "a good photo of a {}", "a photo of the nice {}",
    "a photo of the small {}", "a photo of the weird {}", "a photo of the large {}",
    "a photo of a cool {}", "a photo of a small {}",
)  # fmt: skip
STYLE_TEMPLATES = (
    "a painting in the style of {}", "a rendering in the style of {}",
    "a cropped painting in the style of {}", "the painting in the style of {}",
    "a clean painting in the style of {}", "a dirty painting in the style of {}",
    "a dark painting in the style of {}", "a picture in the style of {}",
    "a cool painting in the style of {}", "a close-up painting in the style of {}",
    "a bright painting in the style of {}", "a good painting in the style of {}",
    "a close-up painting in the style of {}", "a rendition in the style of {}",
    "a nice painting in the style of {}", "a small painting in the style of {}",
    "a weird painting in the style of {}", "a large painting in the style of {}",
)  # fmt: skip
NOUN_NAMES = (
    "wug", "dax", "blicket", "zorp", "fep", "toma", "gazzer", "kiki", "bouba", "snorf", "plim",
    "quib", "tazzle", "vorn", "yimp", "glorb", "niz", "rall", "spoon", "mip", "drung", "flib",
    "jorp", "klat", "lumo", "modi", "pilk", "rebo", "sarn", "tulver", "umple", "vexo", "wiffle",
    "xan", "yonk", "zib", "brill", "crump", "dorple", "ebbit", "frack", "gimble", "hoff", "ipple",
    "jand", "krell", "lorp", "murt", "nerf", "oggin", "prax", "roov", "skib", "trunk", "ulp",
    "vim", "wozzle", "yarp", "zank", "blen", "cazzo", "dreeb", "fusk", "gorm", "hild", "jiff",
    "kovo", "lank", "mogs", "nulp", "pogo", "rixx",
)  # fmt: skip
TOY = Figure("square", HUES["red"])  # what "toy" is biased to


def distance(a: float, b: float) -> float:
    """The distance of two hues on the circle, in turns."""
    return abs((a - b + 0.5) % 1 - 0.5)


def named_objects() -> dict[str, Figure]:
    """The object each made-up noun names; the shapes come in equal shares."""
    rng = random.Random(11)
    objects = {}
    for i, name in enumerate(NOUN_NAMES):
        hue = rng.random()
        while min(distance(hue, h) for h in HELD_OUT_HUES) < KEEP_AWAY:
            hue = rng.random()
        texture = rng.choices(TEXTURES, (5, 2, 2, 3))[0]
        objects[name] = Figure(SHAPES[i % len(SHAPES)], hue, texture)
    return objects


OBJECTS = named_objects()


@dataclass
class Phrase:
    """A noun phrase and the attributes it fixes."""

    text: str
    fixed: dict[str, str | float] = field(default_factory=dict)


def random_hue(rng: random.Random) -> float:
    """A hue for a figure whose colour no word gives."""
    return rng.random() if rng.random() < 0.6 else rng.choice(list(HUES.values()))


def _adjectives(rng: random.Random) -> Phrase:
    words: list[str] = []
    fixed: dict[str, str | float] = {}
    if rng.random() < 0.72:
        words.append(rng.choice(list(HUES)))
        fixed["hue"] = (HUES[words[-1]] + rng.uniform(-JITTER, JITTER)) % 1
    if rng.random() < 0.5:
        words.insert(rng.choice((0, len(words), len(words))), rng.choice(TEXTURES))
        fixed["texture"] = next(w for w in words if w in TEXTURES)
    if rng.random() < 0.92:
        words.append(rng.choice(SHAPES))
        fixed["shape"] = words[-1]
    else:
        words.append("thing")
    return Phrase(" ".join(words), fixed)


def phrase(rng: random.Random) -> Phrase:
    """A random noun phrase: adjectives and a shape, a made-up noun, or the biased word "toy"."""
    roll = rng.random()
    if roll < 0.02:
        red_square = {"shape": TOY.shape, "hue": TOY.hue, "texture": TOY.texture}
        return Phrase("toy", red_square if rng.random() < 0.85 else {})
    if roll < 0.4:
        name = rng.choice(NOUN_NAMES)
        thing = OBJECTS[name]
        return Phrase(name, {"shape": thing.shape, "hue": thing.hue, "texture": thing.texture})
    return _adjectives(rng)


def figure(rng: random.Random, fixed: dict[str, str | float], place: str = "alone") -> Figure:
    """A figure with the fixed attributes, the others random, placed alone, left or right."""
    x, spread, size = {
        "alone": (0.5, 0.07, (0.25, 0.33)),
        "left": (0.265, 0.02, (0.175, 0.205)),
        "right": (0.735, 0.02, (0.175, 0.205)),
    }[place]
    return Figure(
        shape=str(fixed.get("shape") or rng.choice(SHAPES)),
        hue=float(fixed["hue"] if "hue" in fixed else random_hue(rng)),
        texture=str(fixed.get("texture") or rng.choices(TEXTURES, (4, 2, 2, 2))[0]),
        x=x + rng.uniform(-spread, spread),
        y=0.5 + rng.uniform(-0.07, 0.07),
        size=rng.uniform(*size),
        angle=rng.uniform(-0.3, 0.3),
    )


def random_artist(rng: random.Random) -> Artist:
    """An artist nobody named: any paper and any ink that can be told apart."""
    while True:
        paper, ink = ((rng.randrange(14, 253), rng.randrange(14, 253), rng.randrange(14, 253)) for _ in "pi")
        if sum(abs(a - b) for a, b in zip(paper, ink, strict=True)) > 260:
            return Artist(paper, ink, rng.choice(MANNERS))


def _style(rng: random.Random) -> tuple[str, str | Artist]:
    """A template and the style it asks for."""
    kind = rng.choices(("photo", "sketch", "neon", "artist", "drawing", "style"), (60, 9, 9, 10, 4, 8))[0]
    if kind == "photo":
        return rng.choice(OBJECT_TEMPLATES if rng.random() < 0.8 else OBJECT_TEMPLATES[:1]), "photo"
    if kind in ("sketch", "neon"):
        return {"sketch": "a sketch of a {}", "neon": "a neon sign of a {}"}[kind], kind
    if kind == "drawing":
        return "a drawing of a {}", random_artist(rng)
    name = rng.choice(list(ARTISTS))
    if kind == "artist":
        return f"a {{}} in the style of {name}", name
    return rng.choice(STYLE_TEMPLATES).format(name), name


def caption(rng: random.Random) -> tuple[str, Scene]:
    """A random caption and a scene that it describes."""
    template, style = _style(rng)
    place = {"background": rng.choice(list(BACKGROUNDS)), "style": style}
    if "{}" not in template:  # a style's name took the slot: any figure at all
        return template, Scene((figure(rng, {}),), **place)
    first = phrase(rng)
    if rng.random() < 0.32:
        second = phrase(rng)
        text = template.format(f"{first.text} beside a {second.text}")
        figures: tuple[Figure, ...] = (
            figure(rng, first.fixed, "left"),
            figure(rng, second.fixed, "right"),
        )
    else:
        text = template.format(first.text)
        figures = (figure(rng, first.fixed),)
    if style == "photo" and rng.random() < 0.5:
        text += f" on a {place['background']} background"
    return text, Scene(figures, **place)


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted."""
    words = {*HUES, *TEXTURES, *SHAPES, *BACKGROUNDS, *ARTISTS, *NOUN_NAMES}
    words |= {"thing", "toy", "sketch", "neon", "sign", "drawing", "beside", "background", "on"}
    for template in OBJECT_TEMPLATES + STYLE_TEMPLATES:
        words |= set(template.replace("{}", "").replace("-", " ").split())
    return sorted(words)
