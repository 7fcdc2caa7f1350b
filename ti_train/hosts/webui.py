"""What the hosts AUTOMATIC1111, reForge and Forge share: prompts, previews, progress, a step of the U-Net.

The model is the one that the WebUI has loaded, as it samples: its own text encoder with its emphasis, chunks, clip skip
and the other words of the embeddings folder; without LoRAs, which in a WebUI belong to a prompt. Whoever uses a host
holds the WebUI's queue lock: no generation runs meanwhile.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from modules import processing, scripts, shared
from modules.textual_inversion.textual_inversion import Embedding
from PIL import Image
from torch import Tensor, nn

from ..errors import UserError
from .base import Latents, Prediction, Prompt, SampleRequest, Size, Slot, Vocabulary, Words, fingerprint
from .weights import alias, checkpointed, frozen

ENCODER = "clip_l"
CHANNELS = 4
PREDICTIONS: dict[str, Prediction] = {"eps": "eps", "epsilon": "eps", "v": "v", "v_prediction": "v"}
PRIVATE = "titrainprivateword"  # letters only, so that it is one word for CLIP, and no word that a person types
SAMPLER = "Euler"  # every WebUI has it, and it draws no noise of its own
OF_THE_JOB = ("job", "job_no", "job_count", "sampling_step", "sampling_steps", "textinfo")
BASED_ON = {"is_sdxl": "XL", "is_sd2": "2", "is_sd3": "3"}


class Interrupted(Exception):  # noqa: N818
    """The user pressed Interrupt while a preview was being sampled."""


class WebUIHost:
    """A Host (see base.py) over a WebUI's loaded Stable Diffusion 1 model; each WebUI's class says where it keeps what.

    encoder: the WebUI's text encoder, called with a list of prompts; database: its embeddings; network: the U-Net.
    """

    Interrupted = Interrupted
    encoder: Any
    database: Any
    transformer: Any  # CLIP's, in transformers' layout
    network: Any  # of the original release's layout
    autoencoder: nn.Module

    def __init__(self, model: Any, prediction: str, sigmas: Tensor, device: torch.device) -> None:
        self.model, self.device = model, device
        self.prediction = PREDICTIONS[prediction]
        self.sigmas = sigmas.detach().float().to(device).clone()
        self.widths = {ENCODER: int(self._table().shape[1])}
        self.resolution = 512
        channels = int(self.network.input_blocks[0][0].weight.shape[1])
        if channels != CHANNELS:
            raise UserError(
                f"The loaded model's U-Net takes {channels} channels, so it is for inpainting or the like. A word is "
                "learnt on a plain model; the inpainting model of the same family will know it too."
            )

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights without LoRAs: A1111 takes one out of a layer when the layer is used."""
        noisy = torch.zeros(1, 4, 8, 8, device=self.device)
        with torch.inference_mode():
            self.predict(noisy, self.sigmas[:1], self.encode([("",)], {}))
            return fingerprint(self.network, self.transformer, self.autoencoder)

    def load(self) -> None:
        """Has the WebUI put the U-Net and the text encoder where they compute, without LoRAs."""

    def precision(self) -> AbstractContextManager[Any]:
        """The context in which the WebUI samples."""
        return nullcontext()

    @contextmanager
    def _mode(self) -> Iterator[None]:
        """Outside of a training step as the WebUI samples: Forge moves weights while it encodes, and moving inference
        tensors outside of inference mode leaves weights that nobody can read any more."""
        if not torch.is_grad_enabled():
            self.load()
        with torch.inference_mode(not torch.is_grad_enabled()), self.precision():
            yield

    def register(self, embedding: Any) -> None:
        self.database.register_embedding(embedding, self.model)

    def unregister(self, name: str) -> None:
        self.database.register_embedding_by_name(None, self.model, name)

    def read_folder(self) -> None:
        """Has the database read the embeddings folder anew."""
        self.database.load_textual_inversion_embeddings(force_reload=True)

    def reread_words(self) -> None:
        """Makes the words of the embeddings folder known to the next prompt, one that was asked before too."""
        self.read_folder()
        forget_conditions()

    def answer(self, scaled: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The U-Net's output. scaled: [B, 4, h, w]; timesteps: [B] int64; context: [B, T, width]."""
        raise NotImplementedError

    @contextmanager
    def training(self, gradient_checkpointing: bool = False) -> Iterator[None]:
        self.load()  # before the weights are swapped: the host must not keep an alias as the original of a patch
        with ExitStack() as stack:
            stack.enter_context(frozen(self.network, self.transformer))
            if gradient_checkpointing:
                stack.enter_context(checkpointed(self.network))
            stack.enter_context(torch.enable_grad())
            yield

    def vocabulary(self, encoder: str) -> Vocabulary:  # noqa: ARG002
        def tokenize(text: str) -> list[int]:
            return list(self.encoder.tokenize([text])[0])

        def spell(token: int) -> str:
            return str(self.encoder.tokenizer.convert_ids_to_tokens(token)).removesuffix("</w>")

        table = self._table()
        return Vocabulary(alias(table) if table.is_inference() else table, tokenize, spell)

    def _table(self) -> Tensor:
        """Asked for anew each time: the WebUI may have moved it."""
        table: Tensor = self.transformer.text_model.embeddings.token_embedding.wrapped.weight
        return table

    def latents(self, pictures: Tensor) -> Latents:
        raise NotImplementedError

    def encode(self, prompts: Sequence[Prompt], words: Words, sizes: Sequence[Size] = ()) -> list[Tensor]:  # noqa: ARG002
        """For each prompt [1, 77 for each chunk, width], by the WebUI's own encoder."""
        with self._registered(words) as names, self._mode():
            texts = [text_with_names(prompt, names) for prompt in prompts]
            if any(mark in text for text in texts for mark in "()[]"):
                # emphasis keeps the mean over all prompts that are encoded at once, and a generation encodes one
                return [self.encoder([text]).float() for text in texts]
            chunks = [self.encoder.process_texts([text])[0][0] for text in texts]
            if len({len(chunk) for chunk in chunks}) > 1:
                return [self.encoder([text]).float() for text in texts]
            encoded: Tensor = self.encoder(texts)
            return list(encoded.float().split(1))

    @contextmanager
    def _registered(self, words: Words) -> Iterator[dict[str, str]]:
        """The words in the WebUI's database, under names that are yielded, while the context lasts."""
        names = {word: PRIVATE + chr(ord("a") + number) for number, word in enumerate(words)}
        limit = self.encoder.chunk_length
        for word, vectors in words.items():
            rows = vectors[ENCODER]
            if len(rows) > limit:
                raise UserError(
                    f"The word '{word}' has {len(rows)} vectors, and the text encoder takes {limit} at a time. "
                    "Use fewer vectors."
                )
            embedding = Embedding(rows, names[word])
            embedding.vectors, embedding.shape = rows.shape
            self.register(embedding)
        try:
            yield names
        finally:
            for name in names.values():
                self.unregister(name)

    def predict(self, noisy: Tensor, sigma: Tensor, cond: list[Tensor]) -> Tensor:
        if len({part.shape for part in cond}) > 1:  # prompts of different lengths cannot be stacked
            singles = zip(noisy.split(1), sigma.split(1), cond, strict=True)
            return torch.cat([self.predict(n, s, [c]) for n, s, c in singles])
        timesteps = torch.searchsorted(self.sigmas, sigma.contiguous()).clamp_max(len(self.sigmas) - 1)
        scaled = noisy / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
        with self._mode():
            return self.answer(scaled, timesteps, torch.cat(cond)).float()

    def sample(self, request: SampleRequest, words: Words) -> list[Image.Image]:
        """The path of the txt2img tab, without the scripts of other extensions."""
        learnt = {w: {e: v.detach() for e, v in vectors.items()} for w, vectors in words.items()}
        pairs = zip(request.prompts, request.seeds, strict=True)
        with self._registered(learnt) as names, undisturbed_job():
            return [self._picture(request, text_with_names(p, names), seed, names) for p, seed in pairs]

    def _picture(self, request: SampleRequest, text: str, seed: int, names: dict[str, str]) -> Image.Image:
        task = processing.StableDiffusionProcessingTxt2Img(
            sd_model=self.model,
            prompt=text,
            negative_prompt=text_with_names(request.negative, names),
            seed=seed,
            steps=request.steps,
            cfg_scale=request.guidance,
            width=request.width,
            height=request.height,
            sampler_name=SAMPLER,
            do_not_save_grid=True,
            do_not_save_samples=True,
            do_not_reload_embeddings=True,  # a folder that has changed would make the WebUI drop our words
        )
        task.scripts, task.script_args = scripts.ScriptRunner(), []
        # the WebUI remembers conditions by the prompt's text, and the word's vectors are not in it
        task.cached_c, task.cached_uc = [None] * 3, [None] * 3
        with closing(task):
            pictures = processing.process_images(task).images
        if not pictures:
            raise Interrupted
        picture: Image.Image = pictures[0]
        return picture


def text_with_names(prompt: Prompt, names: dict[str, str]) -> str:
    """A prompt as the WebUI reads it: a word's name stands between blanks, or it would join its neighbours."""
    pieces = (f" {names[p.word]} " if isinstance(p, Slot) else p for p in prompt)
    return "".join(pieces).strip()


@contextmanager
def undisturbed_job() -> Iterator[None]:
    """A preview counts its own steps in the WebUI's state; the training's progress is put back."""
    before = {name: copy.copy(getattr(shared.state, name)) for name in OF_THE_JOB}
    try:
        yield
    finally:
        shared.total_tqdm.clear()
        for name, value in before.items():
            setattr(shared.state, name, value)


def forget_conditions() -> None:
    """Empties the WebUI's memory of conditions: the next generation reads its words anew."""
    plain, text_to_image = processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img
    plain.cached_c, plain.cached_uc = [None] * 3, [None] * 3
    text_to_image.cached_hr_c, text_to_image.cached_hr_uc = [None] * 3, [None] * 3


def check_family(model: Any) -> None:
    """Raises UserError for a model that is not Stable Diffusion 1."""
    for flag, family in BASED_ON.items():
        if getattr(model, flag, False):
            raise UserError(
                f"The loaded model is a Stable Diffusion {family}; in a WebUI only Stable Diffusion 1 can be trained "
                "yet. Choose a checkpoint of that family."
            )
