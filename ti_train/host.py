"""What the core asks of a host: a handful of verbs, and the small types that cross the boundary.

A host adapter translates between the program that has loaded a diffusion model and the core. The core never sees token
ids, timesteps of the network or modules; a host never sees templates, losses or files. `Cond` is whatever the host's
denoiser is conditioned on: the core hands it from `encode` to `predict` and looks at nothing in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

Prediction = Literal["eps", "v", "flow"]
Cond = Any
Vectors = Mapping[str, Tensor]  # encoder name -> [num_vectors, width]
Words = Mapping[str, Vectors]  # word -> its vectors


@dataclass(frozen=True)
class Slot:
    """The place of a learnt word in a prompt; its vectors stand there instead of tokens."""

    word: str


Prompt = tuple[str | Slot, ...]  # ("a photo of ", Slot("*"), " on the moon")


@dataclass(frozen=True)
class Size:
    """Where a training picture comes from, (height, width) in pixels: Stable Diffusion XL is conditioned on it.

    (Podell et al. 2023, section 2.2: the size before scaling, the scaled picture's rows and columns cut off at the top
    left, and what is left.)
    """

    original: tuple[int, int]
    crop: tuple[int, int]  # (top, left)
    target: tuple[int, int]


@dataclass(frozen=True)
class Latents:
    """A VAE's answer for pictures, in the denoiser's scale; log_variance is None where the VAE has none."""

    mean: Tensor  # [B, C, h, w] fp32
    log_variance: Tensor | None


@dataclass(frozen=True)
class SampleRequest:
    """Pictures to sample by the host's normal path: prompt i with seed i, all of one size."""

    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    width: int  # pixels
    height: int
    steps: int = 25
    guidance: float = 5.0
    negative: Prompt = ("",)


@dataclass(frozen=True)
class Vocabulary:
    """A text encoder's own words: `table` is its input embedding [V, width], read but never changed."""

    table: Tensor
    tokenize: Callable[[str], list[int]]  # without start, end and padding
    spell: Callable[[int], str]

    @cached_property
    def norms(self) -> Tensor:
        """L2 norm of each row, [V] fp32."""
        norms: Tensor = self.table.detach().norm(dim=-1, dtype=torch.float32)
        return norms

    def rows(self, text: str) -> Tensor:
        """The rows of a piece of text, [tokens, width] fp32."""
        return self.table.detach()[self.tokenize(text)].float()

    def nearest(self, vector: Tensor, count: int = 5) -> list[tuple[str, float]]:
        """The words most like a vector [width]: (word, cosine similarity), best first."""
        table = self.table.detach().to(torch.float32)
        similarity = table @ vector.to(table) / (self.norms * vector.norm()).clamp_min(1e-12)
        best = similarity.topk(count)
        return [(self.spell(int(i)), float(s)) for s, i in zip(best.values, best.indices, strict=True)]


class Host(Protocol):
    """A loaded text-to-image model, as the training loop needs it. Tensors are fp32 on `device`."""

    device: torch.device
    widths: dict[str, int]  # encoder name -> width of its input embedding, e.g. {"clip_l": 768}
    prediction: Prediction
    sigmas: Tensor  # [T] ascending: the noise levels that the model was trained on
    resolution: int  # side in pixels of the pictures that the model was trained on

    @property
    def fingerprint(self) -> str:
        """Tells one set of weights from another."""

    def training(self, gradient_checkpointing: bool = False) -> AbstractContextManager[None]:
        """Makes the model differentiable inside the context and puts everything back on leaving it."""

    def vocabulary(self, encoder: str) -> Vocabulary: ...

    def latents(self, pictures: Tensor) -> Latents:
        """Encodes pictures [B, 3, H, W] in [-1, 1]."""

    def encode(self, prompts: Sequence[Prompt], words: Words, sizes: Sequence[Size] = ()) -> Cond:
        """Conditions for a batch of prompts, by the host's own inference rules; differentiable in the vectors.

        sizes: one for each prompt, of the picture that it describes; none: what the host samples with by itself.
        Raises UserError when a slot does not fit into the encoder's context.
        """

    def predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        """Answers, in the model's own parametrisation, x0 + sigma * noise (flow: (1-sigma) * x0 + sigma * noise).

        noisy: [B, C, h, w]; sigma: [B], values of `sigmas`. The scaling of the network's input is the host's.
        """

    def sample(self, request: SampleRequest, words: Words) -> list[Image.Image]: ...


def fingerprint(*modules: nn.Module) -> str:
    """Tells one set of weights from another by the names, shapes and a few values of its tensors."""
    digest = hashlib.sha256()
    for name, tensor in chain.from_iterable(module.state_dict().items() for module in modules):
        flat = tensor.detach().flatten()
        few = flat[:: max(1, flat.numel() // 16)][:16].float().cpu().numpy()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + few.tobytes())
    return digest.hexdigest()[:16]
