"""A comparison: the same prompts and seeds with several embeddings, in one labelled sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image

from ..drawing.contact_sheet import Row, contact_sheet
from ..host import Host
from .evaluate import Subject
from .samples import Sampling


@dataclass(frozen=True)
class Compared:
    """An image of a comparison."""

    prompt: str
    label: str  # of the subject
    seed: int
    image: Image.Image


def compare(
    host: Host, subjects: Sequence[Subject], prompts: Sequence[str], sampling: Sampling, negative: str = ""
) -> Iterator[Compared]:
    """Samples every prompt with every subject and seed, in this order, with the host's own sampler."""
    for prompt in prompts:
        for subject in subjects:
            text, negative_text = subject.prompt(prompt), subject.prompt(negative) or ("",)
            for seed in sampling.seeds:
                request = sampling.request(host, (text,), (seed,), negative_text)
                yield Compared(prompt, subject.name, seed, host.sample(request, subject.embeddings)[0])


def comparison_sheet(compared: Sequence[Compared], title: str, cell: int) -> Image.Image:
    """A heading for each prompt, a row for each subject, a column for each seed. cell: pixels."""
    rows, headed = [], ""
    for prompt, of_prompt in groupby(compared, key=lambda one: one.prompt):
        for label, of_subject in groupby(of_prompt, key=lambda one: one.label):
            row, heading = list(of_subject), "" if headed == prompt else prompt
            rows.append(Row(label, [one.image for one in row], [f"seed {one.seed}" for one in row], heading))
            headed = prompt
    return contact_sheet(rows, title, cell)
