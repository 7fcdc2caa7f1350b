"""`generate`: samples images with embeddings."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ..drawing.contact_sheet import Row, contact_sheet
from ..editability import HELP
from ..embedding import Embedding
from ..evaluation.samples import Sampling
from ..files import file_name, write_atomically
from ..host import Embeddings, Host, Prompt, SampleRequest, Slot
from ..names import numbered
from ..prompt_check import TokenCounter, unknown_marks
from ..prompts import parse
from ..text import Remarks
from .embedding_files import load_embeddings
from .model import add_model_arguments, load_model, used_vectors

CELL = 256  # pixels of an image in the sheet of editabilities


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("generate", help="sample images with embeddings")
    add_model_arguments(command)
    add_arguments(command)
    command.set_defaults(run=run)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments except those of the model."""
    add = command.add_argument
    add("--embedding", type=Path, action="append", default=[], help="embedding file (repeatable)")
    add("--prompt", required=True, help="prompt; an embedding is written <file-name>, or * if there is only one")
    add("--negative", default="", help="negative prompt")
    add("--number", type=int, default=4, help="number of images (default: %(default)s)")
    add("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    add("--guidance", type=float, default=5.0, help="classifier-free guidance (default: %(default)s)")
    add("--resolution", type=int, default=0, help="side in pixels (default: the model's own)")
    add("--seed", type=int, default=0, help="seed of the first image (default: %(default)s)")
    add("--out", type=Path, default=Path("."), help="folder for the images (default: this one)")
    add(
        "--editability",
        type=float,
        nargs="+",
        default=[0.0],
        metavar="SHARE",
        help=f"{HELP} Several, such as 0 0.1 0.2 0.3, also make one labelled sheet.",
    )


def run(a: argparse.Namespace) -> None:
    embeddings = load_embeddings(a.embedding)
    generate(load_model(a), embeddings, a)


def generate(host: Host, embeddings: Mapping[str, Embedding], a: argparse.Namespace) -> None:
    """Writes an image for each seed and prints its path. Raises UserError and OSError."""
    strengths = dict.fromkeys(a.editability)
    used = {strength: {n: used_vectors(e, host, strength) for n, e in embeddings.items()} for strength in strengths}
    turned = {strength: {name: vectors for name, (vectors, _) in each.items()} for strength, each in used.items()}
    vectors = next(iter(turned.values()))
    prompt, negative = parse(a.prompt, vectors), parse(a.negative, vectors) or ("",)
    sampling = Sampling(a.resolution or host.resolution, a.number, a.steps, a.guidance, a.seed)
    a.out.mkdir(parents=True, exist_ok=True)
    remarks = [remark for _, parts in next(iter(used.values())).values() for remark in parts]
    remarks += remarks_on(host, {"the prompt": prompt, "the negative prompt": negative}, vectors, bool(a.embedding))
    remarks += ["--negative has no effect: it needs a --guidance above 1."] * bool(a.negative and a.guidance <= 1)
    for remark in Remarks(remarks):
        print(f"Warning: {remark}", file=sys.stderr)
    name, side, rows = file_name(a.prompt), sampling.side, []
    for strength, vectors in turned.items():
        label, images = f"-editability-{strength:g}" * (len(turned) > 1), []
        for seed in sampling.seeds:
            request = SampleRequest((prompt,), (seed,), side, side, sampling.steps, sampling.guidance, negative)
            images += host.sample(request, vectors)
            print(saved(images[-1], a.out, f"{name}{label}-{seed}"))
        rows.append(Row(f"editability {strength:g}", images, [f"seed {seed}" for seed in sampling.seeds], ""))
    if len(rows) > 1:
        print(saved(contact_sheet(rows, a.prompt, CELL), a.out, f"{name}-editability"))


def saved(image: Image.Image, folder: Path, name: str) -> Path:
    """Writes a PNG file under a name or its next free number, unless the same file is there. Raises OSError."""
    image.save(data := io.BytesIO(), "PNG")
    files = (folder / f"{free}.png" for free in numbered(name))
    file = next(file for file in files if not file.exists() or file.read_bytes() == data.getvalue())
    write_atomically(file, data.getvalue())
    return file


def remarks_on(host: Host, prompts: Mapping[str, Prompt], vectors: Embeddings, given: bool) -> list[str]:
    """What of the prompts is not used. given: whether the user has given the embeddings."""
    lengths = {name: len(next(iter(rows.values()))) for name, rows in vectors.items()}
    counter, remarks, marks = TokenCounter(host, lengths), [], [f"<{name}>" for name in vectors]
    for which, prompt in prompts.items():
        remarks += unknown_marks(prompt, marks, which)
        remarks += counter.remarks(prompt, which.capitalize())
    if given and not remarks and not any(isinstance(piece, Slot) for prompt in prompts.values() for piece in prompt):
        remarks.append(f"the prompt does not use the embedding. Write {' or '.join(marks)} in the prompt.")
    return remarks
