"""What the core needs from a host: a few methods, and the small types that they exchange.

An adapter connects the core to the program that has loaded the diffusion model. The core never sees token ids, modules
or the network's own timesteps; a host never sees templates, losses or files. `Cond` is whatever the host's denoiser is
conditioned on: the core passes it from `encode` to `predict` and does not look inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
Embeddings = Mapping[str, Vectors]  # word -> its vectors


@dataclass(frozen=True)
class Slot:
    """The place of an embedding in a prompt: its vectors are inserted there in place of tokens."""

    name: str


Prompt = tuple[str | Slot, ...]  # ("a photo of ", Slot("*"), " on the moon")


@dataclass(frozen=True)
class Size:
    """The size conditioning of Stable Diffusion XL, each (height, width) in pixels (Podell et al. 2023, section 2.2).

    original: before scaling. crop: rows and columns of the scaled image that were cropped at the top left. target: the
    size after cropping.
    """

    original: tuple[int, int]
    crop: tuple[int, int]  # (top, left)
    target: tuple[int, int]


@dataclass(frozen=True)
class TextStates:
    """What one text encoder makes of one prompt, on the host's device, differentiable in the vectors of its slots."""

    states: Tensor  # [T, width]: its hidden states as the denoiser reads them, with start, end and padding
    pooled: Tensor | None  # [width]: its pooled output, if the host computes one
    after: int  # index of the first state behind the last slot; 0 without a slot


@dataclass(frozen=True)
class Latents:
    """The VAE's posterior in the denoiser's scale; log_variance is None if the VAE has none or hides it."""

    mean: Tensor  # [B, C, h, w] fp32
    log_variance: Tensor | None


@dataclass(frozen=True)
class Sampling:
    """How a preview is sampled. sampler, scheduler: the host's names; here ComfyUI's, the defaults of its KSampler."""

    steps: int = 25
    cfg: float = 5.0
    sampler: str = "euler"
    scheduler: str = "normal"


@dataclass(frozen=True)
class SampleRequest:
    """Images to sample with the host's own sampler: prompt i with seed i, all of one size."""

    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    width: int  # pixels
    height: int
    steps: int = Sampling.steps
    guidance: float = Sampling.cfg
    negative: Prompt = ("",)
    sampler: str = Sampling.sampler  # used by ComfyUI and the WebUIs
    scheduler: str = Sampling.scheduler  # used by ComfyUI


@dataclass(frozen=True)
class Vocabulary:
    """A text encoder's vocabulary. table: its input embedding [V, width], which is never modified."""

    table: Tensor
    tokenize: Callable[[str], list[int]]  # without start, end and padding
    spell: Callable[[int], str]
    scale: float = 1.0  # of the rows as the encoder reads them: Gemma multiplies them by the root of the width
    limit: int | None = None  # tokens of a prompt that the host encodes; None if it encodes longer ones in chunks

    @cached_property
    def norms(self) -> Tensor:
        """L2 norm of each row, [V] fp32."""
        return self.scale * torch.cat([rows.norm(dim=-1) for rows in self._in_parts()])

    @property
    def mean_norm(self) -> float:
        """Mean L2 norm of the rows, without rows of zeros."""
        return float(self.norms[self.norms > 0].mean())

    @cached_property
    def spread(self) -> float:
        """Standard deviation of a coordinate of the rows, from some thousands of them."""
        rows = self.table.detach()[:: max(1, len(self.table) // 4096)]
        return self.scale * float(rows.float().std())

    def rows(self, text: str) -> Tensor:
        """The rows of a text's tokens, [tokens, width] fp32."""
        return self.scale * self.table.detach()[self.tokenize(text)].float()

    def nearest(self, vector: Tensor, count: int = 5) -> list[tuple[str, float]]:
        """The vocabulary's entries nearest to a vector [width]: (text, cosine similarity), best first."""
        vector = vector.to(self.table.device, torch.float32)
        products = self.scale * torch.cat([rows @ vector for rows in self._in_parts()])
        similarity = products / (self.norms * vector.norm()).clamp_min(1e-12)
        best = similarity.topk(count)
        return [(self.spell(int(i)), float(s)) for s, i in zip(best.values, best.indices, strict=True)]

    def _in_parts(self) -> Iterator[Tensor]:
        """The rows in fp32, some thousands at a time: in one piece a large encoder's would take gigabytes."""
        return (rows.float() for rows in self.table.detach().split(8192))


class Host(Protocol):
    """A loaded text-to-image model, as the training loop uses it. Tensors are fp32 on `device`."""

    device: torch.device
    widths: dict[str, int]  # encoder name -> width of its input embedding, e.g. {"clip_l": 768}
    prediction: Prediction
    sigmas: Tensor  # [T] ascending: the noise levels of the model's training
    resolution: int  # side in pixels of the model's training images
    compression: int  # pixels of a latent's side
    unit: int  # pixels of which the sides of training images are multiples
    sampling: Sampling  # of previews, unless the user chooses
    remarks: tuple[str, ...]  # what the user should know before a run
    architecture: str  # the identifier of its model in ModelSpec's headers; "" if it has none
    known_marks: Collection[str]  # of embeddings that the host itself replaces in a prompt, as they are written
    bare_names: bool  # whether prompts use an embedding by its bare name, and not only by a syntax of its own

    @property
    def bytes_per_latent(self) -> tuple[int, int] | None:
        """Of the device's memory that a step needs for each position of an image's latents, as the model computes.

        With and without gradient checkpointing; None if nothing is known.
        """

    @property
    def memory_measured(self) -> bool:
        """Whether `bytes_per_latent` was measured for this kind of network, and not only estimated."""

    @property
    def fingerprint(self) -> str:
        """Identifies the weights."""

    @property
    def settings(self) -> str:
        """Those of the host that change what is trained and sampled, such as its clip skip; "" if it has none."""

    @property
    def full_precision(self) -> bool:
        """Whether all weights are float32."""

    def training(self, gradient_checkpointing: bool = False, memory: int = 0) -> AbstractContextManager[None]:
        """Makes the model differentiable within the context, and restores everything on leaving it.

        memory: bytes that a step is expected to need besides the weights; the host makes room for them.
        """

    def vocabulary(self, encoder: str) -> Vocabulary: ...

    def latents(self, pixels: Tensor) -> Latents:
        """Encodes images, uint8 [B, H, W, 3] on the CPU."""

    def encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size] = ()) -> Cond:
        """The conditioning of a batch of prompts, as the host computes it; differentiable in the vectors.

        sizes: one for each prompt, or none for the host's default. Raises UserError if a slot does not fit into the
        encoder's context.
        """

    def conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
        """What `encode` computes on its way, of each encoder alone: encoder name -> one for each prompt.

        For losses on the text alone, without a denoiser. Call it within `training()`.
        """

    def predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        """The model's prediction, [B, C, h, w], in its own parametrisation (eps, v or flow).

        noisy: x0 + sigma * noise (flow: (1 - sigma) * x0 + sigma * noise), [B, C, h, w], not scaled to the network's
        input; sigma: [B], values of `sigmas`.
        """

    def sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]: ...


def fingerprint(*modules: nn.Module) -> str:
    """Identifies weights, see `digest_of`."""
    return digest_of(chain.from_iterable(module.state_dict().items() for module in modules))


def digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Identifies tensors by their names, shapes and a few of their values."""
    digest = Digest()
    for name, tensor in tensors:
        digest.add(name, tensor)
    return digest.text()


class Digest:
    """Of tensors that come one by one, see `digest_of`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        self._hash.update(f"{name}{tuple(tensor.shape)}".encode())
        if not tensor.is_meta:  # of GGUF files, whose layers do not tell what they hold
            flat = tensor.detach().flatten()
            few = flat[:: max(1, flat.numel() // 16)][:16].float().cpu().numpy()
            self._hash.update(few.tobytes())

    def text(self) -> str:
        return self._hash.hexdigest()[:16]
