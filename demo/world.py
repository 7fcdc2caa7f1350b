"""Draws the demo's world: textured figures as photos, sketches, neon signs or artists' prints."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float32]
Colour = tuple[int, int, int]
Point = tuple[float, float]

SIDE = 128  # picture side in pixels
OVERSAMPLE = 4  # outlines are drawn this many times larger, then reduced
PERIOD = 21.0  # of a texture, in pixels: wide enough for 16x16 latents to carry it

SHAPES = (
    "circle", "square", "triangle", "diamond", "star", "heart",
    "cross", "ring", "moon", "arrow", "flower", "drop",
)  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "checkered")
HUES = {
    "red": 0.005, "orange": 0.08, "yellow": 0.15, "green": 0.33,
    "sky": 0.545, "blue": 0.62, "purple": 0.77, "pink": 0.895,
}  # fmt: skip
BACKGROUNDS: dict[str, Colour] = {
    "white": (232, 232, 230), "gray": (136, 138, 142), "black": (26, 26, 28),
    "navy": (28, 40, 100), "olive": (116, 116, 48), "sand": (224, 198, 150),
    "maroon": (104, 26, 40), "lilac": (188, 168, 220),
}  # fmt: skip
SKETCH_PAPER: Colour = (249, 246, 238)
PENCIL: Colour = (52, 50, 56)
NEON_WALL: Colour = (20, 8, 44)
MANNERS = ("outline", "solid", "hatched", "stippled")


@dataclass(frozen=True)
class Artist:
    """A two-tone way of drawing: a paper colour, an ink colour and how figures are filled."""

    paper: Colour
    ink: Colour
    manner: str


ARTISTS = {
    "mori": Artist((246, 232, 200), (38, 44, 120), "outline"),
    "vega": Artist((24, 32, 78), (240, 190, 70), "solid"),
    "lund": Artist((190, 220, 238), (96, 52, 30), "hatched"),
    "okta": Artist((18, 20, 24), (90, 220, 225), "outline"),
    "sabel": Artist((204, 104, 72), (255, 240, 214), "solid"),
    "ito": Artist((250, 248, 246), (198, 28, 52), "hatched"),
    "fenn": Artist((176, 204, 160), (24, 74, 48), "outline"),
    "juno": Artist((248, 190, 208), (110, 22, 70), "stippled"),
    "karo": Artist((250, 214, 70), (28, 26, 30), "solid"),
    "nils": Artist((110, 116, 126), (250, 250, 250), "hatched"),
    "ruan": Artist((78, 48, 128), (240, 150, 210), "stippled"),
    "tove": Artist((20, 104, 104), (240, 232, 140), "outline"),
}


@dataclass(frozen=True)
class Figure:
    """One figure: hue in turns, lengths as fractions of the side, angle in radians."""

    shape: str
    hue: float
    texture: str = "plain"
    x: float = 0.5
    y: float = 0.5
    size: float = 0.3
    angle: float = 0.0


@dataclass(frozen=True)
class Scene:
    """One or two figures; the background counts in photos only."""

    figures: tuple[Figure, ...]
    background: str = "white"
    style: str | Artist = "photo"


def _polar(radius: Sequence[float], start: float = 0.0) -> list[Point]:
    steps = [2 * math.pi * i / len(radius) + start for i in range(len(radius))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radius, steps, strict=True)]


def _heart() -> list[Point]:
    turns = [2 * math.pi * i / 60 for i in range(60)]
    x = [1.09 * math.sin(a) ** 3 for a in turns]
    y = [13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in turns]
    return [(u, -0.068 * v - 0.08) for u, v in zip(x, y, strict=True)]


def _moon() -> list[Point]:
    """A disc of radius 1.1 less a disc of radius 0.9 whose centre lies 0.5 to its right."""
    phi, psi = math.atan2(0.887, 0.65), math.atan2(0.887, 0.15)  # where the two rims cross
    rim = [phi + (2 * math.pi - 2 * phi) * i / 48 for i in range(49)]
    bite = [2 * math.pi - psi - (2 * math.pi - 2 * psi) * i / 40 for i in range(1, 40)]
    outer = [(1.1 * math.cos(a), 1.1 * math.sin(a)) for a in rim]
    inner = [(0.5 + 0.9 * math.cos(a), 0.9 * math.sin(a)) for a in bite]
    return [(u + 0.25, v) for u, v in outer + inner]


@cache
def outline(shape: str) -> tuple[tuple[Point, ...], ...]:
    """The closed curves of a shape of unit size; a second curve is a hole."""
    arm, tip = 0.37, 1.08
    curves: dict[str, list[list[Point]]] = {
        "circle": [_polar([1.0] * 60)],
        "square": [_polar([1.25] * 4, math.pi / 4)],
        "triangle": [[(u, v + 0.12) for u, v in _polar([1.28] * 3, -math.pi / 2)]],
        "diamond": [[(0, -1.25), (0.78, 0), (0, 1.25), (-0.78, 0)]],
        "star": [_polar([1.25, 0.52] * 5, -math.pi / 2)],
        "heart": [_heart()],
        "cross": [
            [(-arm, -tip), (arm, -tip), (arm, -arm), (tip, -arm), (tip, arm), (arm, arm),
             (arm, tip), (-arm, tip), (-arm, arm), (-tip, arm), (-tip, -arm), (-arm, -arm)]
        ],
        "ring": [_polar([1.08] * 60), _polar([0.54] * 60)],
        "moon": [_moon()],
        "arrow": [
            [(-1.15, -0.36), (0.08, -0.36), (0.08, -0.95), (1.2, 0), (0.08, 0.95),
             (0.08, 0.36), (-1.15, 0.36)]
        ],
        "flower": [
            _polar([0.92 + 0.24 * math.cos(math.pi * i / 6) for i in range(72)], -math.pi / 2)
        ],
        "drop": [
            [(0.86 * math.sin(a) * math.sin(a / 2) ** 1.3, -1.2 * math.cos(a)) for a in
             [2 * math.pi * i / 60 for i in range(60)]]
        ],
    }  # fmt: skip
    return tuple(tuple(curve) for curve in curves[shape])


def _curves(figure: Figure, side: int) -> list[list[Point]]:
    scale, c, s = figure.size * side, math.cos(figure.angle), math.sin(figure.angle)
    return [
        [(figure.x * side + scale * (u * c - v * s), figure.y * side + scale * (u * s + v * c)) for u, v in curve]
        for curve in outline(figure.shape)
    ]


def _unit(image: Image.Image) -> Array:
    return np.asarray(image, dtype=np.float32) / 255


def silhouette(figure: Figure, side: int = SIDE) -> Array:
    """The figure's coverage of each pixel, 0 to 1."""
    image = Image.new("L", (side * OVERSAMPLE, side * OVERSAMPLE), 0)
    draw = ImageDraw.Draw(image)
    for i, curve in enumerate(_curves(figure, side * OVERSAMPLE)):
        draw.polygon(curve, fill=0 if i else 255)
    return _unit(image.reduce(OVERSAMPLE))


def _line(figure: Figure, width: float) -> Array:
    """The coverage of the figure's outline, drawn `width` pixels wide."""
    image = Image.new("L", (SIDE * OVERSAMPLE, SIDE * OVERSAMPLE), 0)
    draw = ImageDraw.Draw(image)
    for curve in _curves(figure, SIDE * OVERSAMPLE):
        draw.line([*curve, *curve[:2]], fill=255, width=round(width * OVERSAMPLE), joint="curve")
    return _unit(image.reduce(OVERSAMPLE))


def _blur(mask: Array, radius: float, shift: tuple[int, int] = (0, 0)) -> Array:
    moved = np.roll(mask, shift, (0, 1))
    return _unit(Image.fromarray((moved * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius)))


def _local(figure: Figure) -> tuple[Array, Array]:
    """Pixel coordinates from the figure's centre, turned with it."""
    grid = np.arange(SIDE, dtype=np.float32) + 0.5
    dx, dy = grid[None, :] - figure.x * SIDE, grid[:, None] - figure.y * SIDE
    c, s = math.cos(figure.angle), math.sin(figure.angle)
    return dx * c + dy * s, dy * c - dx * s


def _pattern(figure: Figure, texture: str, period: float = PERIOD) -> Array:
    """Where the texture's second tone lies, 0 to 1, with soft edges about a pixel wide."""
    u, v = _local(figure)
    k = 2 * math.pi / period
    if texture == "striped":
        wave = np.sin(k * (u + v) * 0.7071)
    elif texture == "dotted":
        wave = np.cos(k * u) + np.cos(k * v) - 0.75
    elif texture == "checkered":
        wave = np.sin(k * u / 1.25) * np.sin(k * v / 1.25) * 2
    else:
        return np.zeros((SIDE, SIDE), np.float32)
    return np.clip(0.5 + wave * period / 12, 0, 1).astype(np.float32)


def rgb(hue: float, saturation: float, value: float) -> Array:
    """An HSV colour as three bytes' worth of float."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255


def _mix(base: Array, colour: Array | Colour, amount: Array) -> Array:
    return base + (np.asarray(colour, np.float32) - base) * amount[..., None]


def _fill(figure: Figure) -> Array:
    plain = np.broadcast_to(rgb(figure.hue, 0.82, 0.92), (SIDE, SIDE, 3))
    return _mix(plain, rgb(figure.hue, 0.34, 1.0), _pattern(figure, figure.texture))


@cache
def _light() -> Array:
    """A soft light from the upper left, over the whole picture."""
    v, u = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    return np.clip(1.1 - 0.28 * np.hypot(u - 0.38, v - 0.3), 0.8, 1.08).astype(np.float32)


def _photo(scene: Scene) -> Array:
    picture = np.asarray(BACKGROUNDS[scene.background], np.float32) * _light()[..., None]
    for figure in scene.figures:
        mask = silhouette(figure)
        reach = figure.size * SIDE
        picture = _mix(picture, (0, 0, 0), 0.42 * _blur(mask, 4, (5, 4)))
        dx, dy = (np.arange(SIDE) - c * SIDE for c in (figure.x, figure.y))
        shade = 1.0 - 0.1 * np.clip((dx[None, :] + dy[:, None]) / (1.6 * reach), -1, 1)
        gloss = np.exp(-((dx[None, :] / reach + 0.35) ** 2 + (dy[:, None] / reach + 0.4) ** 2) * 5)
        body = _mix(_fill(figure) * shade[..., None], (255, 255, 255), 0.22 * gloss)
        rim = np.clip(mask - _blur(mask, 1.5), 0, 1) * 0.5
        picture = _mix(picture, _mix(body, (0, 0, 0), rim), mask)
    return picture


def _sketch(scene: Scene) -> Array:
    picture = np.broadcast_to(np.asarray(SKETCH_PAPER, np.float32), (SIDE, SIDE, 3))
    for figure in scene.figures:
        picture = _mix(picture, _fill(figure), 0.5 * silhouette(figure))
        picture = _mix(picture, PENCIL, 0.92 * _line(figure, 2.6))
    return picture


def _neon(scene: Scene) -> Array:
    picture = np.broadcast_to(np.asarray(NEON_WALL, np.float32), (SIDE, SIDE, 3))
    for figure in scene.figures:
        tube = _line(figure, 3.2)
        glow = np.clip(_blur(tube, 7) * 1.5, 0, 0.9)
        picture = _mix(picture, rgb(figure.hue, 0.85, 0.8), glow)
        picture = _mix(picture, _fill(figure), 0.42 * silhouette(figure))
        picture = _mix(picture, rgb(figure.hue, 0.4, 1.0), tube)
    return picture


def _print(scene: Scene, artist: Artist) -> Array:
    picture = np.broadcast_to(np.asarray(artist.paper, np.float32), (SIDE, SIDE, 3))
    for figure in scene.figures:
        mask = silhouette(figure)
        texture = {"hatched": "striped", "stippled": "dotted"}.get(artist.manner)
        inner = _pattern(figure, texture, 15.0) if texture else np.full_like(mask, artist.manner == "solid")
        picture = _mix(picture, artist.ink, np.maximum(mask * inner, _line(figure, 4.2)))
    return picture


def draw(scene: Scene) -> NDArray[np.uint8]:
    """The scene as height x width x 3 bytes."""
    style = ARTISTS.get(scene.style, scene.style) if isinstance(scene.style, str) else scene.style
    if isinstance(style, Artist):
        picture = _print(scene, style)
    else:
        picture = {"photo": _photo, "sketch": _sketch, "neon": _neon}[style](scene)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def render(scene: Scene) -> Image.Image:
    """The scene as a picture of 128x128 pixels."""
    return Image.fromarray(draw(scene))
