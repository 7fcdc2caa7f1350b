"""The training loop: `train()` yields events and owns saving; whoever drives it may stop at any event.

Everything random in step k is drawn from a generator seeded by (seed, k). So the run's future follows from its vectors,
its optimizer and the number of the last completed step: a resumed run equals an uninterrupted one bit for bit, and
previews or evaluations cannot disturb it. A generator carried along and saved with the run was the alternative; it has
to be rewound when a step is cut short, and everything that draws has to be kept away from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from .. import __version__
from ..data.dataset import Dataset
from ..embedding import Embedding, first_of, mean_cosine, mean_norm, squared_distance
from ..errors import UserError
from ..events import Checkpoint, Done, Event, Preview, Step, Warning
from ..host import Host, SampleRequest, Vectors
from ..prompts import WORD, Templates, slots
from ..seeds import seed_from
from .checkpoint import RunFiles, State
from .config import TrainConfig
from .initial_vectors import starting_own, starting_vectors
from .micro_batches import draw_latents, draw_noise, in_passes
from .objective import draw_timesteps
from .optimizer import adamw, load_state_tensors, set_learning_rate, state_tensors
from .prompt_sampling import draw_prompt, longest_prompt, with_the_word, words_of
from .validation import FixedBatch

MOST_SKIPPED = 10  # steps in a row without a finite gradient after which the run stops
NO_GRADIENT = (
    "No gradient reached the word's vectors, so nothing can be learnt. The likely cause: the model ignores its prompt "
    "(an untrained or damaged U-Net), or another extension runs the text encoder without gradients."
)


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
    start = {encoder: v.to(host.device, torch.float32) for encoder, v in done.start.items()}
    vectors, own = trainable(done.vectors, host.device), trainable(done.own, host.device)
    leaves = [*vectors.values(), *own.values()]
    optimizer = adamw(leaves)
    load_state_tensors(optimizer, done.optimizer)

    with torch.no_grad():  # a prompt that does not fit is told before anything is spent
        host.encode([longest_prompt(dataset, templates, config)], words_of(dataset.pictures[:1], vectors, own))
    fixed_batch = FixedBatch.draw(host, dataset, templates, config)
    sigmas = host.sigmas.float().cpu()
    # The gradient that enters the network is of order one whatever the picture's size: the mean's own 1/elements
    # would vanish in fp16. A power of two changes no digit in fp32.
    loss_scale = 2.0 ** round(math.log2(dataset.pictures[0].mean.numel()))
    side = config.resolution or dataset.resolution
    skipped = 0

    def report(step: int, loss: float | None, rate: float, now: Vectors, seconds: float) -> Step:
        count = config.vectors_at(step)
        used, words = first_of(now, count), {WORD: first_of(vectors, count)}
        norm, cosine = torch.stack([mean_norm(used), mean_cosine(used, first_of(start, count))]).tolist()
        if step % config.evaluate_every and step < config.steps:
            return Step(step, loss, None, rate, norm, cosine, seconds)
        measured = as_embedding(State(step, seconds, dict(now), start, {}), config, host)
        return Step(step, loss, fixed_batch.loss(host, words), rate, norm, cosine, seconds, measured)

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
            yield report(0, None, 0.0, start, 0.0)
            yield from previews(host, config, side, vectors, 0)

        for step in range(done.step + 1, config.steps + 1):
            began = perf_counter()
            generator = torch.Generator().manual_seed(seed_from("step", config.seed, step))
            size = config.effective_batch
            pictures = dataset.shown((step - 1) * size, size, config.seed)
            x0 = draw_latents(pictures, generator)
            noise = draw_noise(x0, generator)
            sigma = sigmas[draw_timesteps(size, len(sigmas), generator)]
            prompts = [draw_prompt(picture, templates, config, generator) for picture in pictures]

            optimizer.zero_grad()
            losses = []
            with host.training(config.gradient_checkpointing):
                words = words_of(pictures, first_of(vectors, config.vectors_at(step)), own)
                for part in in_passes(pictures, x0, noise, sigma, prompts, config.batch_size, host.device):
                    part_of_loss = part.losses(host, words).sum() / size
                    if not part_of_loss.requires_grad:
                        raise UserError(NO_GRADIENT)
                    (part_of_loss * loss_scale).backward()
                    losses.append(part_of_loss.detach())
                if config.coarse_weight:
                    (config.coarse_weight * squared_distance(vectors, start) * loss_scale).backward()
            for leaf in leaves:
                if leaf.grad is not None:
                    leaf.grad /= loss_scale
            norm = torch.nn.utils.clip_grad_norm_(leaves, config.gradient_clip or math.inf)
            if norm == 0:
                raise UserError(NO_GRADIENT)

            loss, gradient_norm = torch.stack([torch.stack(losses).sum(), norm]).tolist()
            finite = math.isfinite(loss) and math.isfinite(gradient_norm)
            rate = config.learning_rate_at(step)
            if finite:
                set_learning_rate(optimizer, rate)
                optimizer.step()
            skipped = 0 if finite else skipped + 1
            now, seconds = snapshot(vectors), done.seconds + perf_counter() - began
            completed = report(step, loss, rate, now, seconds)
            # only now: whatever is kept was told
            done = State(step, seconds, now, start, state_tensors(optimizer), snapshot(own))

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
            if config.preview_every and (step % config.preview_every == 0 or step == config.steps):
                yield from previews(host, config, side, vectors, step)
            if step % config.checkpoint_every == 0 and step < config.steps:
                files.save(done, as_embedding(done, config, host))
                yield Checkpoint(step, files.embedding)
    except BaseException:  # an interrupt and close() too: whatever ends the run, what was learnt is kept
        files.rescue(done, as_embedding(done, config, host))
        raise
    learnt = as_embedding(done, config, host)
    files.rescue(done, learnt)
    files.finish()
    yield Done(learnt, files.embedding, done.seconds)


def trainable(vectors: Vectors, device: torch.device) -> dict[str, Tensor]:
    """Leaves in the order of their names: a state file has an order of its own, and the optimizer counts its leaves."""
    return {e: v.to(device, torch.float32, copy=True).requires_grad_() for e, v in sorted(vectors.items())}


def snapshot(vectors: Vectors) -> dict[str, Tensor]:
    return {encoder: v.detach().clone() for encoder, v in vectors.items()}


def previews(host: Host, config: TrainConfig, side: int, vectors: Vectors, step: int) -> Iterator[Preview]:
    """Samples the user's prompts, each with the same seed at every step. Draws nothing from the run's own numbers."""
    if not config.preview_every:
        return
    marks = {WORD: WORD, f"<{config.name}>": WORD}
    negative = slots(config.preview_negative, marks) or ("",)
    first = config.seed if config.preview_seed is None else config.preview_seed
    for i, text in enumerate(config.preview_prompts):
        request = SampleRequest((slots(text, marks),), (first + i,), width=side, height=side, negative=negative)
        yield Preview(step, text, host.sample(request, {WORD: first_of(vectors, config.vectors_at(step))})[0])


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
