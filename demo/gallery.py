"""What learnt words are good for, on one sheet: the paper's applications with the words that come along.

usage: python -m demo.gallery [FILE]      writes demo/gallery.png

Variations, text-guided edits, style transfer, two words in one picture, and a fairer word for a biased one (Gal et al.
2022, section 4). The i-th picture of a row has seed i: none is picked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ti_train.drawing.contact_sheet import Row, contact_sheet
from ti_train.formats import load_embedding
from ti_train.host import Embeddings, Host, SampleRequest
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.prompts import parse

from .concepts import SHIPPED
from .showcase import GUIDANCE, STEPS
from .world import BACKGROUNDS

HERE = Path(__file__).parent
ACROSS = len(SHIPPED)
COLOURS = 256  # of the file: people load it with the README


@dataclass(frozen=True)
class Line:
    """A row to be sampled: the prompt with its {} filled by each part, or the same prompt all along."""

    title: str
    prompt: str
    parts: Sequence[str] = ()
    star: str = ""  # what * stands for, where captions would be too long

    @property
    def label(self) -> str:
        return f'{self.title}: "{self.prompt.format("...")}"'

    @property
    def prompts(self) -> list[str]:
        filled = [self.prompt.format(part) for part in self.parts] or [self.prompt] * ACROSS
        return [prompt.replace("*", self.star) for prompt in filled]


STYLED = ("star", "ring", "flower", "square", "heart", "<violet-arrow>", "<magenta-moon>", "<rose-drop>")
STYLES = (
    "sketch of a *",
    "neon sign of a *",
    *(f"* in the style of {a}" for a in ("mori", "vega", "karo", "lund", "ruan", "tove")),
)
LINES = (
    Line("variations", "a photo of a <lime-star>"),
    Line("edits", "a photo of a <violet-arrow> on a {} background", tuple(BACKGROUNDS)),
    Line("edits, * being <magenta-moon>", "a {}", STYLES, "<magenta-moon>"),
    Line("style transfer", "a {} in the style of <dusk-lines>", STYLED),
    Line("style transfer", "a {} in the style of <woodcut>", STYLED),
    Line("two learnt words", "a photo of a <teal-heart> beside a <rose-drop>"),
    Line("bias", "a photo of a toy"),
    Line("less bias", "a photo of a <fair-toy>"),
)


def gallery(host: Host, words: Embeddings, concepts: Path) -> Image.Image:
    """One training picture of each word, then every line."""

    def sample(prompts: Sequence[str]) -> list[Image.Image]:
        parsed = tuple(parse(prompt, words) for prompt in prompts)
        side = host.resolution
        return host.sample(SampleRequest(parsed, tuple(range(len(prompts))), side, side, STEPS, GUIDANCE), words)

    training = [Image.open(concepts / name / "0.png") for name in SHIPPED]
    rows = [Row("one of the five training pictures of each word", training, SHIPPED)]
    rows += [Row(line.label, sample(line.prompts), line.parts) for line in LINES]
    return contact_sheet(rows, f"{len(SHIPPED)} learnt words and what can be done with them", cell=112)


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "gallery.png"
    host = DiffusersHost.load(HERE / "model")
    words = {name: load_embedding(HERE / "words" / f"{name}.safetensors").fitted_to(host.widths) for name in SHIPPED}
    gallery(host, words, HERE / "concepts").quantize(COLOURS, kmeans=3).save(file, optimize=True)


if __name__ == "__main__":
    main()
