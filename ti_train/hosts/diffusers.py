"""The host of the command line: a Stable Diffusion 1 or 2 folder in diffusers' layout, loaded here.

Linear and convolution weights are kept in the dtype that the hardware computes fastest; the text encoder's residual
stream, the vectors and all losses stay fp32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from ..errors import UserError
from .base import Latents, Prediction, Prompt, SampleRequest, Size, Slot, Vocabulary, Words, fingerprint

ENCODER = "clip_l"
PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}
PARTS = ("unet", "text_encoder", "tokenizer", "vae", "scheduler")
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
    """ "auto" takes what the device computes fastest without losing range where that matters."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "xpu":
        return torch.bfloat16
    if device.type == "cpu":
        # bf16 is two to four times faster where the CPU has it, and four times slower where it is emulated
        native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if any(getattr(torch.cpu, check, lambda: False)() for check in native):
            return torch.bfloat16
    return torch.float32


class DiffusersHost:
    """A Host (see base.py) over the parts of a diffusers StableDiffusionPipeline."""

    def __init__(self, pipeline: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.pipeline = pipeline
        self.tokenizer, self.text_encoder = pipeline.tokenizer, pipeline.text_encoder
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self.fingerprint = fingerprint(self.unet, self.text_encoder, self.vae)
        self.widths = {ENCODER: int(self.text_encoder.get_input_embeddings().weight.shape[1])}
        self.prediction: Prediction = PREDICTIONS[pipeline.scheduler.config.prediction_type]
        # 2^-24: a schedule that ends in pure noise (Lin et al. 2023) would have an infinite last level
        alphas = pipeline.scheduler.alphas_cumprod.double().clamp_min(2**-24)
        self.sigmas = ((1 - alphas) / alphas).sqrt().float().to(device)
        self.resolution = int(self.unet.config.sample_size) * int(pipeline.vae_scale_factor)
        self.vocabularies = {ENCODER: self._vocabulary()}
        pipeline.set_progress_bar_config(disable=True)
        with quiet_libraries():
            for module in (self.text_encoder, self.unet, self.vae):
                module.eval().requires_grad_(False).to(device, torch.float32)
            self.unet.to(dtype)
        for module in self.text_encoder.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        if device.type != "mps":  # convolutions there are slower in this layout
            self.unet.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, folder: Path, device: str = "auto", dtype: str = "auto") -> DiffusersHost:
        """Loads a pipeline folder. Raises UserError for a folder that is none, or of another kind."""
        check_folder(folder)
        try:
            with quiet_libraries():
                from diffusers import StableDiffusionPipeline  # takes seconds: only for a folder that is right

                pipeline = StableDiffusionPipeline.from_pretrained(
                    folder, safety_checker=None, requires_safety_checker=False, local_files_only=True
                )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UserError(f"The model folder '{folder}' cannot be loaded: {error}") from error
        if pipeline.scheduler.config.prediction_type not in PREDICTIONS:
            raise UserError(
                f"The model's scheduler predicts '{pipeline.scheduler.config.prediction_type}'; "
                f"supported are {', '.join(PREDICTIONS)}."
            )
        chosen = pick_device(device)
        return cls(pipeline, chosen, pick_dtype(dtype, chosen))

    @contextmanager
    def training(self, gradient_checkpointing: bool = False) -> Iterator[None]:
        if gradient_checkpointing:  # of the U-Net: the text encoder's activations are small
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
        return self.vocabularies[encoder]

    def _vocabulary(self) -> Vocabulary:
        def tokenize(text: str) -> list[int]:
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)

        def spell(token: int) -> str:
            return str(self.tokenizer.convert_ids_to_tokens(token)).removesuffix("</w>")

        return Vocabulary(self.text_encoder.get_input_embeddings().weight, tokenize, spell)

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

    def encode(self, prompts: Sequence[Prompt], words: Words, sizes: Sequence[Size] = ()) -> Tensor:  # noqa: ARG002
        """[B, context length, width]: the last hidden state after the final norm, as the pipeline's own prompts."""
        ids, places, vectors = [], [], []
        for row, prompt in enumerate(prompts):
            line, slots = self._token_ids(prompt, words)
            ids.append(line)
            for position, slot in slots:
                learnt = words[slot.word][ENCODER]
                places += [(row, position + i) for i in range(len(learnt))]
                vectors.append(learnt)
        with self._autocast(), place_vectors(self.text_encoder.get_input_embeddings(), places, vectors):
            hidden: Tensor = self.text_encoder(torch.tensor(ids, device=self.device))[0]
        return hidden.float()

    def _token_ids(self, prompt: Prompt, words: Words) -> tuple[list[int], list[tuple[int, Slot]]]:
        """Start, pieces, end and padding; slots hold the start token until their vectors take its place."""
        length, tokenizer = self.tokenizer.model_max_length, self.tokenizer
        ids, slots = [tokenizer.bos_token_id], []
        for piece in prompt:
            if isinstance(piece, Slot):
                count = len(words[piece.word][ENCODER])
                slots.append((len(ids), piece))
                ids += [tokenizer.bos_token_id] * count
                if len(ids) >= length:
                    raise UserError(
                        f"The prompt does not fit: with its {count} vector(s) the word '{piece.word}' ends at token "
                        f"{len(ids) - 1}, and the text encoder takes {length - 2}. "
                        "Use fewer vectors, or a shorter template or caption."
                    )
            else:
                ids += self.vocabularies[ENCODER].tokenize(piece)
        ids = [*ids[: length - 1], tokenizer.eos_token_id]
        return ids + [tokenizer.pad_token_id] * (length - len(ids)), slots

    def predict(self, noisy: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        timesteps = torch.searchsorted(self.sigmas, sigma.contiguous()).clamp_max(len(self.sigmas) - 1)
        scaled = noisy / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
        answer: Tensor = self.unet(scaled.to(self.dtype), timesteps, cond.to(self.dtype), return_dict=False)[0]
        return answer.float()

    @torch.no_grad()
    def sample(self, request: SampleRequest, words: Words) -> list[Image.Image]:
        """The pipeline's own sampling, its scheduler as the folder configures it."""
        with self._autocast():
            latents = self.pipeline(
                prompt_embeds=self.encode(request.prompts, words),
                negative_prompt_embeds=self.encode([request.negative] * len(request.prompts), words),
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


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Loading without the libraries' own progress bars and advice: the command line speaks for itself."""
    import diffusers
    import transformers

    logs = [library.utils.logging for library in (diffusers, transformers)]
    were = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (level, bars) in zip(logs, were, strict=True):
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()


@contextmanager
def place_vectors(table: nn.Module, places: list[tuple[int, int]], vectors: list[Tensor]) -> Iterator[None]:
    """Puts vectors into the looked-up embeddings [B, T, width] at (row, position) while the context lasts.

    A hook on the lookup: the table itself is neither grown, copied nor trained, and the path from a vector to the
    encoder is differentiable.
    """
    if not places:
        yield
        return

    def replace(_module: nn.Module, _inputs: Any, looked_up: Tensor) -> Tensor:
        rows, positions = torch.tensor(places, device=looked_up.device).T
        return looked_up.float().index_put((rows, positions), torch.cat(vectors))

    handle = table.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def check_folder(folder: Path) -> None:
    """Raises UserError for what is no Stable Diffusion folder, saying what it looks like."""
    index = folder / "model_index.json"
    wanted = "a folder in diffusers' layout with model_index.json, unet, text_encoder, tokenizer, vae and scheduler"
    if folder.is_file():
        raise UserError(
            f"'{folder}' is a file. This needs {wanted}; convert the checkpoint with diffusers' save_pretrained()."
        )
    if not index.is_file():
        raise UserError(f"'{folder}' is no model folder: it has no model_index.json. This needs {wanted}.")
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"'{index}' cannot be read ({error}). Copy the model folder again.") from None
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if kind == "StableDiffusionPipeline" and missing:
        raise UserError(f"The model folder '{folder}' lacks {', '.join(missing)}. Copy the model folder again.")
    if kind != "StableDiffusionPipeline":
        raise UserError(f"'{folder}' is a {kind}; supported is StableDiffusionPipeline (Stable Diffusion 1 and 2).")
