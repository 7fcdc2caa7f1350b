"""The AUTOMATIC1111 (1.8) host: the modules of the original release, with hooks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from modules import devices, sd_hijack, sd_hijack_open_clip, sd_models, shared
from modules.hypernetworks import hypernetwork
from PIL import Image
from torch import Tensor

from ...host import Embeddings, Latents, SampleRequest
from ..checkpointing import Recomputed
from ..noise_levels import sigmas_of
from .host import WebUIHost, ends_in_noise
from .medvram import HeldParts, fetch


class A1111Host(WebUIHost):
    """A Host (see host.py). Raises UserError for unsupported models and settings."""

    def __init__(self) -> None:
        model = shared.sd_model
        self.find_encoders(model, sd_hijack.model_hijack.embedding_db)
        self.network = model.model.diffusion_model
        self.autoencoder = model.first_stage_model
        self._parts = HeldParts(model)
        # a setting replaces the table by one in half precision during generation
        alphas = getattr(model, "alphas_cumprod_original", model.alphas_cumprod)
        if ends_in_noise(model):
            alphas = sd_models.rescale_zero_terminal_snr_abar(alphas)
        super().__init__(model, model.parameterization, sigmas_of(alphas), devices.device)

    def _load(self, _memory: int = 0) -> None:
        if "networks" in sys.modules:  # the bundled LoRA extension, which may be disabled
            sys.modules["networks"].load_networks([], [], [], [])
        hypernetwork.load_hypernetworks([])
        self._fetch_unloaded()
        self._parts.hold()

    def _fetch_unloaded(self) -> None:
        """Moves the model to the GPU if somebody has unloaded it, which a generation does not."""
        if not self.model.lowvram and next(self.network.parameters()).device.type != self.device.type:
            sd_models.send_model_to_device(self.model)

    def _release_weights(self) -> None:
        self._parts.release_weights()

    def _sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]:
        self._release_weights()
        self._fetch_unloaded()
        return super()._sample(request, embeddings)

    def precision(self) -> AbstractContextManager[Any]:
        autocast: AbstractContextManager[Any] = devices.autocast()
        return autocast

    @contextmanager
    def _step(self, what: Recomputed) -> Iterator[None]:
        """Disables the U-Net's own checkpointing, which needs weights with gradients."""
        names = ("checkpoint", "use_checkpoint")
        flags = [(m, name) for m in self.network.modules() for name in names if getattr(m, name, None) is True]
        for module, name in flags:
            setattr(module, name, False)
        try:
            with super()._step(what):
                yield
        finally:
            for module, name in flags:
                setattr(module, name, True)

    def piece(self, engine: Any, token: int) -> str:
        if hasattr(engine, "tokenizer"):
            return super().piece(engine, token)
        return str(sd_hijack_open_clip.tokenizer.decoder[token])

    def _latents(self, pixels: Tensor) -> Latents:
        """The posterior's mean and variance; Stable Diffusion XL's VAE class would return a sample."""
        self._release_weights()
        self._fetch_unloaded()
        fetch(self.autoencoder)
        vae: Any = self.autoencoder
        encoded = vae.quant_conv(vae.encoder(self._signed(pixels).to(devices.dtype_vae)))
        mean, log_variance = encoded.float().chunk(2, dim=1)
        scale = torch.tensor(float(self.model.scale_factor))
        return Latents(mean * scale, log_variance.clamp(-30, 20) + 2 * scale.log())

    def unet_forward(self, scaled: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        dtype = devices.dtype_unet
        conds: dict[str, Any] = {"c_crossattn": [context.to(dtype)], "c_concat": []}
        if vector is not None:
            conds = {"crossattn": context.to(dtype), "vector": vector.to(dtype)}
        output: Tensor = self.model.apply_model(scaled.to(dtype), timesteps, conds)
        return output
