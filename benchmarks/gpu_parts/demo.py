"""Part 1: the demo's word in each dtype. Does it learn what the README says it learns?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import mean

from demo.concepts import Concept, load
from demo.measure import fidelity
from demo.showcase import GUIDANCE, STEPS
from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures
from ti_train.errors import UserError
from ti_train.events import Done, Step
from ti_train.host import SampleRequest, Vectors
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.prompts import parse
from ti_train.training.config import TrainConfig
from ti_train.training.initial_vectors import initial_vectors
from ti_train.training.out_of_memory import train_in_memory

from .finding import Finding, Options

DEMO = Path(__file__).resolve().parents[2] / "demo"
CONCEPT, ENOUGH = "teal-heart", 0.9  # the README has 1.00, on a CPU in bfloat16
PICTURES, FIRST_SEED = 16, 1000  # seeds that training did not see
QUICK_STEPS = 24


def measure(options: Options) -> Iterator[Finding]:
    for dtype in ("float32", "float16", "bfloat16"):
        try:
            yield trained(options, dtype)
        except UserError as error:  # a dtype that the device does not have
            yield Finding(f"{CONCEPT} in {dtype}", {"said": str(error)})


def trained(options: Options, dtype: str) -> Finding:
    concept, folder = load(DEMO / "concepts" / CONCEPT / "concept.json"), DEMO / "concepts" / CONCEPT
    host = DiffusersHost.load(DEMO / "model", options.device, dtype)
    steps = QUICK_STEPS if options.quick or options.small else None
    config = TrainConfig.from_preset("Balanced", name=concept.name, init=concept.init, dtype=dtype, steps=steps)
    dataset = encode_pictures(host, read_pictures(find_pictures(folder), host.resolution, []))
    with closing(train_in_memory(host, dataset, config, Path(options.scratch) / dtype)) as events:
        told = list(events)
    measured = [
        event.validation_loss for event in told if isinstance(event, Step) and event.validation_loss is not None
    ]
    (done,) = (event for event in told if isinstance(event, Done))
    vectors = done.embedding.fitted_to(host.widths)
    count = 2 if options.small else PICTURES
    before, after = (shown(host, concept, word, count) for word in (initial_vectors(host, config)[0], vectors))
    figures = {
        "steps": config.steps,
        "seconds": round(done.seconds, 1),
        "validation loss": f"{measured[0]:.4f} -> {measured[-1]:.4f}",
        "fidelity": f"{before:.2f} -> {after:.2f}",
    }
    learns = measured[-1] < measured[0] and (steps is not None or after >= ENOUGH)
    return Finding(f"{CONCEPT} in {dtype}", figures, {"learns": learns})


def shown(host: DiffusersHost, concept: Concept, word: Vectors, count: int) -> float:
    """How much of the concept the pictures of a word show, 0 to 1."""
    words = {concept.name: word}
    prompts = (parse(concept.plain_prompt.format(f"<{concept.name}>"), words),) * count
    seeds, side = tuple(range(FIRST_SEED, FIRST_SEED + count)), host.resolution
    pictures = host.sample(SampleRequest(prompts, seeds, side, side, STEPS, GUIDANCE), words)
    return mean(fidelity(picture, concept) for picture in pictures)
