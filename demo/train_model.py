"""Trains the demo model from nothing and writes it as a StableDiffusionPipeline folder.

It can be stopped and resumed: whatever is done is kept in the state folder.

usage: python -m demo.train_model --state DIR [--steps 3800] [--out demo/model]
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import time
from collections.abc import Iterable
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from . import autoencoder, tokenizer
from .grammar import caption, vocabulary
from .learner import BF16, LATENT_SCALE, Learner, batch_loss, blur_words, scheduler
from .text_pretraining import pretrain
from .world import draw

SCENES, CHUNK = 30_000, 1000
CODEC_PICTURES, CODEC_STEPS, POLISH_STEPS = 5000, 1200, 400
TEXT_STEPS = 500
WARMUP_STEPS, EMA_DECAY = 150, 0.998
SAVE_EVERY = 120.0  # seconds

Example = tuple[str, NDArray[np.uint8]]


def example(index: int) -> Example:
    """The caption and the picture of a numbered training example."""
    text, scene = caption(random.Random(index))
    return text, draw(scene)


def examples(numbers: Iterable[int]) -> tuple[list[str], Tensor]:
    """The captions and the pictures of several training examples, drawn on all cores."""
    with Pool(os.cpu_count()) as pool:
        texts, drawn = zip(*pool.map(example, numbers, chunksize=50), strict=True)
    return list(texts), torch.from_numpy(np.stack(drawn))


def trained_autoencoder(state: Path, polish: bool = False) -> AutoencoderTiny:
    """The autoencoder, trained if it is not yet; polishing its decoder can wait until the end."""
    final, kept = state / "decoder.pt", state / "autoencoder.pt"
    unfinished = polish and not autoencoder.is_done(final, POLISH_STEPS)
    if autoencoder.is_done(kept, CODEC_STEPS) and not unfinished:
        model = autoencoder.load(kept, final if polish else None)
    else:
        _, pictures = examples(range(SCENES, SCENES + CODEC_PICTURES))
        model = autoencoder.train(pictures, state, CODEC_STEPS, BF16)
        if polish:
            autoencoder.polish(model, pictures, state, POLISH_STEPS, BF16)
    return model


def encoded_examples(codec: AutoencoderTiny, state: Path) -> tuple[list[str], Tensor]:
    """The captions and latents of all training examples."""
    path = state / "latents.pt"
    if path.exists():
        kept = torch.load(path)
        return kept["captions"], kept["latents"]
    captions: list[str] = []
    latents: list[Tensor] = []
    for first in range(0, SCENES, CHUNK):
        texts, pictures = examples(range(first, first + CHUNK))
        captions += texts
        latents += [autoencoder.encode(codec, part, BF16) for part in pictures.split(100)]
        print("encoded", first + CHUNK, flush=True)
    result = torch.cat(latents)
    torch.save({"captions": captions, "latents": result}, path)
    return captions, result


def encode_captions(words: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids, padded to the context length."""
    settings = {"padding": "max_length", "max_length": tokenizer.CONTEXT, "truncation": True}
    return words(captions, return_tensors="pt", **settings).input_ids


def save(out: Path, codec: AutoencoderTiny, words: CLIPTokenizer, learner: Learner) -> None:
    """Writes the pipeline in half precision."""
    unet, text, vae = (copy.deepcopy(part).half().eval() for part in (learner.unet, learner.text, codec))
    vae.register_to_config(scaling_factor=LATENT_SCALE)
    StableDiffusionPipeline(
        vae=vae.to(memory_format=torch.contiguous_format), text_encoder=text, tokenizer=words,
        unet=unet.to(memory_format=torch.contiguous_format), scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(out)  # fmt: skip


class Training:
    """The learner, its running average and its optimiser, kept in a file so as to resume."""

    def __init__(self, words: CLIPTokenizer, kept: Path) -> None:
        self.kept = kept
        self.learner = Learner(words).train()
        self.average = copy.deepcopy(self.learner).eval().requires_grad_(False)
        self.learner.text.get_input_embeddings().register_forward_hook(blur_words)
        self.optimiser = torch.optim.AdamW(self.learner.rates(), betas=(0.9, 0.99), fused=True)
        self.step, self.spent = 0, 0.0
        if kept.exists():
            state = torch.load(kept)
            self.learner.load_state_dict(state["learner"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.spent = state["step"], state["spent"]

    def keep(self) -> None:
        """Writes the file to resume from."""
        parts = {"learner": self.learner, "average": self.average, "optimiser": self.optimiser}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": self.step, "spent": self.spent}, self.kept)

    def advance(self, loss: Tensor, left: float) -> None:
        """One optimiser step at the rate for the share of the steps that is left."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * min(1, (self.step + 1) / WARMUP_STEPS, left / 0.6 + 0.005)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages, weights = self.average.parameters(), self.learner.parameters()
            torch._foreach_lerp_(list(averages), list(weights), 1 - decay)
        self.step += 1


def train(state: Path, out: Path, steps: int) -> None:
    """Trains all parts, the learner for so many steps, and writes the model now and then."""
    words = tokenizer.build(state / "tokenizer", vocabulary())
    codec = trained_autoencoder(state)
    captions, latents = encoded_examples(codec, state)
    ids, empty = encode_captions(words, captions), encode_captions(words, [""])[0]
    run, alphas = Training(words, state / "learner.pt"), scheduler().alphas_cumprod
    if run.step == 0 and not run.kept.exists():
        pretrain(run.learner, ids, state / "text.pt", TEXT_STEPS)
        run.average.load_state_dict(run.learner.state_dict())
    began, last_save, average = time.monotonic() - run.spent, run.spent, 0.0
    while run.step < steps:
        loss = batch_loss(run.learner, latents, ids, empty, alphas)
        run.advance(loss, 1 - run.step / steps)
        run.spent = time.monotonic() - began
        average = loss.item() if average == 0 else 0.98 * average + 0.02 * loss.item()
        if run.step % 100 == 0:
            print(f"step {run.step} loss {average:.4f} {run.spent:.0f}s", flush=True)
        if run.spent - last_save > SAVE_EVERY or run.step == steps:
            last_save = run.spent
            run.keep()
            save(out, codec, words, run.average)
    save(out, trained_autoencoder(state, polish=True), words, run.average)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="what is needed to resume")
    parser.add_argument("--steps", type=int, default=3800, help="of training the denoiser")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    args = parser.parse_args()
    args.state.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    train(args.state, args.out, args.steps)


if __name__ == "__main__":
    main()
