"""The training loop: `train()` yields events and owns saving; whoever drives it may stop at any event.

Everything random in step k is drawn from a generator seeded by (seed, k). So the run's future follows from its vectors,
its optimizer and the number of the last completed step: a resumed run equals an uninterrupted one, and previews or
evaluations cannot disturb it; bit for bit where the kernels add in a fixed order, as on a CPU (see determinism.py for
GPUs). A generator carried along and saved with the run was the alternative; it has
to be rewound when a step is cut short, and everything that draws has to be kept away from it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from ..data.dataset import Dataset
from ..device import full_memory, is_out_of_memory
from ..errors import UserError
from ..events import Checkpoint, Done, Event, Preview, Step, Warning
from ..host import Host, SampleRequest
from ..prompts import WORD, Templates, slots
from .checkpoint import RunFiles, State, as_embedding
from .config import TrainConfig
from .initial_vectors import untrained
from .prompt_sampling import check_longest_prompt, with_the_word
from .step_memory import shortage, step_memory
from .steps import NO_GRADIENT, TrainedVectors, one_step_late, updates
from .validation import FixedBatch

MOST_SKIPPED = 10  # steps in a row without a finite gradient after which the run stops
SKIPPED = "Step {} was skipped: its loss or gradient is not a finite number ({} in a row)."
NEVER_FINITE = (
    f"The loss was not a finite number in {MOST_SKIPPED} steps in a row; the vectors from before are kept. "
    "Try dtype float32, a lower learning rate, or another VAE."
)
PREVIEW_DOES_NOT_FIT = "This preview is left out, and the training goes on. A lower resolution would let previews fit."


def train(
    host: Host, dataset: Dataset, config: TrainConfig, folder: Path, resume: bool = False
) -> Generator[Event, None, None]:
    """Learns one word; writes `folder/name.safetensors`, and `folder/name.resume` until the run is complete.

    On close(), on any exception and every `checkpoint_every` steps both files hold the last completed step.
    Raises UserError for whatever the user can mend.
    """
    templates = Templates.load(config.templates)
    files = RunFiles(folder, config.name, identity(host, dataset, config, templates))
    dataset, remarks = with_the_word(dataset, templates, config.name)
    done, more = (files.load(), []) if resume else untrained(host, dataset, config)
    trained = TrainedVectors(done, config, host.device, dataset.pictures[0].mean.numel())
    check_longest_prompt(host, dataset, templates, config, trained.vectors, trained.own)
    memory = step_memory(host, dataset, config)
    with host.training(config.gradient_checkpointing, memory):  # the host makes room now, and this is what is left
        more += shortage(host, dataset, config)
    fixed_batch = FixedBatch.draw(host, dataset, templates, config)
    side, skipped = config.resolution or dataset.resolution, 0

    def report(state: State, loss: float | None, rate: float, norm: float, cosine: float) -> Step:
        step = Step(state.step, loss, None, rate, norm, cosine, state.seconds)
        if not config.evaluates_after(state.step):
            return step
        evaluation = fixed_batch.loss(host, {WORD: trained.first(config.vectors_at(state.step))})
        return replace(step, evaluation=evaluation, embedding=as_embedding(state, config, host))

    files.begin(done, as_embedding(done, config, host))
    try:
        yield from map(Warning, remarks + more)
        if done.step == 0:
            yield report(done, None, 0.0, *trained.measures(config.vectors_at(0)).tolist())
            if config.preview_every:
                yield from previews(host, config, side, trained, 0)

        began = perf_counter()
        queued = updates(host, dataset, templates, config, trained, done.step)
        for update in one_step_late(queued, host.device, config):
            step = update.after.step
            loss, gradient_norm, norm, cosine = update.numbers.read()
            if gradient_norm == 0:
                raise UserError(NO_GRADIENT)
            skipped = 0 if math.isfinite(loss) and math.isfinite(gradient_norm) else skipped + 1
            after = replace(update.after, seconds=done.seconds + perf_counter() - began)
            completed = report(after, loss, update.rate, norm, cosine)
            done = after  # only now: whatever is kept was told

            yield completed
            if skipped:
                yield Warning(SKIPPED.format(step, skipped))
            if skipped == MOST_SKIPPED:
                raise UserError(NEVER_FINITE)
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


def identity(host: Host, dataset: Dataset, config: TrainConfig, templates: Templates) -> dict[str, Any]:
    """What a resumed run must share with its beginning."""
    ours = {"templates": templates.lines, "prediction": host.prediction}
    return config.shaping() | ours | {"model": host.fingerprint, "pictures": dataset.fingerprint}


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
