"""How well the words of demo/words show their concepts on the embedded model, read from the pixels.

python benchmarks/words.py [--words FOLDER] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.concepts import Concept, Variety, load  # noqa: E402
from demo.judge import solid  # noqa: E402
from demo.measure import edit_shown, fidelity, is_like, pair_fidelity, pixels, read, segment  # noqa: E402
from demo.showcase import GUIDANCE, STEPS  # noqa: E402
from demo.world import BACKGROUNDS, Figure  # noqa: E402
from ti_train.formats import load_embedding  # noqa: E402
from ti_train.host import Embeddings, SampleRequest  # noqa: E402
from ti_train.hosts.diffusers.host import DiffusersHost  # noqa: E402
from ti_train.prompts import parse  # noqa: E402

COUNT = 16  # pictures a figure
FIRST_SEED = 1000


class Bench:
    """A model and its learnt words."""

    def __init__(self, host: DiffusersHost, words: Embeddings, concepts: dict[str, Concept]) -> None:
        self.host, self.words, self.concepts = host, words, concepts

    def of_kind(self, kind: str) -> list[str]:
        return [name for name, concept in self.concepts.items() if concept.kind == kind]

    def sample(self, prompts: Sequence[str]) -> list[Image.Image]:
        parsed = tuple(parse(prompt, self.words) for prompt in prompts)
        seeds = tuple(range(FIRST_SEED, FIRST_SEED + len(prompts)))
        side = self.host.resolution
        return self.host.sample(SampleRequest(parsed, seeds, side, side, STEPS, GUIDANCE), self.words)

    def before_and_after(self, name: str) -> str:
        concept = self.concepts[name]
        before, after = (
            mean([fidelity(p, concept) for p in self.sample([concept.plain_prompt.format(word)] * COUNT)])
            for word in (concept.init, f"<{name}>")
        )
        return f"{name:12s} initial word {before:.2f}   learnt {after:.2f}"

    def edits(self, name: str) -> str:
        """An object before every background, and in two other styles."""
        places = self.sample([f"a photo of a <{name}> on a {place} background" for place in BACKGROUNDS])
        shown = mean([edit_shown(p, background=b) for p, b in zip(places, BACKGROUNDS, strict=True)])
        kept = mean([fidelity(p, self.concepts[name]) for p in places])
        styles = self.sample([f"a sketch of a <{name}>", f"a neon sign of a <{name}>"] * 4)
        styled = mean([edit_shown(p, style=s) for p, s in zip(styles, ("sketch", "neon") * 4, strict=True)])
        return f"   backgrounds shown {shown:.2f}, fidelity kept {kept:.2f}   sketch and neon shown {styled:.2f}"

    def transfer(self, name: str) -> str:
        """A style on every learnt object, twice: is it the style, and is the shape the object's?"""
        objects = self.of_kind("object") * 2
        pictures = self.sample([f"a <{thing}> in the style of <{name}>" for thing in objects])
        style = mean([fidelity(picture, self.concepts[name]) for picture in pictures])
        kept = [shape_of(p) == truth(self.concepts[o]).shape for p, o in zip(pictures, objects, strict=True)]
        return f"   on {len(objects) // 2} learnt objects {style:.2f}, their shape kept {mean(kept):.2f}"

    def bias(self, name: str) -> str:
        """How often the biased figure is shown by the model's own word and by the fairer one, and how many shapes."""
        concept = self.concepts[name]
        assert isinstance(concept.truth, Variety)
        line = ""
        for word in (concept.init, f"<{name}>"):
            readings = [
                read(image, segment(image)) for image in map(pixels, self.sample([f"a photo of a {word}"] * COUNT * 2))
            ]
            like = mean([is_like(reading, concept.truth.biased) for reading in readings])
            line += f"   {word}: {like:.2f} are a red square, {len({r.shape for r in readings})} shapes"
        return line

    def pair(self, left: str, right: str) -> str:
        pictures = self.sample([f"a photo of a <{left}> beside a <{right}>"] * COUNT)
        scores = [pair_fidelity(p, self.concepts[left], self.concepts[right]) for p in pictures]
        both = sum(min(score) > 0.6 for score in scores)
        means = [mean(side) for side in zip(*scores, strict=True)]
        return f"{left} beside {right}: {means[0]:.2f}, {means[1]:.2f}; both above 0.6 in {both} of {COUNT}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def truth(concept: Concept) -> Figure:
    assert isinstance(concept.truth, Figure)
    return concept.truth


def shape_of(picture: Image.Image) -> str:
    image = pixels(picture)
    return read(image, solid(segment(image))).shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=Path, default=ROOT / "demo/words")
    parser.add_argument("--only", nargs="*", help="names of words (default: all, and every pair of objects)")
    a = parser.parse_args()
    host = DiffusersHost.load(ROOT / "demo/model")
    words = {path.stem: load_embedding(path).fitted_to(host.widths) for path in sorted(a.words.glob("*.safetensors"))}
    bench = Bench(host, words, {name: load(ROOT / "demo/concepts" / name / "concept.json") for name in words})
    more = {"object": bench.edits, "style": bench.transfer, "variety": bench.bias}
    for name in a.only or words:
        print(bench.before_and_after(name) + more[bench.concepts[name].kind](name), flush=True)
    if not a.only:
        for left, right in combinations(sorted(bench.of_kind("object"), reverse=True), 2):
            print(bench.pair(left, right), flush=True)


if __name__ == "__main__":
    main()
