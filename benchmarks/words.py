"""How well the words of demo/words show their concepts on the embedded model, read from the pixels.

python benchmarks/words.py [--words FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.concepts import load  # noqa: E402
from demo.measure import edit_shown, fidelity, pair_fidelity  # noqa: E402
from demo.showcase import GUIDANCE, STEPS  # noqa: E402
from demo.world import BACKGROUNDS  # noqa: E402
from ti_train.formats import load_embedding  # noqa: E402
from ti_train.hosts.base import SampleRequest, Words  # noqa: E402
from ti_train.hosts.diffusers import DiffusersHost  # noqa: E402
from ti_train.prompts import parse  # noqa: E402

COUNT = 16  # pictures a figure
FIRST_SEED = 1000


def sample(host: DiffusersHost, prompts: Sequence[str], words: Words) -> list[Image.Image]:
    parsed, seeds = tuple(parse(p, words) for p in prompts), tuple(range(FIRST_SEED, FIRST_SEED + len(prompts)))
    return host.sample(SampleRequest(parsed, seeds, host.resolution, host.resolution, STEPS, GUIDANCE), words)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=Path, default=ROOT / "demo/words")
    folder = parser.parse_args().words
    host = DiffusersHost.load(ROOT / "demo/model")
    words = {path.stem: load_embedding(path).fitted_to(host.widths) for path in sorted(folder.glob("*.safetensors"))}
    concepts = {name: load(ROOT / "demo/concepts" / name / "concept.json") for name in words}
    for name, concept in concepts.items():
        plain = "a photo of a {}" if concept.kind == "object" else "a painting in the style of {}"
        before, after = (
            mean([fidelity(p, concept) for p in sample(host, [plain.format(word)] * COUNT, words)])
            for word in (concept.init, f"<{name}>")
        )
        line = f"{name:12s} initial word {before:.2f}   learnt {after:.2f}"
        if concept.kind == "object":
            places = sample(host, [f"a photo of a <{name}> on a {place} background" for place in BACKGROUNDS], words)
            shown = mean([edit_shown(p, background=b) for p, b in zip(places, BACKGROUNDS, strict=True)])
            styles = sample(host, [f"a sketch of a <{name}>", f"a neon sign of a <{name}>"] * 4, words)
            styled = mean([edit_shown(p, style=s) for p, s in zip(styles, ("sketch", "neon") * 4, strict=True)])
            kept = mean([fidelity(p, concept) for p in places])
            line += f"   backgrounds shown {shown:.2f}, fidelity kept {kept:.2f}   sketch and neon shown {styled:.2f}"
        print(line, flush=True)
    left, right = sorted((name for name, c in concepts.items() if c.kind == "object"), reverse=True)[:2]
    pairs = sample(host, [f"a photo of a <{left}> beside a <{right}>"] * COUNT, words)
    scores = [pair_fidelity(p, concepts[left], concepts[right]) for p in pairs]
    both = sum(min(score) > 0.6 for score in scores)
    means = [mean(side) for side in zip(*scores, strict=True)]
    print(f"{left} beside {right}: {means[0]:.2f}, {means[1]:.2f}; both above 0.6 in {both} of {COUNT}")


if __name__ == "__main__":
    main()
