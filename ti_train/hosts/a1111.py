"""The host inside AUTOMATIC1111 (1.8): the modules of the original release, with hooks on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from modules import devices, lowvram, sd_hijack, shared
from modules.hypernetworks import hypernetwork
from torch import Tensor

from ..errors import UserError
from .base import Latents
from .webui import WebUIHost, check_family


class A1111Host(WebUIHost):
    """A Host (see base.py). Raises UserError for a model or a setting that cannot be trained with."""

    def __init__(self) -> None:
        model = shared.sd_model
        check_family(model)
        if lowvram.is_enabled(model):
            raise UserError(
                "The WebUI runs with --medvram or --lowvram, which move the model's parts in and out of the GPU within "
                "a step; a training step needs them together. Start the WebUI without, and use gradient checkpointing "
                "if the memory does not suffice."
            )
        self.encoder = model.cond_stage_model
        self.database = sd_hijack.model_hijack.embedding_db
        self.transformer = self.encoder.wrapped.transformer
        self.network = model.model.diffusion_model
        self.autoencoder = model.first_stage_model
        # a setting replaces the table by one in half precision when something is generated
        alphas = getattr(model, "alphas_cumprod_original", model.alphas_cumprod).double()
        super().__init__(model, model.parameterization, ((1 - alphas) / alphas).sqrt(), devices.device)

    def load(self) -> None:
        if "networks" in sys.modules:  # the LoRA extension that comes along; it may be switched off
            sys.modules["networks"].load_networks([], [], [], [])
        hypernetwork.load_hypernetworks([])

    def precision(self) -> AbstractContextManager[Any]:
        autocast: AbstractContextManager[Any] = devices.autocast()
        return autocast

    @contextmanager
    def training(self, gradient_checkpointing: bool = False) -> Iterator[None]:
        """The U-Net's own checkpointing wants weights with gradients: it is off; ours may be on."""
        names = ("checkpoint", "use_checkpoint")
        flags = [(m, name) for m in self.network.modules() for name in names if getattr(m, name, None) is True]
        for module, name in flags:
            setattr(module, name, False)
        try:
            with super().training(gradient_checkpointing):
                yield
        finally:
            for module, name in flags:
                setattr(module, name, True)

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Latents:
        with self.precision():
            posterior = self.model.encode_first_stage(pictures.to(devices.dtype_vae))
        scale = torch.tensor(float(self.model.scale_factor))
        mean = posterior.mean.float() * scale
        return Latents(mean, posterior.logvar.float() + 2 * scale.log())

    def answer(self, scaled: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        conds = {"c_crossattn": [context.to(devices.dtype_unet)], "c_concat": []}
        output: Tensor = self.model.apply_model(scaled.to(devices.dtype_unet), timesteps, conds)
        return output
