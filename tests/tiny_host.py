"""A small model of its own behind the core's boundary: no diffusers, a few thousand weights, real gradients.

It is a second, independent implementation of the Host protocol: CLIP's text encoder from transformers, a word-level
tokenizer, a convolution as the VAE, and a denoiser that attends to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ti_train.data.dataset import Dataset, encode_pictures, find_pictures, read_pictures
from ti_train.errors import UserError
from ti_train.host import (
    Embeddings,
    Host,
    Latents,
    Prediction,
    Prompt,
    SampleRequest,
    Sampling,
    Size,
    Slot,
    TextStates,
    Vocabulary,
)
from ti_train.prompts import OBJECT_TEMPLATES, STYLE_TEMPLATES

ENCODER = "clip_tiny"
CONTEXT, WIDTH, CHANNELS, LEVELS = 20, 16, 4, 48
START, END = 0, 1
TEMPLATE_WORDS = {word for line in OBJECT_TEMPLATES + STYLE_TEMPLATES for word in re.findall(r"[a-z]+", line[:-6])}
WORDS = ("<start>", "<end>", ",", "-", *sorted(TEMPLATE_WORDS | {"and", "blue", "cat", "dog", "red", "toy", "with"}))


class Denoiser(nn.Module):
    """Convolution, attention of the pixels to the text, convolution."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.enter = nn.Conv2d(CHANNELS, width, 3, padding=1)
        self.level = nn.Linear(1, width)
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(WIDTH, width), nn.Linear(WIDTH, width)
        self.leave = nn.Conv2d(width, CHANNELS, 3, padding=1)

    def forward(self, noisy: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        hidden = self.enter(noisy) + self.level(sigma.log1p()[:, None])[:, :, None, None]
        pixels = hidden.flatten(2).transpose(1, 2)
        weights = (self.query(pixels) @ self.key(cond).transpose(1, 2) / pixels.shape[-1] ** 0.5).softmax(-1)
        attended = (weights @ self.value(cond)).transpose(1, 2).reshape(hidden.shape)
        return self.leave(nn.functional.silu(hidden + attended))


class TinyHost:
    """See ti_train/host.py. float64 is for finite differences."""

    bytes_per_latent = None
    memory_measured = True
    sampling = Sampling()
    remarks = ()
    bare_names = True
    known_marks = ()
    architecture = settings = ""
    full_precision = True

    def __init__(
        self,
        prediction: Prediction = "eps",
        dtype: torch.dtype = torch.float32,
        has_variance: bool = True,
        seed: int = 0,
    ) -> None:
        self.device, self.dtype = torch.device("cpu"), dtype
        self.widths, self.prediction, self.resolution = {ENCODER: WIDTH}, prediction, 32
        self.compression = self.unit = 8
        self.fingerprint, self.has_variance = f"tiny-{seed}", has_variance
        self.sigmas = torch.linspace(0.02, 1, LEVELS) if prediction == "flow" else torch.logspace(-1.5, 1, LEVELS)
        config = CLIPTextConfig(
            vocab_size=len(WORDS), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=CONTEXT, bos_token_id=START, eos_token_id=END,
            pad_token_id=END,
        )  # fmt: skip
        self.text_encoder, self.denoiser = CLIPTextModel(config).eval(), Denoiser()
        self.vae, self.decoder = nn.Conv2d(3, 2 * CHANNELS, 8, stride=8), nn.ConvTranspose2d(CHANNELS, 3, 8, stride=8)
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules:
            for name, weight in module.named_parameters():  # drawn here: the same under every library's version
                if weight.ndim > 1:
                    weight.data = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
                elif name.endswith("bias"):
                    weight.data.zero_()
            module.to(dtype)
        self.denoiser.value.weight.data *= 3  # the text counts

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.text_encoder, self.denoiser, self.vae, self.decoder

    @contextmanager
    def training(self, gradient_checkpointing: bool = False, memory: int = 0) -> Iterator[None]:
        """The weights are left trainable by whoever loaded this model; here they must not gather gradients."""
        weights = list(chain.from_iterable(module.parameters() for module in self.modules))
        flags = [weight.requires_grad for weight in weights]
        for weight in weights:
            weight.requires_grad_(False)
        try:
            with torch.enable_grad():
                yield
        finally:
            for weight, flag in zip(weights, flags, strict=True):
                weight.requires_grad_(flag)

    def vocabulary(self, encoder: str) -> Vocabulary:
        table = self.text_encoder.get_input_embeddings().weight
        return Vocabulary(table, self.tokenize, WORDS.__getitem__, limit=CONTEXT - 2)

    def tokenize(self, text: str) -> list[int]:
        """Words that are not in the vocabulary are dropped."""
        return [WORDS.index(word) for word in re.findall(r"[a-z]+|[^a-z\s]", text.lower()) if word in WORDS]

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Latents:
        signed = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        mean, log_variance = self.vae(signed.to(self.dtype)).float().chunk(2, dim=1)
        return Latents(mean, log_variance - 4 if self.has_variance else None)

    def encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size] = ()) -> Tensor:
        ids = torch.full((len(prompts), CONTEXT), END)
        patches: list[tuple[int, int, Tensor]] = []
        for row, prompt in enumerate(prompts):
            line = [START]
            for piece in prompt:
                if isinstance(piece, Slot):
                    vectors = embeddings[piece.name][ENCODER]
                    patches.append((row, len(line), vectors))
                    line += [START] * len(vectors)
                    if len(line) > CONTEXT - 1:
                        raise UserError(f"The prompt does not fit: '{piece.name}' ends at token {len(line) - 1}.")
                else:
                    line += self.tokenize(piece)
            line = line[: CONTEXT - 1]
            ids[row, : len(line)] = torch.tensor(line)

        def put(_module: nn.Module, _inputs: Any, looked_up: Tensor) -> Tensor:
            patched = looked_up.clone()
            for row, column, vectors in patches:
                patched[row, column : column + len(vectors)] = vectors.to(patched.dtype)
            return patched

        handle = self.text_encoder.get_input_embeddings().register_forward_hook(put)
        try:
            hidden: Tensor = self.text_encoder(ids)[0]
        finally:
            handle.remove()
        return hidden

    def conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
        states = self.encode(prompts, embeddings)
        return {
            ENCODER: [
                TextStates(s, None, self.end_of_slots(p, embeddings)) for s, p in zip(states, prompts, strict=True)
            ]
        }

    def end_of_slots(self, prompt: Prompt, embeddings: Embeddings) -> int:
        """The position behind the last slot; the start token is at 0."""
        end, place = 0, 1
        for piece in prompt:
            place += len(embeddings[piece.name][ENCODER]) if isinstance(piece, Slot) else len(self.tokenize(piece))
            end = place if isinstance(piece, Slot) else end
        return end

    def predict(self, noisy: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        noisy, sigma = noisy.to(self.dtype), sigma.to(self.dtype)
        if self.prediction != "flow":
            noisy = noisy / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
        answer: Tensor = self.denoiser(noisy, sigma, cond)
        return answer

    @torch.no_grad()
    def sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]:
        """Euler steps for eps, which is enough for a preview."""
        cond, empty = (
            self.encode(request.prompts, embeddings),
            self.encode([request.negative] * len(request.prompts), {}),
        )
        levels = self.sigmas[torch.linspace(LEVELS - 1, 0, request.steps).long()]
        shape = (CHANNELS, request.height // 8, request.width // 8)
        x = levels[0] * torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in request.seeds]
        )
        for level, following in zip(levels, [*levels[1:], torch.tensor(0.0)], strict=True):
            sigma = level.expand(len(x))
            slope, without = self.predict(x, sigma, cond), self.predict(x, sigma, empty)
            x = x + (following - level) * (without + request.guidance * (slope - without)).float()
        pixels = self.decoder(x.to(self.dtype)).sigmoid().mul(255).byte().permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(picture) for picture in pixels]


def dataset_of(host: Host, pictures: Path, flip: bool = False, captions: bool = False) -> Dataset:
    """All usable pictures of a folder, encoded by the host."""
    return encode_pictures(host, read_pictures(find_pictures(pictures), host.resolution, [], captions), flip)


@contextmanager
def at_forward(module: nn.Module, numbers: Sequence[int], action: Callable[[Tensor], Any]) -> Iterator[None]:
    """Runs `action` on the module's output in some of its forwards with gradients, counted from 1: the training steps.

    What it returns takes the output's place; what it raises, the model raises.
    """
    count = 0

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        nonlocal count
        count += torch.is_grad_enabled()
        return action(output) if torch.is_grad_enabled() and count in numbers else None

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def raising(error: BaseException) -> Callable[[Tensor], Any]:
    def action(_output: Tensor) -> Any:
        raise error

    return action


def not_a_number(output: Any) -> Any:
    return output * float("nan") if isinstance(output, Tensor) else tuple(part * float("nan") for part in output)
