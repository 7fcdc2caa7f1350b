"""The training loop: `train()` yields events and owns saving; whoever drives it may stop at any event.

Everything random in step k is drawn from a generator seeded by (seed, k). So the run's future follows from its vectors,
its optimizer and the number of the last completed step: a resumed run equals an uninterrupted one, and previews or
evaluations cannot disturb it; bit for bit where the kernels add in a fixed order, as on a CPU (see determinism.py for
GPUs). A generator carried along and saved with the run was the alternative; it has
to be rewound when a step is cut short, and everything that draws has to be kept away from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter

import torch

from .. import __version__
from ..data.dataset import Dataset
from ..device import full_memory, is_out_of_memory
from ..embedding import Embedding, first_of, mean_cosine
from ..errors import UserError
from ..events import Checkpoint, Done, Event, Preview, Step, Warning
from ..host import Host, SampleRequest
from ..prompts import WORD, Templates, slots
from .checkpoint import RunFiles, State
from .config import TrainConfig
from .initial_vectors import starting_own, starting_vectors
from .prompt_sampling import longest_prompt, with_the_word, words_of
from .steps import NO_GRADIENT, TrainedVectors, one_step_late, snapshot, updates
from .validation import FixedBatch

MOST_SKIPPED = 10  # steps in a row without a finite gradient after which the run stops
PREVIEW_DOES_NOT_FIT = "This preview is left out, and the training goes on. A lower resolution would let previews fit."


def train(
    host: Host, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool = False
) -> Generator[Event, None, None]:
    """Learns one word; writes `folder/name.safetensors`, and `folder/name.resume` until the run is complete.

    On close(), on any exception and every `checkpoint_every` steps both files hold the last completed step.
    Raises UserError for whatever the user can mend.
    """
    templates = Templates.load(config.templates)
    files = RunFiles(
        folder,
        config.name,
        config.shaping()
        | {"templates": templates.lines, "prediction": host.prediction}
        | {"model": host.fingerprint, "pictures": dataset.fingerprint},
    )
    dataset, remarks = with_the_word(dataset, templates, config.name)
    if resume:
        done = files.load()
    else:
        start, more = starting_vectors(host, config)
        remarks += more
        done = State(0, 0.0, snapshot(start), start, {}, starting_own(host, dataset, config))
    trained = TrainedVectors(done, config, host.device, dataset.pictures[0].mean.numel())
    with torch.no_grad():  # a prompt that does not fit is told before anything is spent
        words = words_of(dataset.pictures[:1], trained.vectors, trained.own)
        host.encode([longest_prompt(dataset, templates, config)], words)
    fixed_batch = FixedBatch.draw(host, dataset, templates, config)
    side = config.resolution or dataset.resolution
    skipped = 0

    def evaluation(step: int) -> float | None:
        words = {WORD: trained.first(config.vectors_at(step))}
        return fixed_batch.loss(host, words) if config.evaluates_after(step) else None

    try:
        files.save(done, as_embedding(done, config, host))  # a folder that cannot be written to is told now
    except OSError as error:
        raise UserError(
            f"'{folder}' cannot be written to ({error.strerror or error}). Choose another folder, or make room."
        ) from None
    try:
        for remark in remarks:
            yield Warning(remark)
        if done.step == 0:
            norm, cosine = trained.measures(config.vectors_at(0)).tolist()
            yield Step(0, None, evaluation(0), 0.0, norm, cosine, 0.0)
            if config.preview_every:
                yield from previews(host, config, side, trained, 0)

        began = perf_counter()
        queued = updates(host, dataset, templates, config, trained, done.step)
        for update in one_step_late(queued, host.device, config):
            step = update.after.step
            loss, gradient_norm, norm, cosine = update.numbers.read()
            if gradient_norm == 0:
                raise UserError(NO_GRADIENT)
            finite = math.isfinite(loss) and math.isfinite(gradient_norm)
            skipped = 0 if finite else skipped + 1
            seconds = done.seconds + perf_counter() - began
            completed = Step(step, loss, evaluation(step), update.rate, norm, cosine, seconds)
            done = replace(update.after, seconds=seconds)  # only now: whatever is kept was told

            yield completed
            if not finite:
                yield Warning(
                    f"Step {step} was skipped: its loss or gradient is not a finite number ({skipped} in a row)."
                )
            if skipped == MOST_SKIPPED:
                raise UserError(
                    f"The loss was not a finite number in {skipped} steps in a row; the vectors from before are kept. "
                    "Try dtype float32, a lower learning rate, or another VAE."
                )
            if config.previews_after(step):
                yield from previews(host, config, side, trained, step)
            if config.saves_after(step):
                files.save(done, as_embedding(done, config, host))
                yield Checkpoint(step, files.embedding)
            began = perf_counter()
    except BaseException:  # an interrupt and close() too: whatever ends the run, what was learnt is kept
        files.rescue(done, as_embedding(done, config, host))
        raise
    learnt = as_embedding(done, config, host)
    files.rescue(done, learnt)
    files.finish()
    yield Done(learnt, files.embedding, done.seconds)


def previews(
    host: Host, config: TrainConfig, side: int, trained: TrainedVectors, step: int
) -> Iterator[Preview | Warning]:
    """Samples the user's prompts, each with the same seed at every step. Draws nothing from the run's own numbers."""
    marks = {WORD: WORD, f"<{config.name}>": WORD}
    negative = slots(config.preview_negative, marks) or ("",)
    first = config.seed if config.preview_seed is None else config.preview_seed
    for i, text in enumerate(config.preview_prompts):
        request = SampleRequest((slots(text, marks),), (first + i,), width=side, height=side, negative=negative)
        try:
            image = host.sample(request, {WORD: trained.first(config.vectors_at(step))})[0]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            yield Warning(f"Step {step}: {full_memory(error, PREVIEW_DOES_NOT_FIT)}")
            return
        yield Preview(step, text, image)


def as_embedding(state: State, config: TrainConfig, host: Host) -> Embedding:
    """The word after a step, with all that is worth knowing about it in its header."""
    count = config.vectors_at(state.step)
    vectors, start = ({e: v.float().cpu() for e, v in first_of(w, count).items()} for w in (state.vectors, state.start))
    provenance = {
        "step": str(state.step),
        "init": config.init,
        "base_model": host.fingerprint,
        "config": json.dumps(asdict(config)),
        "norms": json.dumps(
            {encoder: [round(n, 4) for n in v.norm(dim=-1).tolist()] for encoder, v in vectors.items()}
        ),
        "cosine_to_init": f"{float(mean_cosine(vectors, start)):.4f}",
        "software": f"ti-train {__version__}",
    }
    return Embedding(config.name, vectors, provenance)
