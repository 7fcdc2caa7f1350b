"""The base class of all adapters: the methods of a Host, and the autograd mode in which each runs.

Hosts load and move their weights in `torch.inference_mode()`. A weight that was created there and moved outside of it
can no longer be used, for training or sampling (see `restore_inference_tensors`). So the modes are handled here, once:
everything outside of a training step runs in inference mode, and weights are moved only before a step. Subclasses
implement the methods with a leading underscore and need not handle modes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import final

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from ..device import free_memory
from ..host import (
    Cond,
    Embeddings,
    Latents,
    Prediction,
    Prompt,
    SampleRequest,
    Sampling,
    Size,
    TextStates,
    Vocabulary,
)
from .checkpointing import Recomputed
from .dropped_results import results_dropped
from .weights import alias, frozen, restore_inference_tensors

# width of the text conditioning -> see Host.bytes_per_latent, in half precision. Measured with benchmarks/memory.py
BYTES_PER_LATENT = {
    768: (62_000, 150_000),  # Stable Diffusion 1
    1024: (62_000, 150_000),  # 2: the same U-Net with wider text
    2048: (46_000, 265_000),  # XL
}


class Adapter(ABC):
    """A Host (see host.py) for the model that a program has loaded."""

    moves_weights = True  # False: they stay where and what they are, and are frozen, so no step has to look at each
    _too_much: float = math.inf  # bytes that a step could not have
    stepping = False  # within a training step, in which no weights may be moved
    sampling = Sampling()
    compression = unit = 8  # of Stable Diffusion 1, 2 and XL
    remarks: tuple[str, ...] = ()
    bare_names = False
    architecture = ""
    known_marks: Collection[str] = ()

    def __init__(
        self, device: torch.device, widths: dict[str, int], prediction: Prediction, sigmas: Tensor, resolution: int
    ) -> None:
        self.device, self.widths, self.prediction, self.resolution = device, widths, prediction, resolution
        with torch.inference_mode(False):
            self.sigmas = sigmas.detach().to(device, torch.float32, copy=True)

    @abstractmethod
    def _weights(self) -> tuple[nn.Module, ...]:
        """The modules that gradients pass through: the denoiser and the text encoders."""

    @abstractmethod
    def _load(self, memory: int = 0) -> None:
        """Loads all of these weights to their devices, through the host, and leaves `memory` bytes free.

        Raises UserError if the host's settings prevent that.
        """

    @abstractmethod
    def _step(self, what: Recomputed) -> AbstractContextManager[None]:
        """What the host needs for gradients besides frozen weights. Entered with gradients enabled."""

    @abstractmethod
    def _fingerprint(self) -> str: ...

    @abstractmethod
    def _vocabulary(self, encoder: str) -> Vocabulary: ...

    @abstractmethod
    def _latents(self, pixels: Tensor) -> Latents: ...

    @abstractmethod
    def _encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size]) -> Cond: ...

    @abstractmethod
    def _conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]: ...

    @abstractmethod
    def _predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor: ...

    @abstractmethod
    def _sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]: ...

    @final
    @contextmanager
    def training(self, gradient_checkpointing: bool = False, memory: int = 0) -> Iterator[None]:
        # before the weights are swapped: the host must not back up an alias as the original of a patch
        self._load_in_inference_mode(memory)
        weights = self._moving_weights()
        # where a step is not known to need much memory, it would only take longer
        lean = results_dropped(*weights) if memory else nullcontext()
        what = Recomputed.BLOCKS if gradient_checkpointing else self._recomputed(memory)
        with frozen(*weights), torch.inference_mode(False), torch.enable_grad(), lean:
            self.stepping = True
            try:
                with self._step(what):
                    yield
            finally:
                self.stepping = False

    def _recomputed(self, memory: int) -> Recomputed:
        """What a step computes again without gradient checkpointing, so that it fits into what is free.

        Once there was too little, until there is twice as much: steps that change back and forth record graphs anew.
        """
        if not memory or not self.memory_measured:
            return Recomputed.NOTHING
        free = free_memory(self.device)
        if free is not None and free >= 2 * self._too_much:
            self._too_much = math.inf
        if free is not None and free < memory:
            self._too_much = min(self._too_much, memory)
        return Recomputed.FEED_FORWARDS if memory >= self._too_much else Recomputed.NOTHING

    @property
    def bytes_per_latent(self) -> tuple[int, int] | None:
        measured = BYTES_PER_LATENT.get(sum(self.widths.values()))
        size = 2 if self._in_float32 else 1
        return measured and (size * measured[0], size * measured[1])

    @property
    def memory_measured(self) -> bool:
        return True

    @property
    def _in_float32(self) -> bool:
        """Whether the denoiser computes in float32, and its activations take twice as much."""
        return next(self._weights()[0].parameters()).dtype == torch.float32

    @final
    @property
    def full_precision(self) -> bool:
        floats = (p for module in self._weights() for p in module.parameters() if p.is_floating_point())
        return all(parameter.dtype == torch.float32 for parameter in floats)

    @property
    def settings(self) -> str:
        return ""

    @final
    @cached_property
    def fingerprint(self) -> str:
        with self._mode():
            return self._fingerprint()

    @final
    def vocabulary(self, encoder: str) -> Vocabulary:
        """The vocabulary, with a table that can be read in every mode."""
        restore_inference_tensors(*self._weights())
        vocabulary = self._vocabulary(encoder)
        return replace(vocabulary, table=alias(vocabulary.table)) if vocabulary.table.is_inference() else vocabulary

    @final
    def latents(self, pixels: Tensor) -> Latents:
        with torch.inference_mode():
            latents = self._latents(pixels)
        variance = None if latents.log_variance is None else self._plain(latents.log_variance)
        return Latents(self._plain(latents.mean), variance)

    @final
    def encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size] = ()) -> Cond:
        with self._mode():
            return self._encode(prompts, self._placed(embeddings), sizes)

    @final
    def conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
        with self._mode():
            return self._conditioning(prompts, self._placed(embeddings))

    @final
    def predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        with self._mode():
            predicted = self._predict(noisy, sigma, cond)
        return predicted if self.stepping else self._plain(predicted)

    @final
    def sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]:
        fixed = {name: {e: v.detach() for e, v in vectors.items()} for name, vectors in embeddings.items()}
        with torch.inference_mode():
            return self._sample(request, self._placed(fixed))

    def _placed(self, embeddings: Embeddings) -> Embeddings:
        """The same vectors on the device: those of a file are on the CPU."""
        return {name: {e: v.to(self.device) for e, v in vectors.items()} for name, vectors in embeddings.items()}

    @contextmanager
    def _mode(self) -> Iterator[None]:
        """Within a step its mode; outside, inference mode with loaded weights."""
        if self.stepping:
            yield
            return
        self._load_in_inference_mode()
        with torch.inference_mode():
            yield

    def _load_in_inference_mode(self, memory: int = 0) -> None:
        with torch.inference_mode():
            self._load(memory)
        restore_inference_tensors(*self._moving_weights())

    def _moving_weights(self) -> tuple[nn.Module, ...]:
        return self._weights() if self.moves_weights else ()

    def _signed(self, pixels: Tensor) -> Tensor:
        """What Stable Diffusion's autoencoders take: [B, 3, H, W] in [-1, 1] on the device, from uint8 [B, H, W, 3]."""
        return rearrange(pixels, "b h w c -> b c h w").float().div(127.5).sub(1).to(self.device)

    def _plain(self, tensor: Tensor) -> Tensor:
        """A copy that autograd can save, fp32 on the device."""
        with torch.inference_mode(False):
            return tensor.to(self.device, torch.float32, copy=True)
