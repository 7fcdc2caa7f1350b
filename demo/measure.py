"""Reads from a picture's pixels, with no network, what it shows and how much of a concept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .concepts import Concept, Variety
from .world import ARTISTS, BACKGROUNDS, NEON_WALL, SHAPES, SIDE, SKETCH_PAPER, Artist, Figure, silhouette

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

GRID = 32  # silhouettes are compared on a grid this wide
AREA = 260.0  # cells of the grid that every silhouette is scaled to cover
ANGLES = np.linspace(-0.45, 0.45, 13)
FIGURE_CONTRAST = 42.0  # RGB distance from the background that makes a pixel part of the figure
SKETCH_CONTRAST = 24.0  # the same on sketching paper, where tints are faint and there is no shadow


@dataclass(frozen=True)
class Reading:
    """What one figure of a picture looks like."""

    shape: str
    overlap: dict[str, float]  # best IoU with each shape's silhouette
    hue: float  # in turns
    texture: str
    two_tone: float  # 0 plain, 1 clearly two tones


def pixels(picture: Image.Image) -> Array:
    """The picture as floats of 0 to 255, at the world's size."""
    image = picture.convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32)


@cache
def _surface() -> tuple[Array, Mask]:
    """The terms of a quadratic surface at every pixel, and the border that it is fitted to."""
    v, u = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    border = np.maximum(abs(u), abs(v)) > 0.88
    return np.stack([np.ones_like(u), u, v, u * u, v * v, u * v], -1), border


def border_colour(image: Array) -> Array:
    """The median colour along the picture's edge."""
    return np.median(image[_surface()[1]], axis=0)


def backdrop(image: Array) -> Array:
    """The background behind the figure, a smooth surface through the picture's edge."""
    terms, border = _surface()
    near = np.abs(image - border_colour(image)).max(-1) < 60
    chosen = border & near
    if chosen.sum() < 100:
        chosen = border
    fit = np.linalg.lstsq(terms[chosen], image[chosen], rcond=None)[0]
    return np.clip(terms @ fit, 0, 255)


def segment(image: Array) -> Mask:
    """The pixels of figures: those that are neither background nor background in shadow."""
    behind = backdrop(image)
    ratio = (image * behind).sum(-1) / np.maximum((behind**2).sum(-1), 1)
    shadowed = behind * np.clip(ratio, 0.5, 1.04)[..., None]
    flat = np.linalg.norm(border_colour(image) - np.asarray(SKETCH_PAPER)) < 30
    return np.linalg.norm(image - shadowed, axis=-1) > (SKETCH_CONTRAST if flat else FIGURE_CONTRAST)


def _normalised(mask: Array) -> Array:
    """A silhouette moved to the grid's centre and scaled to a fixed area."""
    total = float(mask.sum())
    v, u = np.nonzero(mask > 0.5)
    if total < 20 or len(u) == 0:
        return np.zeros((GRID, GRID), np.float32)
    scale = math.sqrt(total / AREA)
    left, top = u.mean() + 0.5 - scale * GRID / 2, v.mean() + 0.5 - scale * GRID / 2
    image = Image.fromarray((mask * 255).astype(np.uint8))
    moved = image.transform(
        (GRID, GRID),
        Image.Transform.AFFINE,
        (scale, 0, left, 0, scale, top),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(moved, np.float32) / 255


@cache
def _templates() -> Array:
    """Normalised silhouettes: shapes x angles x cells."""
    drawn = [[_normalised(silhouette(Figure(shape, 0, angle=float(a)))).ravel() for a in ANGLES] for shape in SHAPES]
    return np.asarray(drawn, np.float32)


def overlaps(mask: Mask) -> dict[str, float]:
    """The best IoU of a mask with each shape, over angles and small shifts and changes of size."""
    base = _normalised(mask.astype(np.float32))
    views = [np.roll(base, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    image = Image.fromarray((base * 255).astype(np.uint8))
    for zoom in (0.93, 1.07):
        edge = GRID * (1 - zoom) / 2
        box = (zoom, 0, edge, 0, zoom, edge)
        bent = image.transform((GRID, GRID), Image.Transform.AFFINE, box, Image.Resampling.BILINEAR)
        views.append(np.asarray(bent, np.float32) / 255)
    seen = np.stack([v.ravel() for v in views])
    templates = _templates()
    flat = templates.reshape(-1, GRID * GRID)
    inner = seen @ flat.T
    union = (seen**2).sum(1)[:, None] + (flat**2).sum(1)[None] - inner
    best = (inner / np.maximum(union, 1)).max(0).reshape(len(SHAPES), -1).max(1)
    return dict(zip(SHAPES, best.tolist(), strict=True))


def hue_of(image: Array, mask: Mask) -> float:
    """The mean hue of a mask's pixels, in turns, weighted by saturation."""
    if not mask.any():
        return 0.0
    r, g, b = image[mask].T
    x, y = r - (g + b) / 2, (g - b) * (3**0.5 / 2)  # length is about chroma, angle about hue
    chroma = np.hypot(x, y)
    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    spread = np.maximum(high - low, 1e-3)
    sector = np.where(
        high == r,
        ((g - b) / spread) % 6,
        np.where(high == g, (b - r) / spread + 2, (r - g) / spread + 4),
    )
    turn = sector * (math.pi / 3)
    weight = chroma * (chroma > 25)
    return float(math.atan2((weight * np.sin(turn)).sum(), (weight * np.cos(turn)).sum()) / (2 * math.pi) % 1)


def _eroded(mask: Mask, times: int) -> Mask:
    for _ in range(times):
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        mask = inner
    return mask


def texture_of(image: Array, mask: Mask) -> tuple[str, float]:
    """The texture inside a mask, and how clearly it has two tones."""
    inside = _eroded(mask, 4)
    if inside.sum() < 60:
        return "plain", 0.0
    paleness = image.min(-1) - 0.25 * image.max(-1)  # high in the pale second tone
    values = paleness[inside]
    low, high = np.quantile(values, (0.06, 0.94))
    chroma = float(np.quantile(np.ptp(image[inside], axis=-1), 0.8))
    contrast = (high - low) * 190 / max(chroma, 80)  # as it would be in a photo: a sketch is paler
    strength = float(np.clip((contrast - 38) / 40, 0, 1))
    pale = float((values > (low + high) / 2).mean())
    if strength < 0.5:
        return "plain", strength
    gy, gx = np.gradient(paleness)
    gx, gy = gx[inside], gy[inside]
    energy = float((gx**2 + gy**2).sum()) + 1e-6
    coherence = math.hypot(float((gx**2 - gy**2).sum()), 2 * float((gx * gy).sum())) / energy
    if coherence > 0.5:
        return "striped", strength
    return ("dotted" if pale < 0.33 else "checkered"), strength


def read(image: Array, mask: Mask) -> Reading:
    """Reads the figure under a mask."""
    found = overlaps(mask)
    texture, two_tone = texture_of(image, mask)
    return Reading(max(found, key=lambda s: found[s]), found, hue_of(image, mask), texture, two_tone)


def ramp(value: float, none: float, full: float) -> float:
    """0 at `none`, 1 at `full`, linear between."""
    return float(np.clip((value - none) / (full - none), 0, 1))


def parts(reading: Reading, truth: Figure) -> dict[str, float]:
    """The shape, hue and texture scores of a reading, each in [0, 1]."""
    rival = max(v for s, v in reading.overlap.items() if s != truth.shape)
    own = reading.overlap[truth.shape]
    shape = ramp(own, 0.6, 0.82) * ramp(own - rival, -0.1, 0.0)
    hue = ramp(abs((reading.hue - truth.hue + 0.5) % 1 - 0.5), 0.12, 0.035)
    if truth.texture == "plain":
        texture = 1 - reading.two_tone
    else:
        texture = reading.two_tone * (1.0 if reading.texture == truth.texture else 0.5)
    return {"shape": shape, "hue": hue, "texture": texture}


def style_parts(image: Array, artist: Artist) -> dict[str, float]:
    """The paper, ink and two-tone scores of a picture, each in [0, 1]."""
    paper, ink = (np.asarray(c, np.float32) for c in (artist.paper, artist.ink))
    way = ink - paper
    along = ((image - paper) @ way) / float(way @ way)
    off = np.linalg.norm(image - paper - np.clip(along, 0, 1)[..., None] * way, axis=-1)
    distance = np.linalg.norm(image - border_colour(image), axis=-1)
    farthest = distance >= max(float(np.quantile(distance, 0.97)), 1.0)
    drawn = np.median(image[farthest], axis=0)
    inked = float((along > 0.5).mean())
    return {
        "paper": ramp(float(np.linalg.norm(border_colour(image) - paper)), 90, 25),
        "ink": ramp(float(np.linalg.norm(drawn - ink)), 130, 45),
        "two_tone": ramp(float((off > 40).mean()), 0.12, 0.02) * ramp(inked, 0.005, 0.02),
    }


def fidelity(picture: Image.Image, concept: Concept) -> float:
    """How much of a concept a picture of one figure shows, 0 to 1. (Of a variety: not the biased figure.)"""
    image = pixels(picture)
    if isinstance(concept.truth, Artist):
        scores = style_parts(image, concept.truth)
    elif isinstance(concept.truth, Variety):
        scores = {"other": float(not is_like(read(image, segment(image)), concept.truth.biased))}
    else:
        scores = parts(read(image, segment(image)), concept.truth)
    return sum(scores.values()) / len(scores)


def is_like(reading: Reading, figure: Figure) -> bool:
    """Whether a reading has the figure's shape and, within a sixteenth of a turn, its hue."""
    return reading.shape == figure.shape and abs((reading.hue - figure.hue + 0.5) % 1 - 0.5) < 1 / 16


def half_readings(picture: Image.Image) -> tuple[Reading, Reading]:
    """Reads a picture's left and right figures, split where fewest figure pixels are."""
    image = pixels(picture)
    mask = segment(image)
    start, stop = SIDE * 3 // 8, SIDE * 5 // 8
    cut = start + int(np.argmin(mask[:, start:stop].sum(0) + 0.05 * abs(np.arange(start, stop) - SIDE / 2)))
    left = np.arange(SIDE)[None, :] < cut
    return read(image, mask & left), read(image, mask & ~left)


def pair_fidelity(picture: Image.Image, left: Concept, right: Concept) -> tuple[float, float]:
    """How much of two object concepts a picture shows on its left and on its right."""
    scores = []
    for reading, concept in zip(half_readings(picture), (left, right), strict=True):
        assert isinstance(concept.truth, Figure)
        scores.append(sum(parts(reading, concept.truth).values()) / 3)
    return scores[0], scores[1]


def style_of(picture: Image.Image) -> str:
    """The style a picture is nearest to: photo, sketch, neon or an artist's name."""
    image = pixels(picture)
    edge = border_colour(image)
    pencil = float(((image.max(-1) < 165) & (np.ptp(image, axis=-1) < 50)).mean())
    if np.linalg.norm(edge - np.asarray(SKETCH_PAPER)) < 30 and pencil > 0.008:
        return "sketch"
    wall = np.linalg.norm(edge - np.asarray(NEON_WALL)) < 16
    if wall and float((image.max(-1) > 190).mean()) > 0.01:
        return "neon"
    scores = {name: min(style_parts(image, artist).values()) for name, artist in ARTISTS.items()}
    best = max(scores, key=lambda n: scores[n])
    return best if scores[best] > 0.5 else "photo"


def background_of(picture: Image.Image) -> str:
    """The named photo background nearest to the colour along a picture's edge."""
    edge = border_colour(pixels(picture))
    distances = {n: float(np.linalg.norm(edge - 0.92 * np.asarray(c))) for n, c in BACKGROUNDS.items()}
    return min(distances, key=lambda n: distances[n])


def edit_shown(picture: Image.Image, background: str | None = None, style: str | None = None) -> bool:
    """Whether a picture has the background or the style that an edit asked for."""
    right_style = style_of(picture) == (style or "photo")
    return right_style and (background is None or background_of(picture) == background)
