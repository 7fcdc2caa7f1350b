"""The host of the command line: a Stable Diffusion 1, 2 or XL model in diffusers, loaded here.

The U-Net and the text encoders' linear layers are kept in the dtype that the hardware computes fastest; the encoders'
residual stream, the VAE (Stable Diffusion XL's overflows in fp16), the vectors and all losses stay fp32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import UserError
from ...host import Latents, Prediction, Prompt, SampleRequest, Size, Vocabulary, Words, fingerprint
from .loading import load_pipeline, quiet_libraries
from .text import FAMILIES, Cond

PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}
WITHOUT_FP16 = re.compile(r"GTX 16|CMP 30HX|MX[45]50|\bT(400|500|550|600|1000|1200|2000)\b")  # Turing's TU116, TU117
AMD_WITH_BF16 = re.compile(r"gfx(908|90a|94|95|11|12)")  # CDNA; RDNA 3 and newer
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """ "auto" takes the first accelerator there is. Raises UserError for one that is not there."""
    there = {
        "cuda": torch.cuda.is_available(),
        "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, present in there.items() if present))
    kind = name.partition(":")[0]
    if not there.get(kind, False):
        usable = ", ".join(kind for kind, present in there.items() if present)
        raise UserError(f"The device '{name}' is not there. This computer and this PyTorch have: {usable}.")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" takes what the device computes fastest without losing range where that matters. Raises UserError."""
    if name != "auto":
        if device.type == "mps" and DTYPES[name] != torch.float32 and not has_autocast("mps"):
            raise UserError(
                f"PyTorch {torch.__version__} computes on Apple's GPUs in float32 alone. Give --dtype float32."
            )
        return DTYPES[name]
    if device.type == "cuda":
        return dtype_of_amd(device) if torch.version.hip else dtype_of_nvidia(device)
    if device.type == "xpu":
        return torch.bfloat16
    if device.type == "mps" and has_autocast("mps"):
        return torch.float16
    if device.type == "cpu":
        # bf16 is two to four times faster where the CPU has it, and four times slower where it is emulated
        native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if any(getattr(torch.cpu, check, lambda: False)() for check in native):
            return torch.bfloat16
    return torch.float32


def has_autocast(kind: str) -> bool:
    """Whether PyTorch has autocast for a kind of devices; before 2.4 it has no such question, and none for "mps"."""
    ask = getattr(torch.amp, "is_autocast_available", None)
    return bool(ask and ask(kind))


def dtype_of_nvidia(device: torch.device) -> torch.dtype:
    """Ampere and newer have bf16, Volta and Turing fp16; in fp16 Pascal crawls, and the GTX 16's answer is NaN."""
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return torch.bfloat16
    broken = WITHOUT_FP16.search(torch.cuda.get_device_name(device))
    return torch.float16 if capability >= (7, 0) and not broken else torch.float32


def dtype_of_amd(device: torch.device) -> torch.dtype:
    """By the architecture: PyTorch says of every AMD card that it has bf16, and RDNA 2's capability is (10, 3)."""
    architecture = torch.cuda.get_device_properties(device).gcnArchName
    return torch.bfloat16 if AMD_WITH_BF16.match(architecture) else torch.float16


class DiffusersHost:
    """A Host (see host.py) over the parts of a diffusers pipeline; what tells the families apart is in `family`."""

    def __init__(self, pipeline: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.pipeline, self.unet, self.vae = pipeline, pipeline.unet, pipeline.vae
        self.family = FAMILIES[type(pipeline).__name__](pipeline)
        self.text_encoders = [encoder.model for encoder in self.family.encoders.values()]
        self.widths = {name: encoder.vocabulary.table.shape[1] for name, encoder in self.family.encoders.items()}
        self.fingerprint = fingerprint(self.unet, *self.text_encoders, self.vae)
        self.prediction: Prediction = PREDICTIONS[pipeline.scheduler.config.prediction_type]
        # 2^-24: a schedule that ends in pure noise (Lin et al. 2023) would have an infinite last level
        alphas = pipeline.scheduler.alphas_cumprod.double().clamp_min(2**-24)
        self.sigmas = ((1 - alphas) / alphas).sqrt().float().to(device)
        self.resolution = int(self.unet.config.sample_size) * int(pipeline.vae_scale_factor)
        pipeline.set_progress_bar_config(disable=True)
        self._place()

    def _place(self) -> None:
        """Moves every weight once, in the type that it is kept in."""
        with quiet_libraries():
            for module in (*self.text_encoders, self.unet, self.vae):
                module.eval().requires_grad_(False)
            self.unet.to(self.device, self.dtype)
            self.vae.to(self.device, torch.float32)
        for encoder in self.text_encoders:
            for module in encoder.modules():
                if not list(module.children()):
                    module.to(self.dtype if isinstance(module, nn.Linear) else torch.float32)
            encoder.to(self.device)
        if self.device.type != "mps":  # convolutions there are slower in this layout
            self.unet.to(memory_format=torch.channels_last)

    @classmethod
    def load(
        cls, path: Path, device: str = "auto", dtype: str = "auto", prediction: str | None = None
    ) -> DiffusersHost:
        """Loads a checkpoint file or a pipeline folder.

        prediction: epsilon or v_prediction, where what the model says about itself is wrong. Raises UserError.
        """
        chosen = pick_device(device)
        return cls(load_pipeline(path, prediction), chosen, pick_dtype(dtype, chosen))

    @contextmanager
    def training(self, gradient_checkpointing: bool = False) -> Iterator[None]:
        if gradient_checkpointing:  # of the U-Net: the text encoders' activations are small
            self.unet.enable_gradient_checkpointing()
            self.unet.train()  # diffusers checkpoints in training mode only; the dropout is 0
        try:
            with torch.enable_grad():
                yield
        finally:
            if gradient_checkpointing:
                self.unet.disable_gradient_checkpointing()
                self.unet.eval()

    def vocabulary(self, encoder: str) -> Vocabulary:
        return self.family.encoders[encoder].vocabulary

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Latents:
        encoded = self.vae.encode(pictures)
        shift, scale = self._latent_scale()
        if hasattr(encoded, "latents"):  # AutoencoderTiny has no distribution
            return Latents((encoded.latents - shift) * scale, None)
        posterior = encoded.latent_dist
        return Latents((posterior.mean - shift) * scale, posterior.logvar + 2 * torch.log(torch.tensor(scale)))

    def _latent_scale(self) -> tuple[float, float]:
        config = self.vae.config
        return float(getattr(config, "shift_factor", None) or 0.0), float(config.scaling_factor)

    def encode(self, prompts: Sequence[Prompt], words: Words, sizes: Sequence[Size] = ()) -> Cond:
        """The U-Net's keyword arguments, fp32: what the pipeline makes of the same prompts."""
        with self._autocast():
            return self.family.encode(prompts, words, sizes)

    def predict(self, noisy: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        timesteps = torch.searchsorted(self.sigmas, sigma.contiguous()).clamp_max(len(self.sigmas) - 1)
        scaled = noisy / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
        text = cond["encoder_hidden_states"].to(self.dtype)
        given = cond | {"encoder_hidden_states": text}
        answer: Tensor = self.unet(scaled.to(self.dtype), timesteps, **given, return_dict=False)[0]
        return answer.float()

    @torch.no_grad()
    def sample(self, request: SampleRequest, words: Words) -> list[Image.Image]:
        """The pipeline's own sampling, its scheduler as the model configures it."""
        with self._autocast():
            latents = self.pipeline(
                **self.family.sampling(request, words),
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
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)
