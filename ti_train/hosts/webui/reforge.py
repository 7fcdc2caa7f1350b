"""The reForge host: A1111's text encoder with ComfyUI's model management (`ldm_patched`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ldm_patched.modules import model_management, model_sampling
from modules import sd_hijack, shared
from modules_forge import forge_clip
from torch import Tensor

from ...host import Latents
from ..checkpointing import Recomputed
from ..residuals import copied_for, norms_in
from ..weights import does_not_fit
from .host import WebUIHost, ends_in_noise


class ReForgeHost(WebUIHost):
    """A Host (see host.py). Raises UserError for unsupported models and settings."""

    def __init__(self) -> None:
        model = shared.sd_model
        self.find_encoders(model, sd_hijack.model_hijack.embedding_db)
        self.unet, self.clip = model.forge_objects_original.unet, model.forge_objects_original.clip
        self.network = self.unet.model.diffusion_model
        self.autoencoder = model.forge_objects_original.vae.first_stage_model
        sigmas = self.unet.model.model_sampling.sigmas
        if ends_in_noise(model):
            sigmas = model_sampling.rescale_zero_terminal_snr_sigmas(sigmas)
        super().__init__(model, model.parameterization, sigmas, self.unet.load_device)

    def _load(self, memory: int = 0) -> None:
        self.model.forge_objects = self.model.forge_objects_original.shallow_copy()  # the LoRAs of the last generation
        model_management.load_models_gpu([self.unet, self.clip.patcher], memory, force_full_load=True)
        for patcher in (self.unet, self.clip.patcher):
            if getattr(patcher.model, "model_lowvram", False):
                raise does_not_fit(
                    type(patcher.model).__name__,
                    "Close other programs, or start the WebUI without its low-VRAM flags.",
                )

    @contextmanager
    def _step(self, what: Recomputed) -> Iterator[None]:
        """The text encoders add residuals in place. Loading is disabled: it could unload the U-Net."""
        with super()._step(what), copied_for(norms_in(*self.transformers.values())):
            move = forge_clip.move_clip_to_gpu
            forge_clip.move_clip_to_gpu = lambda: None
            try:
                yield
            finally:
                forge_clip.move_clip_to_gpu = move

    def _latents(self, pixels: Tensor) -> Latents:
        """The mean of the posterior, as in reForge's own encoding."""
        return Latents(self.model.get_first_stage_encoding(self.model.encode_first_stage(self._signed(pixels))), None)

    def unet_forward(self, scaled: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        inner = self.unet.model
        dtype = inner.get_dtype() if inner.manual_cast_dtype is None else inner.manual_cast_dtype
        about = None if vector is None else vector.to(dtype)
        output: Tensor = self.network(scaled.to(dtype), timesteps.float(), context=context.to(dtype), y=about)
        return output
