"""The ComfyUI host: the MODEL, CLIP and VAE of a graph.

Everything goes through ComfyUI's own objects (tokenizer, `encode_from_tokens`, `extra_conds`, `apply_model`,
`model_sampling`, sampler), so training uses the model exactly as the graph samples it, with its LoRAs and clip skip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from PIL import Image
from torch import Tensor, nn

from ...host import (
    Embeddings,
    Latents,
    Prompt,
    SampleRequest,
    Sampling,
    Size,
    Slot,
    TextStates,
    Vocabulary,
)
from ..adapter import Adapter
from ..checkpointing import Recomputed, checkpointed
from ..families import ARCHITECTURES, BY_CLASS, resolution_of
from ..recast import recast
from ..residuals import copied_for, norms_in
from ..saved_tensors import copied_before_changes
from .encoders import encoders, vocabulary, widths
from .fitting import all_read_syntax, check_latents, dimensions_of, name_of, remarks_on
from .gradients import ForAutograd, differentiable
from .identity import identity_of, settings_of
from .inputs import check_inputs
from .placeholders import MARK, with_embeddings
from .sampling import from_x0, prediction_of
from .text_states import captured
from .weights import load, trainable_clip, trainable_model

OF_SAMPLING = 0.01 * 2**20  # per position of the latents, times the size of a number (comfy/model_base.py)
# Times as much for a step, with and without gradient checkpointing. By benchmarks/memory.py: 2.7 to 3.0 with it for
# Stable Diffusion 1 and XL, 3.0 with and 22 without it for Flux.1; other transformers are not measured.
CHECKPOINTED, PLAIN = 3.0, 30.0
STAGE_C = 42  # pixels for a latent of Stable Cascade, in ComfyUI's nodes for it


class ComfyHost(Adapter):
    """A Host (see host.py). Use it inside `torch.inference_mode(False)`: the loop's tensors need gradients."""

    def __init__(self, model: Any, clip: Any, vae: Any, guidance: float = 0.0) -> None:
        """guidance: that of a model in which it is distilled; 0: the model's own. Raises UserError."""
        check_inputs(model=model, clip=clip, vae=vae)
        self.remarks = remarks_on(model, clip, guidance)  # first: nothing is loaded for models that do not fit together
        self.model, self.clip, self.vae = trainable_model(model), trainable_clip(clip), vae
        sampling = self.model.get_model_object("model_sampling")
        prediction = prediction_of(sampling)
        config = self.model.model.model_config
        family = BY_CLASS.get(name_of(self.model.model))
        latents = config.unet_config.get("input_size")  # of PixArt's positions, of which there are three sizes
        resolution = 8 * latents if latents else family.resolution if family else 0
        resolution = resolution or resolution_of(config.unet_config.get("context_dim"), prediction)
        device = torch.device(self.model.load_device)
        super().__init__(device, widths(self.clip), prediction, sampling.sigmas, resolution)
        self.sampling = family.sampling if family else Sampling()
        self.guidance = guidance or (family.guidance if family else 0.0)
        self.compression, self._encoded = compression_of(self.model, vae)
        self.unit = self._encoded * patch_of(self.model)
        self.architecture = ARCHITECTURES.get(name_of(self.model.model), "")
        self.reads_syntax = all_read_syntax(clip)
        self.known_marks = tuple(getattr(clip.tokenizer, "ti_train_names", {}))

    @property
    def bytes_per_latent(self) -> tuple[int, int] | None:
        """Of a U-Net as measured; of others from ComfyUI's own estimate for sampling, which is for each model."""
        if self.memory_measured:
            return super().bytes_per_latent
        sampling = OF_SAMPLING * (4 if self._in_float32 else 2) * self.model.model.memory_usage_factor
        return int(CHECKPOINTED * sampling), int(PLAIN * sampling)

    @property
    def memory_measured(self) -> bool:
        return isinstance(self.model.model.diffusion_model, UNetModel)

    @property
    def _in_float32(self) -> bool:
        model = self.model.model
        return bool((model.manual_cast_dtype or model.get_dtype()) == torch.float32)

    def _weights(self) -> tuple[nn.Module, ...]:
        return self.model.model, self.clip.cond_stage_model

    def _load(self, memory: int = 0) -> None:
        load(self.model, self.clip.patcher, memory)

    @property
    def settings(self) -> str:
        return settings_of(self.clip, self.guidance)

    def _fingerprint(self) -> str:
        return identity_of(self.model, self.clip, self.vae)

    @contextmanager
    def _step(self, what: Recomputed) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(recast(*self._weights(), context=ForAutograd))
            for network in (self.model.model.diffusion_model, self.clip.cond_stage_model):
                stack.enter_context(checkpointed(network, ForAutograd, what))
            stack.enter_context(differentiable())
            if self._unet_without_patches:
                stack.enter_context(copied_for(norms_in(self.clip.cond_stage_model)))
            else:  # right for every model, at twice the CPU time of each call
                stack.enter_context(copied_before_changes())
            yield

    @property
    def _unet_without_patches(self) -> bool:
        """Whether only the text encoder changes tensors in place that backward needs. Transformers and patches may."""
        return self.memory_measured and not self.model.model_options["transformer_options"]

    def _vocabulary(self, encoder: str) -> Vocabulary:
        return vocabulary(self.clip, encoder)

    def _latents(self, pixels: Tensor) -> Latents:
        """Encodes as the VAE Encode node does, which takes the mean of the posterior."""
        # one at a time: to the autoencoder of a video model, several images are one film
        encoded = [self.vae.encode(self._for_vae(image[None].float() / 255)) for image in pixels]
        check_latents(self.model.model, encoded[0])
        latents = self.model.model.process_latent_in(torch.cat(encoded).float())
        return Latents(latents.squeeze(2) if self._video else latents, None)

    def _for_vae(self, images: Tensor) -> Tensor:
        """Images [B, H, W, 3] of a size at which the VAE makes as many latents as the model has for theirs.

        As in ComfyUI's node StableCascade_StageC_VAEEncode.
        """
        if self._encoded == self.compression:
            return images
        height, width = (length // self.compression * self._encoded for length in images.shape[1:3])
        scaled: Tensor = comfy.utils.common_upscale(images.movedim(-1, 1), width, height, "bicubic", "center")
        return scaled.movedim(1, -1)

    def _encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size]) -> list[dict[str, Any]]:
        """The conditioning of each prompt, as CLIP Text Encode computes it."""
        return self._conds(self._loaded_clip_with(embeddings), prompts, sizes)

    def _conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
        clip = self._loaded_clip_with(embeddings)
        tokens = [clip.tokenize(text_with_marks(prompt)) for prompt in prompts]
        return captured(clip, encoders(clip), tokens, embeddings)

    @property
    def _video(self) -> bool:
        """Whether the model's latents have a dimension for frames. The core's have none: an image is one frame."""
        return dimensions_of(self.model.model.latent_format) == 3

    @property
    def _one_by_one(self) -> bool:
        """Whether each prompt is encoded alone. Only of Stable Diffusion 1 and 2 are prompts equally long, and read
        without pooled output or mask."""
        return type(self.model.model) is not comfy.model_base.BaseModel or bool(self.model.model.adm_channels)

    def _clip_with(self, embeddings: Embeddings) -> Any:
        marks = {mark(name): vectors for name, vectors in embeddings.items()}
        clip = with_embeddings(self.clip, marks, every_encoder=True)
        clip.patcher = self.clip.patcher  # a clone's patcher would be loaded again
        return clip

    def _loaded_clip_with(self, embeddings: Embeddings) -> Any:
        clip = self._clip_with(embeddings)
        clip.load_model = lambda *_: clip.patcher  # both are loaded; loading one could unload the other
        return clip

    def _conds(self, clip: Any, prompts: Sequence[Prompt], sizes: Sequence[Size] = ()) -> list[dict[str, Any]]:
        tokens = [clip.tokenize(text_with_marks(prompt)) for prompt in prompts]
        if len(prompts) > 1 and not self._one_by_one:
            return encode_together(clip, tokens)
        encoded = [clip.encode_from_tokens(line, return_pooled=True, return_dict=True) for line in tokens]
        more = {"guidance": self.guidance} if self.guidance else {}  # as the node FluxGuidance gives it
        conds = [{"cross_attn": e.pop("cond"), **e, **more} for e in encoded]
        return [cond | size_conds(size) for cond, size in zip(conds, sizes, strict=True)] if sizes else conds

    def _predict(self, noisy: Tensor, sigma: Tensor, cond: list[dict[str, Any]]) -> Tensor:
        shaped = noisy.unsqueeze(2) if self._video else noisy
        singles = [self._model_conds(c, shaped[i : i + 1]) for i, c in enumerate(cond)]
        parts = [self._denoised(shaped[run], sigma[run], singles[run]) for run in runs(singles)]
        x0 = torch.cat(parts).float()
        return from_x0(x0.squeeze(2) if self._video else x0, noisy, sigma, self.prediction)

    def _denoised(self, noisy: Tensor, sigma: Tensor, conds: Sequence[dict[str, Any]]) -> Tensor:
        """The model's x0 for images whose conditions the host batches."""
        options = self.model.model_options["transformer_options"] | {"sigmas": sigma, "cond_or_uncond": [0]}
        batch = comfy.samplers.cond_cat(conds)
        x0: Tensor = self.model.model.apply_model(noisy, sigma, **batch, transformer_options=options)
        return x0

    def _model_conds(self, cond: dict[str, Any], noisy: Tensor) -> dict[str, Any]:
        (prepared,) = comfy.samplers.encode_model_conds(
            self.model.model.extra_conds, [cond | {"model_conds": {}}], noisy, self.device, "positive",
            latent_image=torch.zeros_like(noisy),  # inpainting models: nothing is given, all is to be painted
        )  # fmt: skip
        conds = prepared["model_conds"]
        return {key: value.process_cond(batch_size=1, area=None) for key, value in conds.items()}

    def _sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]:
        """Samples as the nodes do: CLIP Text Encode, Empty Latent Image, KSampler, VAE Decode."""
        pairs = zip(request.prompts, request.seeds, strict=True)
        return [self._picture(request, prompt, seed, embeddings) for prompt, seed in pairs]

    def _picture(self, request: SampleRequest, prompt: Prompt, seed: int, embeddings: Embeddings) -> Image.Image:
        positive, negative = (self._node_output(p, embeddings) for p in (prompt, request.negative))
        shape = (1, 4, request.height // self.compression, request.width // self.compression)
        empty = torch.zeros(shape, device=management.intermediate_device())
        latent = comfy.sample.fix_empty_latent_channels(self.model, empty)
        noise = comfy.sample.prepare_noise(latent, seed)
        sampled = comfy.sample.sample(
            self.model, noise, request.steps, request.guidance, request.sampler, request.scheduler, positive, negative,
            latent, disable_pbar=True, seed=seed,
        )  # fmt: skip
        decoded = self.vae.decode(sampled)
        frames = decoded.reshape(-1, *decoded.shape[-3:])  # an autoencoder of a video model: one frame
        pixels = frames[0].float().clamp(0, 1).mul(255).round().byte()
        return Image.fromarray(pixels.cpu().numpy())

    def _node_output(self, prompt: Prompt, embeddings: Embeddings) -> list[Any]:
        """A CONDITIONING, as CLIP Text Encode returns it."""
        (cond,) = self._conds(self._clip_with(embeddings), [prompt])
        return [[cond.pop("cross_attn"), cond]]


def compression_of(model: Any, vae: Any) -> tuple[int, int]:
    """Pixels of a latent's side, as the model samples and as the VAE encodes. They differ for Stable Cascade only.

    ComfyUI 0.3 knows the VAE's only; of a small VAE of Flux.2 (TAESD) that is wrong.
    """
    latent_format, own = model.get_model_object("latent_format"), int(vae.spacial_compression_encode())
    if isinstance(latent_format, comfy.latent_formats.SC_Prior):
        return STAGE_C, own
    pixels = int(getattr(latent_format, "spacial_downscale_ratio", own))
    return pixels, pixels


def patch_of(model: Any) -> int:
    """Latents of a patch's side, to multiples of which the network pads."""
    network = model.model.diffusion_model
    names = ("patch_size", "patch_spatial", "patch")  # of Cosmos and Anima; of Krea 2
    patch = next((getattr(network, name) for name in names if hasattr(network, name)), 1)
    return int(patch if isinstance(patch, int) else patch[-1])  # of a video model: frames, rows, columns


def mark(name: str) -> str:
    """The text that represents a slot, with control characters that prompts do not contain."""
    return f"{MARK}{name}\x03"


def text_with_marks(prompt: Prompt) -> str:
    return "".join(mark(piece.name) if isinstance(piece, Slot) else piece for piece in prompt)


def size_conds(size: Size) -> dict[str, int]:
    """The size conditioning, with the keys of ComfyUI's CLIPTextEncodeSDXL."""
    (height, width), (top, left), (target_height, target_width) = size.original, size.crop, size.target
    target = {"target_width": target_width, "target_height": target_height}
    return {"width": width, "height": height, "crop_w": left, "crop_h": top, **target}


def encode_together(clip: Any, tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Encodes all prompts in one forward pass, as chunks of one long prompt; without pooled output."""
    ((encoder, _),) = tokens[0].items()
    chunks = [len(line[encoder]) for line in tokens]
    cond = clip.encode_from_tokens({encoder: [chunk for line in tokens for chunk in line[encoder]]})
    length = cond.shape[1] // sum(chunks)
    return [{"cross_attn": part} for part in cond.split([length * count for count in chunks], dim=1)]


def runs(conds: Sequence[dict[str, Any]]) -> list[slice]:
    """Neighbours that the host itself would batch: prompts of different length may not fit together."""
    starts = [i for i in range(len(conds)) if i == 0 or not comfy.samplers.cond_equal_size(conds[i - 1], conds[i])]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(conds)], strict=True)]
