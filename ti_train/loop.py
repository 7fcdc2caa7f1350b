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
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from PIL import Image
from torch import Tensor

from . import __version__
from .batch import draw_latents, draw_noise, draw_prompt, in_passes
from .checkpoint import RunFiles, State
from .config import TrainConfig
from .dataset import Dataset, seed_from
from .embedding import Embedding, from_text, mean_cosine, mean_norm
from .errors import UserError
from .fixed_batch import FixedBatch
from .formats import load_embedding
from .hosts.base import Host, SampleRequest, Vectors
from .objective import draw_timesteps
from .optim import adamw, load_state_tensors, set_learning_rate, state_tensors
from .prompts import NAME, WORD, Templates, latest_word, says, slots, with_name_last

MOST_SKIPPED = 10  # steps in a row without a finite gradient after which the run stops
NO_GRADIENT = (
    "No gradient reached the word's vectors, so nothing can be learnt. The likely cause: the model ignores its prompt "
    "(an untrained or damaged U-Net), or another extension runs the text encoder without gradients."
)


@dataclass(frozen=True)
class Step:
    """A completed step; step 0 is the untrained word. `evaluation`, the noise-free loss, is there when it was due."""

    step: int
    loss: float | None
    evaluation: float | None
    learning_rate: float
    norm: float  # mean L2 norm of the vectors
    cosine: float  # mean cosine similarity to the start
    seconds: float  # spent in steps since the run began


@dataclass(frozen=True)
class Preview:
    step: int
    prompt: str
    image: Image.Image


@dataclass(frozen=True)
class Checkpoint:
    step: int
    path: Path


@dataclass(frozen=True)
class Warning:
    """Something to tell the user, in words; the run goes on."""

    message: str


@dataclass(frozen=True)
class Done:
    embedding: Embedding
    path: Path
    seconds: float


Event = Step | Preview | Checkpoint | Warning | Done


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
    dataset, remarks = with_the_word(dataset, templates, config)
    if resume:
        done = files.load()
    else:
        start, more = starting_vectors(host, config)
        remarks += more
        done = State(0, 0.0, snapshot(start), start, {})
    start = {encoder: v.to(host.device, torch.float32) for encoder, v in done.start.items()}
    vectors = {e: v.to(host.device, torch.float32, copy=True).requires_grad_() for e, v in done.vectors.items()}
    words, leaves = {WORD: vectors}, list(vectors.values())
    optimizer = adamw(leaves)
    load_state_tensors(optimizer, done.optimizer)

    captions = {picture.caption for picture in dataset.pictures}
    if config.shuffle_tags:
        captions |= {with_name_last(caption, config.keep_tags) for caption in captions}
    every_prompt = [prompt for caption in captions for prompt in templates.prompts(caption)]
    with torch.no_grad():
        host.encode([latest_word(every_prompt)], words)  # a prompt that does not fit is told before anything is spent
    fixed_batch = FixedBatch.draw(host, dataset, templates, config)
    sigmas = host.sigmas.float().cpu()
    # The gradient that enters the network is of order one whatever the picture's size: the mean's own 1/elements
    # would vanish in fp16. A power of two changes no digit in fp32.
    loss_scale = 2.0 ** round(math.log2(dataset.pictures[0].mean.numel()))
    side = config.resolution or dataset.resolution
    skipped = 0

    def report(step: int, loss: float | None, rate: float, norm: float, cosine: float, seconds: float) -> Step:
        due = step % config.evaluate_every == 0 or step == config.steps
        return Step(step, loss, fixed_batch.loss(host, words) if due else None, rate, norm, cosine, seconds)

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
            yield report(0, None, 0.0, float(mean_norm(start)), 1.0, 0.0)
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
                for part in in_passes(pictures, x0, noise, sigma, prompts, config.batch_size, host.device):
                    part_of_loss = part.losses(host, words).sum() / size
                    if not part_of_loss.requires_grad:
                        raise UserError(NO_GRADIENT)
                    (part_of_loss * loss_scale).backward()
                    losses.append(part_of_loss.detach())
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
            length, cosine = torch.stack([mean_norm(now), mean_cosine(now, start)]).tolist()
            completed = report(step, loss, rate, length, cosine, seconds)
            done = State(step, seconds, now, start, state_tensors(optimizer))  # now: whatever is kept was told

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


def starting_vectors(host: Host, config: TrainConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Each encoder's start vectors, and what the user should know about them. Raises UserError."""
    start, remarks = {}, []
    if config.init.endswith(".safetensors"):
        embedding = load_embedding(Path(config.init))
        start = embedding.fitted_to(host.widths)
        if embedding.num_vectors != config.num_vectors:
            raise UserError(
                f"'{config.init}' has {embedding.num_vectors} vector(s), but num_vectors is {config.num_vectors}. "
                f"Give {embedding.num_vectors}."
            )
    for encoder in host.widths:
        vocabulary = host.vocabulary(encoder)
        if len(vocabulary.tokenize(config.name)) == 1:
            remarks.append(
                f"'{config.name}' is already a word of the model's vocabulary ({encoder}): where a tool calls "
                f"embeddings by their bare name, yours will hide it. A name such as my-{config.name} would not."
            )
        if encoder not in start:
            start[encoder], remark = from_text(vocabulary, config.init, config.num_vectors)
            remarks += [remark] if remark else []
    return start, list(dict.fromkeys(remarks))


def with_the_word(dataset: Dataset, templates: Templates, config: TrainConfig) -> tuple[Dataset, list[str]]:
    """The pictures whose prompts have the word, and what the user should know about captions. Raises UserError."""
    kept = tuple(picture for picture in dataset.pictures if templates.prompts(picture.caption))
    left_out = sorted({picture.name for picture in dataset.pictures} - {picture.name for picture in kept})
    why = f"{NAME} stands neither in the caption nor in a template, and without it the word learns nothing"
    if not kept:
        raise UserError(f"No picture can be used: {why}. Write {NAME} into the captions where the word belongs.")
    remarks = [f"Left out: {', '.join(left_out)}. {why[0].upper()}{why[1:]}."] if left_out else []
    calling = sorted({picture.name for picture in kept if says(picture.caption, config.name)})
    if calling:
        remarks.append(
            f"The caption of {', '.join(calling)} says '{config.name}', which the model reads as any text. "
            f"Where the new word is meant, write {NAME}."
        )
    return replace(dataset, pictures=kept), remarks


def snapshot(vectors: Vectors) -> dict[str, Tensor]:
    return {encoder: v.detach().clone() for encoder, v in vectors.items()}


def previews(host: Host, config: TrainConfig, side: int, vectors: Vectors, step: int) -> Iterator[Preview]:
    """Samples the user's prompts, each with the same seed at every step. Draws nothing from the run's own numbers."""
    if not config.preview_every:
        return
    for i, text in enumerate(config.preview_prompts):
        prompt = slots(text, {WORD: WORD, f"<{config.name}>": WORD})
        request = SampleRequest((prompt,), (config.seed + i,), width=side, height=side)
        yield Preview(step, text, host.sample(request, {WORD: vectors})[0])


def as_embedding(state: State, config: TrainConfig, host: Host) -> Embedding:
    """The word after a step, with all that is worth knowing about it in its header."""
    vectors = {encoder: v.float().cpu() for encoder, v in state.vectors.items()}
    provenance = {
        "step": str(state.step),
        "init": config.init,
        "base_model": host.fingerprint,
        "config": json.dumps(config.as_dict()),
        "norms": json.dumps(
            {encoder: [round(n, 4) for n in v.norm(dim=-1).tolist()] for encoder, v in vectors.items()}
        ),
        "cosine_to_init": f"{float(mean_cosine(vectors, {e: v.float().cpu() for e, v in state.start.items()})):.4f}",
        "software": f"ti-train {__version__}",
    }
    return Embedding(config.name, vectors, provenance)
