"""What every adapter has in common: the verbs of a Host, and the mode in which each of them runs.

Hosts load and move their weights in `torch.inference_mode()`. A weight that was made there and is moved outside of it
is lost for training and for sampling, whoever moves it (see `mend`). So the modes are settled here, once: everything
outside of a training step runs in inference mode, and what moves weights does so before a step begins. An adapter
gives the verbs with a leading underscore and deals with no mode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import final

import torch
from PIL import Image
from torch import Tensor, nn

from ..host import Cond, Latents, Prediction, Prompt, SampleRequest, Size, Vocabulary, Words
from .weights import alias, frozen, mend


class Adapter(ABC):
    """A Host (see host.py) over a program's loaded model."""

    stepping = False  # within a training step: weights may be used, and nothing may be moved
    kept_per_prompt = 0

    def __init__(
        self, device: torch.device, widths: dict[str, int], prediction: Prediction, sigmas: Tensor, resolution: int
    ) -> None:
        self.device, self.widths, self.prediction, self.resolution = device, widths, prediction, resolution
        with torch.inference_mode(False):
            self.sigmas = sigmas.detach().to(device, torch.float32, copy=True)

    @abstractmethod
    def _weights(self) -> tuple[nn.Module, ...]:
        """What gradients go through: the denoiser and the text encoders."""

    @abstractmethod
    def _load(self, memory: int = 0) -> None:
        """Has the host put these weights where they compute, all of them at once, and leave `memory` bytes free.

        Raises UserError where its settings do not let it.
        """

    @abstractmethod
    def _step(self, gradient_checkpointing: bool) -> AbstractContextManager[None]:
        """What the host needs for gradients besides frozen weights; entered with gradients on."""

    @abstractmethod
    def _fingerprint(self) -> str: ...

    @abstractmethod
    def _vocabulary(self, encoder: str) -> Vocabulary: ...

    @abstractmethod
    def _latents(self, pictures: Tensor) -> Latents: ...

    @abstractmethod
    def _encode(self, prompts: Sequence[Prompt], words: Words, sizes: Sequence[Size]) -> Cond: ...

    @abstractmethod
    def _predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor: ...

    @abstractmethod
    def _sample(self, request: SampleRequest, words: Words) -> list[Image.Image]: ...

    @final
    @contextmanager
    def training(self, gradient_checkpointing: bool = False, memory: int = 0) -> Iterator[None]:
        # before the weights are swapped: the host must not keep an alias as the original of a patch
        self._load_in_inference_mode(memory)
        with frozen(*self._weights()), torch.inference_mode(False), torch.enable_grad():
            self.stepping = True
            try:
                with self._step(gradient_checkpointing):
                    yield
            finally:
                self.stepping = False

    @final
    @cached_property
    def fingerprint(self) -> str:
        with self._mode():
            return self._fingerprint()

    @final
    def vocabulary(self, encoder: str) -> Vocabulary:
        """Its table can be read in every mode."""
        mend(*self._weights())
        vocabulary = self._vocabulary(encoder)
        return replace(vocabulary, table=alias(vocabulary.table)) if vocabulary.table.is_inference() else vocabulary

    @final
    def latents(self, pictures: Tensor) -> Latents:
        with torch.inference_mode():
            latents = self._latents(pictures)
        variance = None if latents.log_variance is None else self._plain(latents.log_variance)
        return Latents(self._plain(latents.mean), variance)

    @final
    def encode(self, prompts: Sequence[Prompt], words: Words, sizes: Sequence[Size] = ()) -> Cond:
        with self._mode():
            return self._encode(prompts, words, sizes)

    @final
    def predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        with self._mode():
            predicted = self._predict(noisy, sigma, cond)
        return predicted if self.stepping else self._plain(predicted)

    @final
    def sample(self, request: SampleRequest, words: Words) -> list[Image.Image]:
        fixed = {word: {e: v.detach() for e, v in vectors.items()} for word, vectors in words.items()}
        with torch.inference_mode():
            return self._sample(request, fixed)

    @contextmanager
    def _mode(self) -> Iterator[None]:
        """A step's own mode within one; outside, inference mode and loaded weights."""
        if self.stepping:
            yield
            return
        self._load_in_inference_mode()
        with torch.inference_mode():
            yield

    def _load_in_inference_mode(self, memory: int = 0) -> None:
        with torch.inference_mode():
            self._load(memory)
        mend(*self._weights())

    def _plain(self, tensor: Tensor) -> Tensor:
        """A tensor that a training step may save, fp32 on the device."""
        with torch.inference_mode(False):
            return tensor.to(self.device, torch.float32, copy=True)
