"""The training loop: `train()` yields events and saves the run; the caller may stop at any event.

All random numbers of step k come from a generator seeded by (seed, k), so the rest of a run follows from its vectors,
its optimizer state and the last completed step. A resumed run equals an uninterrupted one, and previews and validation
do not affect it: bit for bit where kernels sum in a fixed order, as on a CPU (for GPUs see determinism.py). A single
generator saved with the run would have to be rewound after an interrupted step and isolated from all other draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import monotonic, perf_counter
from typing import Any

from ..data.dataset import Dataset
from ..device import is_out_of_memory, out_of_memory_message, return_freed_memory
from ..errors import UserError
from ..events import Checkpoint, Done, Event, Preview, Step, Warning
from ..host import Host, SampleRequest
from ..names import candidates, names_file, old_name
from ..prompts import PLACEHOLDER, Templates
from ..user_files import hashed
from .checkpoint import ENDING, HOST, INITIAL_FILE, RunFiles
from .config import TrainConfig
from .initial_vectors import initial_state
from .passes import ALONE, NO_GRADIENT, Passes
from .pictures import with_preview
from .prompt_sampling import check_prompts, preview_prompt, with_placeholder
from .provenance import as_embedding, finished, kept_embedding
from .state import State
from .step_memory import shortage, step_memory
from .steps import TrainedVectors, one_step_late, updates
from .unused import unused_options
from .validation import ValidationBatch

MOST_SKIPPED = 10  # steps in a row without a finite gradient after which the run stops
SKIPPED = "Step {} was skipped: its loss or gradient is not a finite number ({} in a row)."
NEVER_FINITE = (
    f"The loss was not a finite number in {MOST_SKIPPED} steps in a row. The vectors from before them are kept. "
    "Try {}a lower learning rate, or another VAE."
)
NOT_FINITE = (
    "The model's prediction is not a finite number, even for the untrained embedding. Try {}another copy of it."
)
PREVIEW_DOES_NOT_FIT = "This preview is skipped and training continues. Use a lower resolution to get previews."


def train(
    host: Host,
    dataset: Dataset,
    config: TrainConfig,
    folder: Path,
    resume: bool = False,
    *,
    stop: Callable[[], bool] = lambda: False,
    passes: Passes = ALONE,
    replaces: bool = True,
) -> Generator[Event, None, None]:
    """Trains one embedding; writes `folder/name.safetensors`, and `folder/name.resume` until the run is complete.

    On close(), on any exception and when a checkpoint is due, the last completed step is saved; an earlier embedding of
    this name stays. stop: asked after each step whether to end with Done now; then the run can still be resumed.
    passes: of this run alone, or shared with others. replaces: whether a new run may take the name of another one.
    Raises UserError for everything that the user can fix.
    """
    templates = Templates.load(config.templates)
    files = RunFiles(folder, config.name, identity(host, dataset, config, templates))
    dataset, remarks = with_placeholder(dataset, templates, config.bare_name)
    remarks += old_name(config.name)
    done, more = (resumed(files, host), []) if resume else initial_state(host, dataset, templates, config, stop)
    config = replace(config, num_vectors=done.num_vectors, init=done.init or config.init)
    trained = TrainedVectors(done, config, host, dataset.pictures[0].mean.numel())
    remarks += unused_options(host, dataset, templates, config)
    remarks += check_prompts(host, dataset, templates, config, trained.vectors, trained.per_image)
    with files.locked() as files:
        if resume:
            files.check_still(done)
        elif not replaces:
            files.check_free()
        memory = step_memory(host, dataset, config)
        with host.training(config.gradient_checkpointing, memory):  # after the host has made room
            more += shortage(host, dataset, config)
        validation_batch = ValidationBatch.draw(host, dataset, templates, config)
        side, skipped = config.resolution or dataset.resolution, 0

        def measured(state: State, step: Step) -> tuple[State, Step]:
            """Both with the validation loss of the state's vectors, if it is due."""
            if not config.validates_after(step.step):
                return state, step
            logs = validation_batch.log_losses(host, {PLACEHOLDER: trained.shown(config.vectors_at(step.step))})
            loss = math.exp(fmean(logs))
            if step.step == 0 and not math.isfinite(loss):
                raise UserError(NOT_FINITE.format(float32_first(host)))
            course = state.course.after(step.step, logs, state.result)
            kept = None if course.loss is None else (course.kept(step.step), course.loss)
            embedding = as_embedding(state, config, files.identity, host.architecture)
            step = replace(step, validation_loss=loss, validation_error=course.error, embedding=embedding, kept=kept)
            return replace(state, course=course), step

        try:
            yield from map(Warning, [*host.remarks, *remarks, *more])
            if done.step == 0:
                norm, cosine = trained.measures(config.vectors_at(0)).tolist()
                done, untrained = measured(done, Step(0, None, None, 0.0, norm, cosine, 0.0))
                yield untrained
                if config.preview_every:
                    yield from previews(host, config, side, trained, done, files.identity)

            began, saved = perf_counter(), monotonic()
            queued = updates(host, dataset, templates, config, trained, done.step, passes)
            for update in one_step_late(queued, host.device, config):
                step = update.after.step
                loss, gradient_norm, norm, cosine = update.numbers.read()
                if gradient_norm == 0:
                    raise UserError(NO_GRADIENT)
                skipped = 0 if math.isfinite(loss) and math.isfinite(gradient_norm) else skipped + 1
                seconds = done.seconds + perf_counter() - began
                after = update.after.following(done, seconds)
                # a saved step has been validated: only now it is `done`
                done, completed = measured(after, Step(step, loss, None, update.rate, norm, cosine, seconds))
                return_freed_memory(host.device)

                yield completed
                if skipped:
                    yield Warning(SKIPPED.format(step, skipped))
                if skipped == MOST_SKIPPED:
                    raise UserError(NEVER_FINITE.format(float32_first(host)))
                stalled = done.course.stalled(config.early_stop)
                if config.previews_after(step) or (stalled and config.preview_every):
                    for event in previews(host, config, side, trained, done, files.identity):
                        done = showing(done, event)
                        yield event
                if config.copies_after(step):
                    files.copy(done, as_embedding(done, config, files.identity, host.architecture))
                if config.saves_after(step, monotonic() - saved):
                    path = files.save(done, kept_embedding(done, config, files.identity, host.architecture))
                    saved = monotonic()
                    yield Checkpoint(step, path or files.state)
                if stop() or stalled:
                    break
                began = perf_counter()
        except BaseException:  # KeyboardInterrupt and GeneratorExit too: however the run ends, it is saved
            if done.step:  # an untrained state would look like progress, and a new run is the same
                files.rescue(done, kept_embedding(done, config, files.identity, host.architecture))
            raise
        yield from ended(done, config, files, host.architecture)


def resumed(files: RunFiles, host: Host) -> State:
    """Raises UserError if there is no state of this run, or if its vectors are for other text encoders."""
    done = files.load()
    widths = {encoder: vectors.shape[1] for encoder, vectors in done.vectors.items()}
    if widths != host.widths:
        has, needed = (", ".join(f"{encoder}: {n}" for encoder, n in each.items()) for each in (widths, host.widths))
        raise UserError(
            f"'{files.state}' has vectors of the widths {has}; this model's text encoders need {needed}. Delete it and "
            "start a new run."
        )
    return done


def ended(done: State, config: TrainConfig, files: RunFiles, architecture: str) -> Iterator[Warning | Done]:
    """Puts the embedding of a run that was not interrupted in its place."""
    embedding = finished(kept_embedding(done, config, files.identity, architecture), files.identity)
    course = done.course
    complete = is_complete(done, config)
    path = files.rescue(done, embedding, finished=True) or files.embedding
    if complete:
        files.finish()
    if warning := course.warning(done.step):
        stays = f" The earlier '{files.embedding.name}' stays; this one is '{path.name}'."
        yield Warning(warning + stays * (path == files.beside))
    kept, why = course.kept(done.step), course.why(done.step)
    yield Done(embedding, path, done.seconds, kept, why, course.improved, complete)


def is_complete(state: State, config: TrainConfig) -> bool:
    """Whether a run that has ended after this state has nothing left to do."""
    return state.step == config.steps or state.course.stalled(config.early_stop)


def float32_first(host: Host) -> str:
    """The first thing to try against overflow, if there is more precision to gain."""
    return "" if host.full_precision else "dtype float32, "


def identity(host: Host, dataset: Dataset, config: TrainConfig, templates: Templates) -> dict[str, Any]:
    """What a resumed run must have in common with its start."""
    ours: dict[str, Any] = {"templates": templates.lines, "prediction": host.prediction, ENDING: config.ending()}
    files = [Path(text) for text in candidates(config.init) if names_file(text)]
    # a resumed run does not need them any more
    if digests := [hashed(file).hexdigest()[:16] for file in files if file.is_file()]:
        ours |= {INITIAL_FILE: " ".join(digests)}
    theirs = {"model": host.fingerprint, HOST: host.settings, "pictures": dataset.fingerprint}
    return config.resume_identity() | ours | theirs


def showing(done: State, event: Event) -> State:
    """The state with a preview of the first prompt, for the embedding's picture."""
    if not isinstance(event, Preview) or event.number:
        return done
    best = done.course.best.step if done.course.best else None
    return replace(done, pictures=with_preview(done.pictures, event.step, event.image, best))


def previews(
    host: Host, config: TrainConfig, side: int, trained: TrainedVectors, state: State, identity: dict[str, Any]
) -> Iterator[Preview | Warning]:
    """Samples the preview prompts, each with the same seed at every step; independent of the run's random numbers."""
    negative = preview_prompt(config.preview_negative, config)
    first = config.seed if config.preview_seed is None else config.preview_seed
    own = host.sampling
    settings: dict[str, Any] = {
        "steps": config.preview_steps or own.steps,
        "guidance": config.preview_cfg or own.cfg,
        "sampler": config.preview_sampler or own.sampler,
        "scheduler": config.preview_scheduler or own.scheduler,
    }
    step, embedding = state.step, as_embedding(state, config, identity, host.architecture)
    for number, text in enumerate(config.preview_prompts):
        prompts = (preview_prompt(text, config),)
        request = SampleRequest(prompts, (first + number,), side, side, negative=negative, **settings)
        try:
            image = host.sample(request, {PLACEHOLDER: trained.shown(config.vectors_at(step))})[0]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            yield Warning(f"Step {step}: {out_of_memory_message(error, PREVIEW_DOES_NOT_FIT)}")
            return
        yield Preview(step, text, image, embedding, number)
