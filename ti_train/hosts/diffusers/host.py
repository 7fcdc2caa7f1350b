"""The host of the command line: a Stable Diffusion 1, 2 or XL pipeline of diffusers.

The U-Net and the text encoders' linear layers have the dtype that is fastest on the hardware. The encoders' residual
stream, the VAE (Stable Diffusion XL's overflows in fp16), the vectors and all losses are fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...host import Embeddings, Latents, Prediction, Prompt, SampleRequest, Size, TextStates, Vocabulary, fingerprint
from ..adapter import Adapter
from ..checkpointing import Recomputed, checkpointed
from ..dropped_results import note_norms
from ..frozen_convolutions import keep_no_inputs
from ..noise_levels import network_input, sigmas_of, timesteps_of
from .fused.network import can_fuse, fuse
from .graphs import GraphedPasses
from .hardware import pick_device, pick_dtype
from .loading import load_pipeline, quiet_libraries
from .packed_convolutions import can_pack, pack
from .tensor_files import Placement
from .text import FAMILIES, Cond, text_states

PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}


class DiffusersHost(Adapter):
    """A Host (see host.py) for a diffusers pipeline; what differs between model families is in `family`."""

    moves_weights = False

    def __init__(self, pipeline: Any, device: torch.device, dtype: torch.dtype, loaded: str = "") -> None:
        """loaded: the fingerprint of the weights before they were cast, if they were."""
        self.dtype, self.pipeline, self.unet, self.vae = dtype, pipeline, pipeline.unet, pipeline.vae
        self.network = GraphedPasses(lambda *args, **kwargs: self.unet(*args, **kwargs, return_dict=False)[:1])
        self.family = FAMILIES[type(pipeline).__name__](pipeline)
        self.text_encoders = [encoder.model for encoder in self.family.encoders.values()]
        self._as_loaded = loaded or fingerprint(self.unet, *self.text_encoders, self.vae)
        widths = {name: encoder.vocabulary.table.shape[1] for name, encoder in self.family.encoders.items()}
        # 2^-24: the last level of a schedule that ends in pure noise (Lin et al. 2023) would be infinite
        sigmas = sigmas_of(pipeline.scheduler.alphas_cumprod.clamp_min(2**-24))
        resolution = int(self.unet.config.sample_size) * int(pipeline.vae_scale_factor)
        super().__init__(device, widths, PREDICTIONS[pipeline.scheduler.config.prediction_type], sigmas, resolution)
        pipeline.set_progress_bar_config(disable=True)
        if type(pipeline.vae).__name__ != "AutoencoderTiny":  # whose slicing was wrong in earlier versions
            pipeline.vae.enable_slicing()  # decodes one image at a time: a megapixel takes 3 GiB in fp32
        self._place()

    def _place(self) -> None:
        """Moves every weight to its device and dtype, and its layout."""
        placement = Placement(self.device, self.dtype)
        encoders = [("text_encoder", encoder) for encoder in self.text_encoders]
        with quiet_libraries():
            for part, module in (("unet", self.unet), ("vae", self.vae), *encoders):
                module.eval().requires_grad_(False)
                for layer in module.modules():
                    if not list(layer.children()):
                        layer.to(self.device, placement.dtype_of(part, layer))
                module.to(self.device)
        note_norms(self.unet)
        keep_no_inputs(self.unet)
        if can_fuse(self.device, self.dtype):
            fuse(self.unet)
        if can_pack(self.device, self.dtype):
            pack(self.unet)
        for layer in self.unet.modules():
            if isinstance(layer, nn.Conv2d) and not layer.weight.is_mkldnn and self.device.type != "mps":
                layer.to(memory_format=torch.channels_last)  # slower on MPS

    @classmethod
    def load(
        cls, path: Path, device: str = "auto", dtype: str = "auto", prediction: str | None = None
    ) -> DiffusersHost:
        """Loads a checkpoint file or a pipeline folder.

        prediction: epsilon or v_prediction, overriding the model's own setting. Raises UserError.
        """
        chosen = pick_device(device)
        placement = Placement(chosen, pick_dtype(dtype, chosen))
        pipeline, fingerprint = load_pipeline(path, prediction, placement)
        return cls(pipeline, placement.device, placement.dtype, fingerprint)

    def _weights(self) -> tuple[nn.Module, ...]:
        return self.unet, *self.text_encoders

    def _load(self, memory: int = 0) -> None:
        """Nothing to do: weights stay on their device."""

    def _fingerprint(self) -> str:
        """Of the weights before `_place` rounded them."""
        return self._as_loaded

    @contextmanager
    def _step(self, what: Recomputed) -> Iterator[None]:
        # graphs would hold the memory that this saves, and PyTorch records no part that is computed again
        self.network.begin(graphs=what is Recomputed.NOTHING)
        for encoder in self.family.encoders.values():
            encoder.passes.begin(graphs=what is not Recomputed.BLOCKS)
        # only the U-Net: activations of the text encoders are small
        with self._checkpointed() if what is Recomputed.BLOCKS else checkpointed(self.unet, what=what):
            yield

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        """diffusers' own gradient checkpointing."""
        self.unet.enable_gradient_checkpointing()
        self.unet.train()  # diffusers checkpoints only in training mode; dropout is 0
        try:
            yield
        finally:
            self.unet.disable_gradient_checkpointing()
            self.unet.eval()

    def _vocabulary(self, encoder: str) -> Vocabulary:
        return self.family.encoders[encoder].vocabulary

    def _latents(self, pixels: Tensor) -> Latents:
        encoded = self.vae.encode(self._signed(pixels))
        shift, scale = self._latent_scale()
        if hasattr(encoded, "latents"):  # AutoencoderTiny has no posterior
            return Latents((encoded.latents - shift) * scale, None)
        posterior = encoded.latent_dist
        return Latents((posterior.mean - shift) * scale, posterior.logvar + 2 * torch.log(torch.tensor(scale)))

    def _latent_scale(self) -> tuple[float, float]:
        config = self.vae.config
        return float(getattr(config, "shift_factor", None) or 0.0), float(config.scaling_factor)

    def _encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size]) -> Cond:
        """The U-Net's keyword arguments, fp32, as the pipeline computes them."""
        with self._autocast():
            return self.family.encode(prompts, embeddings, sizes)

    def _conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
        with self._autocast():
            return text_states(self.family, prompts, embeddings)

    def _predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        timesteps, scaled = timesteps_of(sigma, self.sigmas), network_input(noisy, sigma)
        text = cond["encoder_hidden_states"].to(self.dtype)
        given = cond | {"encoder_hidden_states": text}
        _, per_latent = self.bytes_per_latent or (0, 0)
        activations = per_latent * noisy[:, 0].numel()
        return self.network(activations, scaled.to(self.dtype), timesteps, **given)[0].float()

    def _sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]:
        """Samples with the pipeline and the model's own scheduler."""
        with self._autocast():
            latents = self.pipeline(
                **self.family.sampling(request, embeddings),
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                width=request.width,
                height=request.height,
                generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
                output_type="latent",
            ).images
        shift, scale = self._latent_scale()
        pictures = self.vae.decode(latents.float() / scale + shift, return_dict=False)[0]
        return list(self.pipeline.image_processor.postprocess(pictures, output_type="pil"))

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        # without a cache, which graphs do not allow: frozen weights are never in it
        return torch.autocast(self.device.type, self.dtype, cache_enabled=False)
