"""The Forge host: Forge's own engine, with a text processing engine for each encoder (`backend`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from backend import memory_management
from backend.modules import k_prediction
from backend.text_processing import classic_engine
from modules import processing, sd_models
from modules.shared import opts
from torch import Tensor

from ...host import Embeddings, Latents, Prompt, Size, TextStates
from ..checkpointing import Recomputed
from ..residuals import copied_for
from ..weights import does_not_fit
from .families import refuse
from .host import Condition, WebUIHost, ends_in_noise


class ForgeHost(WebUIHost):
    """A Host (see host.py). Raises UserError for unsupported models and settings."""

    def __init__(self) -> None:
        model, _ = sd_models.forge_model_reload()  # Forge loads the selected checkpoint at first use
        self.encoders = {engine.embedding_key: engine for engine in engines(model)}
        self.unet, self.clip = model.forge_objects_original.unet, model.forge_objects_original.clip
        self.transformers = {name: engine.text_encoder for name, engine in self.encoders.items()}
        self.databases = [engine.embeddings for engine in self.encoders.values()]
        self.size_embedder = getattr(model, "embedder", None)
        self.network = self.unet.model.diffusion_model
        self.autoencoder = model.forge_objects_original.vae.first_stage_model
        predictor = self.unet.model.predictor
        sigmas = predictor.sigmas
        if ends_in_noise(model.model_config):
            sigmas = k_prediction.rescale_zero_terminal_snr_sigmas(sigmas)
        super().__init__(model, predictor.prediction_type, sigmas, self.unet.load_device)

    def _load(self, memory: int = 0) -> None:
        self.model.forge_objects = self.model.forge_objects_original.shallow_copy()  # the LoRAs of the last generation
        self.model.set_clip_skip(int(opts.CLIP_stop_at_last_layers))
        for loaded in self._loaded_in_part():  # it would stay so, however much memory is free by now
            memory_management.current_loaded_models.remove(loaded)
            loaded.model_unload()
        memory_management.load_models_gpu([self.unet, self.clip.patcher], memory)
        if in_part := self._loaded_in_part():
            raise does_not_fit(
                type(in_part[0].model.model).__name__,
                "Close other programs, lower 'GPU Weights', or start the WebUI without its low-VRAM flags.",
            )

    def _loaded_in_part(self) -> list[Any]:
        """Those of the models that Forge swaps between the GPU and the CPU while they are used."""
        models = (self.unet, self.clip.patcher)
        return [
            known
            for known in memory_management.current_loaded_models
            if known.model in models and known.model_accelerated
        ]

    @contextmanager
    def _chosen(self) -> Iterator[None]:
        """Forge loads the chosen model by this function, whose name `processing` has too."""
        own = sd_models.forge_model_reload
        sd_models.forge_model_reload = processing.forge_model_reload = lambda: (self.model, False)
        try:
            yield
        finally:
            sd_models.forge_model_reload = processing.forge_model_reload = own

    @contextmanager
    def _step(self, what: Recomputed) -> Iterator[None]:
        """Forge's U-Net adds its residuals in place."""
        names = {"norm1", "norm2"}
        norms = [m for name, m in self.network.named_modules() if name.rpartition(".")[2] in names]
        with super()._step(what), copied_for(norms):
            yield

    def ids_of(self, word: str, database: Any) -> list[int]:
        return list(database.tokenizer([word], truncation=False, add_special_tokens=False)["input_ids"][0])

    def read_folder(self) -> None:
        for database in self.databases:
            database.load_textual_inversion_embeddings()

    def _encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size]) -> list[Condition]:
        with silent_engines():
            return super()._encode(prompts, embeddings, sizes)

    def _conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
        with silent_engines():
            return super()._conditioning(prompts, embeddings)

    def _latents(self, pixels: Tensor) -> Latents:
        """The posterior's mean and log-variance, obtained by Forge's hook between encoder and sampling."""
        vae, seen = self.model.forge_objects.vae, []

        def mode(posterior: Any) -> Tensor:
            seen.append(posterior)
            output: Tensor = posterior.mode()
            return output

        options = vae.patcher.model_options
        vae.patcher.model_options = {**options, "model_vae_regulation": mode}
        try:
            mean = self.model.encode_first_stage(self._signed(pixels))
        finally:
            vae.patcher.model_options = options
        scale = torch.tensor(float(vae.first_stage_model.scaling_factor))
        log_variance = torch.cat([posterior.logvar.float() for posterior in seen]).to(self.device)
        return Latents(mean, log_variance + 2 * scale.log())

    def unet_forward(self, scaled: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        dtype = self.unet.model.computation_dtype
        about = None if vector is None else vector.to(dtype)
        output: Tensor = self.network(scaled.to(dtype), timesteps.float(), context=context.to(dtype), y=about)
        return output


@contextmanager
def silent_engines() -> Iterator[None]:
    """Suppresses what Forge prints, and adds to the next image's parameters, for each embedding in a prompt."""
    classic_engine.print = lambda *_: None
    described = dict(classic_engine.last_extra_generation_params)
    try:
        yield
    finally:
        del classic_engine.print
        classic_engine.last_extra_generation_params.clear()
        classic_engine.last_extra_generation_params.update(described)


def engines(model: Any) -> list[Any]:
    """One for each text encoder. Raises UserError for unsupported families."""
    if hasattr(model, "text_processing_engine"):
        return [model.text_processing_engine]
    if model.is_sdxl and hasattr(model, "text_processing_engine_l"):  # the refiner has none
        return [model.text_processing_engine_l, model.text_processing_engine_g]
    refuse(model)
