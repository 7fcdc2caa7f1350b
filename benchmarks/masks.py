"""What masks are for: images that share a background, trained with and without them, measured from the pixels.

python benchmarks/masks.py [--background maroon]

The concept teal-heart before one background in all its pictures, on the embedded model at the defaults. Counted are 16
pictures of "a photo of a *" that show this background all the same, and how well they and 8 edits show the heart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.concepts import CONCEPTS, scenes  # noqa: E402
from demo.measure import background_of, edit_shown, fidelity  # noqa: E402
from demo.showcase import GUIDANCE, STEPS  # noqa: E402
from demo.world import BACKGROUNDS, render, silhouette  # noqa: E402
from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures  # noqa: E402
from ti_train.data.masks import Source  # noqa: E402
from ti_train.events import Done  # noqa: E402
from ti_train.host import SampleRequest, Vectors  # noqa: E402
from ti_train.hosts.diffusers.host import DiffusersHost  # noqa: E402
from ti_train.prompts import parse  # noqa: E402
from ti_train.training.config import TrainConfig  # noqa: E402
from ti_train.training.loop import train  # noqa: E402

CONCEPT = CONCEPTS["teal-heart"]
COUNT, FIRST_SEED = 16, 1000


def write_pictures(folder: Path, background: str) -> None:
    for i, scene in enumerate(scenes(CONCEPT)):
        render(replace(scene, background=background)).save(folder / f"{i}.png")
        mask = (silhouette(scene.figures[0]) * 255).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"{i}-mask.png")


def trained(host: DiffusersHost, folder: Path, masks: Source) -> Vectors:
    dataset = encode_pictures(host, read_pictures(find_pictures(folder), host.resolution, [], masks=masks))
    config = TrainConfig(name="word", init=CONCEPT.init, mask=masks)
    (done,) = (e for e in train(host, dataset, config, folder / masks) if isinstance(e, Done))
    return done.embedding.fitted_to(host.widths)


def sample(host: DiffusersHost, prompts: Sequence[str], vectors: Vectors) -> list[Image.Image]:
    parsed, seeds = tuple(parse(p, ["word"]) for p in prompts), tuple(range(FIRST_SEED, FIRST_SEED + len(prompts)))
    request = SampleRequest(parsed, seeds, host.resolution, host.resolution, STEPS, GUIDANCE)
    return host.sample(request, {"word": vectors})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--background", choices=list(BACKGROUNDS), default="maroon")
    a = parser.parse_args()
    host = DiffusersHost.load(ROOT / "demo" / "model")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), a.background)
        sources: tuple[Source, ...] = ("none", "files")
        for masks in sources:
            vectors = trained(host, Path(folder), masks)
            plain = sample(host, ["a photo of a *"] * COUNT, vectors)
            edits = sample(host, [f"a photo of a * on a {place} background" for place in BACKGROUNDS], vectors)
            same = sum(background_of(picture) == a.background for picture in plain)
            shown = sum(edit_shown(p, background=b) for p, b in zip(edits, BACKGROUNDS, strict=True))
            faithful, kept = (sum(fidelity(p, CONCEPT) for p in some) / len(some) for some in (plain, edits))
            print(
                f"{a.background}, masks {masks}: the background in {same} of {COUNT}, fidelity {faithful:.2f}; "
                f"edits shown {shown} of {len(edits)}, fidelity {kept:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
