"""What the demo shows of a learnt word: before, after and new prompts on one sheet, and how well it was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ti_train.drawing.contact_sheet import Row, contact_sheet
from ti_train.host import Embeddings, Host, SampleRequest, Vectors
from ti_train.prompts import parse

from .concepts import Concept
from .measure import edit_shown, fidelity

ACROSS = 5  # pictures a row
BACKGROUNDS = ("navy", "sand", "white", "lilac", "olive")
STYLES = ("a sketch of a {}", "a neon sign of a {}", "a {} in the style of mori", "a {} in the style of vega")
STYLED = (
    "a star in the style of {}",
    "a ring in the style of {}",
    "a moon in the style of {}",
    "an arrow in the style of {}",
)
GUIDANCE, STEPS = 4.0, 25


@dataclass(frozen=True)
class Showcase:
    """A contact sheet, and how much of the concept its pictures show, 0 to 1 (see measure.py)."""

    sheet: Image.Image
    before: float  # fidelity of the initial word
    after: float  # fidelity of the learnt word
    edited: float  # share of the edits that show


def show(
    host: Host, concept: Concept, folder: Path, start: Vectors, learnt: Vectors, companion: str, words: Embeddings
) -> Showcase:
    """Samples the initial and the learnt word with the same seeds, then the learnt word in new prompts.

    companion: another word of `words`, to stand beside a thing or to be drawn in a style.
    """
    words = {**words, "before": start, concept.name: learnt}
    word, other = f"<{concept.name}>", f"<{companion}>"
    seeds = tuple(range(ACROSS))

    def sample(prompts: Sequence[str]) -> list[Image.Image]:
        parsed = tuple(parse(prompt, words) for prompt in prompts)
        side = host.resolution
        return host.sample(SampleRequest(parsed, seeds[: len(prompts)], side, side, STEPS, GUIDANCE), words)

    plain = concept.plain_prompt
    before, after = sample([plain.format("<before>")] * ACROSS), sample([plain.format(word)] * ACROSS)
    training = [Image.open(path) for path in sorted(folder.glob("*.png"))]
    rows = [
        Row("the training pictures", training),
        Row(f'before: "{plain.format("*")}", * being "{concept.init}"', before),
        Row(f'after: "{plain.format("*")}"', after),
    ]
    if concept.kind != "style":
        places = sample([f"a photo of a {word} on a {place} background" for place in BACKGROUNDS])
        styles = sample([style.format(word) for style in STYLES])
        pairs = sample([f"a photo of a {word} beside a {other}"] * ACROSS)
        asked = ("sketch", "neon", "mori", "vega")
        shown = [edit_shown(p, background=b) for p, b in zip(places, BACKGROUNDS, strict=True)]
        shown += [edit_shown(p, style=s) for p, s in zip(styles, asked, strict=True)]
        rows += [
            Row('"a photo of a * on a ... background"', places, BACKGROUNDS),
            Row("other styles", styles, [style.format("*") for style in STYLES]),
            Row(f'"a photo of a * beside a {other}", two learnt words', pairs),
        ]
    else:
        styled = sample([prompt.format(word) for prompt in STYLED])
        both = sample([f"a {other} in the style of {word}"] * ACROSS)
        shown = [fidelity(p, concept) > 0.5 for p in styled]
        rows += [
            Row("other figures", styled, [prompt.format("*") for prompt in STYLED]),
            Row(f'"a {other} in the style of *", two learnt words', both),
        ]
    return Showcase(
        contact_sheet(rows, f"{concept.name}: one word, learnt from {len(training)} pictures"),
        sum(fidelity(p, concept) for p in before) / len(before),
        sum(fidelity(p, concept) for p in after) / len(after),
        sum(shown) / len(shown),
    )
