"""What the AUTOMATIC1111, reForge and Forge hosts have in common: prompts, previews, the U-Net's forward.

The model is used as the WebUI samples it: through its text encoder with emphasis, chunks, clip skip and the other
embeddings of the folder, but without LoRAs, which in a WebUI belong to a prompt. The caller holds the WebUI's queue
lock, so that no generation runs at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, final

import torch
from modules import processing, shared
from modules.textual_inversion.textual_inversion import Embedding
from PIL import Image
from torch import Tensor, nn

from ...errors import UserError
from ...host import (
    Embeddings,
    Prediction,
    Prompt,
    SampleRequest,
    Size,
    Slot,
    TextStates,
    Vectors,
    Vocabulary,
    fingerprint,
)
from ..adapter import Adapter
from ..checkpointing import Recomputed, checkpointed
from ..families import resolution_of
from ..noise_levels import network_input, timesteps_of
from ..spelling import letters, readable
from .families import named_encoders, token_table
from .previews import Interrupted, chosen, picture, preserved_job_state
from .sampling import SAMPLING

CHANNELS = 4
PREDICTIONS: dict[str, Prediction] = {"eps": "eps", "epsilon": "eps", "v": "v", "v_prediction": "v"}
PRIVATE = "titrainprivateword"  # letters only, so that CLIP reads one word; not used in prompts


@contextmanager
def found_by(lookup: dict[int, list[tuple[list[int], Any]]], ids: list[int], embedding: Any) -> Iterator[None]:
    """Adds an embedding to a database's lookup: first token id -> token ids and embedding, longest first."""
    first = ids[0]
    lookup[first] = sorted([*lookup.get(first, []), (ids, embedding)], key=lambda one: len(one[0]), reverse=True)
    try:
        yield
    finally:
        lookup[first] = [one for one in lookup.get(first, []) if one[1] is not embedding]
        if not lookup[first]:
            del lookup[first]


class Condition(NamedTuple):
    """The conditioning of one prompt."""

    context: Tensor  # [1, 77 * chunks, width]
    vector: Tensor | None  # [1, 2816] for Stable Diffusion XL: pooled output and size embeddings


class WebUIHost(Adapter):
    """A Host (see host.py) for a WebUI's loaded Stable Diffusion 1, 2 or XL; subclasses locate its parts."""

    Interrupted = Interrupted
    bare_names = True
    sampling = SAMPLING
    preview_size = (0, 0)  # width and height in pixels; 0: the training resolution
    encoders: dict[str, Any]  # name -> the WebUI's encoder, called with a list of prompts; in the order of outputs
    transformers: dict[str, nn.Module]  # name -> the transformer inside
    databases: list[Any]  # of embeddings, each with all of them
    network: Any  # the U-Net, in the original layout
    autoencoder: nn.Module
    size_embedder: Any = None  # Stable Diffusion XL's: [n] numbers -> [n, 256]

    def __init__(self, model: Any, prediction: str, sigmas: Tensor, device: torch.device) -> None:
        self.model = model
        widths = {name: int(token_table(part).shape[1]) for name, part in self.transformers.items()}
        resolution = resolution_of(sum(widths.values()), PREDICTIONS[prediction])
        super().__init__(device, widths, PREDICTIONS[prediction], sigmas, resolution)
        self._begun_with = self.settings
        channels = int(self.network.input_blocks[0][0].weight.shape[1])
        if channels != CHANNELS:
            raise UserError(
                f"The loaded model's U-Net has {channels} input channels (inpainting or similar), which is not "
                "supported. Train on a normal model; the embedding also works with the family's inpainting model."
            )

    def find_encoders(self, model: Any, database: Any) -> None:
        """Locates the encoders of A1111's model classes, which reForge has too. Raises UserError."""
        self.encoders = named_encoders(model)
        self.transformers = {name: encoder.wrapped for name, encoder in self.encoders.items()}
        self.databases = [database]
        if model.is_sdxl:
            self.size_embedder = model.conditioner.embedders[len(self.encoders)].timestep

    def _weights(self) -> tuple[nn.Module, ...]:
        return self.network, *self.transformers.values()

    @property
    def settings(self) -> str:
        """The WebUI's options that its text encoders read, and the noise levels, of which another option decides."""
        both = " of both encoders" if getattr(shared.opts, "sdxl_clip_l_skip", False) else ""
        skip, largest = int(shared.opts.CLIP_stop_at_last_layers), float(self.sigmas[-1])
        return f"clip skip {skip}{both}, emphasis {shared.opts.emphasis}, noise levels up to {largest:.3g}"

    def _fingerprint(self) -> str:
        """Of the weights without LoRAs, after a forward pass: A1111 removes a LoRA when a layer is next used."""
        noisy = torch.zeros(1, 4, 8, 8, device=self.device)
        self._predict(noisy, self.sigmas[:1], self._encode([("",)], {}, ()))
        return fingerprint(self.network, *self.transformers.values(), self.autoencoder)

    def precision(self) -> AbstractContextManager[Any]:
        """The autocast context in which the WebUI samples."""
        return nullcontext()

    def ids_of(self, word: str, _database: Any) -> list[int]:
        """The token ids by which a database looks up a word."""
        return list(self.model.cond_stage_model.tokenize([word])[0])

    @contextmanager
    def found(self, embedding: Any) -> Iterator[None]:
        """Has the text encoders find an embedding, which the page and the API do not list: it has no file."""
        with ExitStack() as ending:
            for database in self.databases:
                ending.enter_context(found_by(database.ids_lookup, self.ids_of(embedding.name, database), embedding))
            yield

    def read_folder(self) -> None:
        """Reloads the embeddings folder into the databases."""
        for database in self.databases:
            database.load_textual_inversion_embeddings(force_reload=True)

    def reload_embeddings(self) -> None:
        """Reloads the embeddings folder and clears cached conditions, so that the next generation uses it."""
        self.read_folder()
        clear_cached_conditions()

    @final
    def release_weights(self) -> None:
        """Returns the model's parts to the WebUI's memory management, until the next step."""
        with torch.inference_mode():  # as whatever else moves weights
            self._release_weights()

    def _release_weights(self) -> None: ...

    def unet_forward(self, scaled: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        """The U-Net's output. scaled: [B, 4, h, w]; timesteps: [B] int64; context: [B, T, width]; vector: [B, 2816]."""
        raise NotImplementedError

    @contextmanager
    def _step(self, what: Recomputed) -> Iterator[None]:
        """Raises UserError if the model is unloaded within the step."""
        try:
            with checkpointed(self.network, self.precision, what):
                yield
        except RuntimeError as error:
            if all(weight.device.type == self.device.type for weight in self.network.parameters()):
                raise
            raise UserError("The model was unloaded from the GPU while a training step used it.") from error

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Raises UserError if what the text encoders have read of the WebUI's options may be another than before."""
        yield
        if self.settings != self._begun_with:
            raise UserError(
                f"The WebUI's settings were changed: the training has begun with {self._begun_with}, and now it would "
                f"go on with {self.settings}. Change them back before you resume it."
            )

    def _vocabulary(self, encoder: str) -> Vocabulary:
        engine, table = self.encoders[encoder], token_table(self.transformers[encoder])

        def tokenize(text: str) -> list[int]:
            return list(engine.tokenize([text])[0])

        def spell(token: int) -> str:
            return readable(self.piece(engine, token))

        return Vocabulary(table, tokenize, spell)

    def piece(self, engine: Any, token: int) -> str:
        return str(engine.tokenizer.convert_ids_to_tokens(token))

    def _encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size]) -> list[Condition]:
        """One condition for each prompt, from the WebUI's encoders."""
        with self._registered(embeddings) as names, self.precision(), self._unchanged():
            texts = [text_with_names(prompt, names) for prompt in prompts]
            encoded = [self._encoded(group) for group in self._groups(texts)]
            contexts = [row for context, _ in encoded for row in context.split(1)]
            if self.size_embedder is None:
                return [Condition(context, None) for context in contexts]
            pooled = torch.cat([pooled for _, pooled in encoded if pooled is not None])
            numbers = self._numbers(sizes or [self._default_size()] * len(texts))
            return list(map(Condition, contexts, torch.cat([pooled, numbers], dim=1).split(1)))

    def _conditioning(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
        found: dict[str, list[TextStates]] = {name: [] for name in self.encoders}
        with self._registered(embeddings) as names, self.precision(), self._unchanged():
            groups = self._groups([text_with_names(prompt, names) for prompt in prompts])
            for name, encoder in self.encoders.items():
                for group in groups:
                    states, pooled = self._output(encoder, group)
                    ends = [end_of_slots(chunks, encoder.chunk_length) for chunks in encoder.process_texts(group)[0]]
                    rows = [None] * len(group) if pooled is None else list(pooled)
                    found[name] += map(TextStates, states, rows, ends)
        return found

    def _groups(self, texts: list[str]) -> list[list[str]]:
        """Texts that are encoded at once: emphasis is normalized over them, and a generation encodes one."""
        alone = any(mark in text for text in texts for mark in "()[]") or not self._of_one_length(texts)
        return [[text] for text in texts] if alone else [texts]

    def _of_one_length(self, texts: list[str]) -> bool:
        encoder = next(iter(self.encoders.values()))
        return len({len(encoder.process_texts([text])[0][0]) for text in texts}) == 1

    def _encoded(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """The encoders' outputs, concatenated to [B, T, sum of widths], and the last one's pooled output [B, width]."""
        pairs = [self._output(encoder, texts) for encoder in self.encoders.values()]
        return torch.cat([states for states, _ in pairs], dim=-1), pairs[-1][1]

    def _output(self, encoder: Any, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """An encoder's hidden states [B, T, width] and pooled output [B, width], fp32 on the device."""
        output = encoder(texts)
        states, pooled = output if isinstance(output, tuple) else (output, None)
        plain = states.to(self.device, torch.float32)
        return plain, None if pooled is None else pooled.to(self.device, torch.float32)

    def _numbers(self, sizes: Sequence[Size]) -> Tensor:
        """Stable Diffusion XL's size embeddings, [B, 6 * 256]."""
        numbers = torch.tensor([size.original + size.crop + size.target for size in sizes], device=self.device)
        embedded: Tensor = self.size_embedder(numbers.flatten().float())
        return embedded.view(len(sizes), -1)

    def _default_size(self) -> Size:
        """The size conditioning that the WebUI uses for an image of the model's resolution."""
        side = (self.resolution, self.resolution)
        return Size(side, (shared.opts.sdxl_crop_top, shared.opts.sdxl_crop_left), side)

    @contextmanager
    def _registered(self, embeddings: Embeddings) -> Iterator[dict[str, str]]:
        """Has the text encoders find embeddings within the context; yields name -> private name."""
        names = {name: PRIVATE + letters(number) for number, name in enumerate(embeddings)}
        with ExitStack() as ending:
            for name, vectors in embeddings.items():
                ending.enter_context(self.found(self._embedding(name, vectors, names[name])))
            yield names

    def _embedding(self, name: str, vectors: Vectors, private: str) -> Any:
        """The WebUI's Embedding. Raises UserError if there are more vectors than tokens in a chunk."""
        rows = [vectors[encoder] for encoder in self.encoders]
        limit = next(iter(self.encoders.values())).chunk_length
        if len(rows[0]) > limit:
            raise UserError(
                f"The embedding '{name}' has {len(rows[0])} vectors, and the text encoder takes {limit} at a time. "
                "Use fewer vectors."
            )
        embedding = Embedding(dict(vectors) if len(rows) > 1 else rows[0], private)
        embedding.vectors, embedding.shape = len(rows[0]), sum(part.shape[1] for part in rows)
        return embedding

    def _predict(self, noisy: Tensor, sigma: Tensor, cond: list[Condition]) -> Tensor:
        if len({part.context.shape for part in cond}) > 1:  # prompts of different lengths cannot be stacked
            singles = zip(noisy.split(1), sigma.split(1), cond, strict=True)
            return torch.cat([self._predict(n, s, [c]) for n, s, c in singles])
        timesteps, scaled = timesteps_of(sigma, self.sigmas), network_input(noisy, sigma)
        vectors = [part.vector for part in cond if part.vector is not None]
        with self.precision():
            context, vector = torch.cat([part.context for part in cond]), torch.cat(vectors) if vectors else None
            return self.unet_forward(scaled, timesteps, context, vector).float()

    @property
    def bytes_per_latent(self) -> tuple[int, int] | None:
        """Not measured: where autocast has a norm computed in float32, its result is kept."""
        measured = super().bytes_per_latent
        return measured and (measured[0], int(1.4 * measured[1]))

    def _chosen(self) -> AbstractContextManager[None]:
        """Has the WebUI sample with this model: it loads the chosen one before, which may be another one by now."""
        return chosen(self.model)

    def _sample(self, request: SampleRequest, embeddings: Embeddings) -> list[Image.Image]:
        with self._registered(embeddings) as names, self._chosen(), preserved_job_state():
            negative, size = text_with_names(request.negative, names), self.preview_size
            texts = [text_with_names(prompt, names) for prompt in request.prompts]
            pairs = zip(texts, request.seeds, strict=True)
            return [picture(self.model, request, text, negative, seed, size) for text, seed in pairs]


def ends_in_noise(model: Any) -> bool:
    """Whether the WebUI rescales a model's noise levels while it samples, so that the last one is noise alone.

    By its own option, or by the mark of the model's file (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample
    Steps are Flawed"). model: what has the mark.
    """
    return bool(shared.opts.sd_noise_schedule == "Zero Terminal SNR" or getattr(model, "ztsnr", False))


def end_of_slots(chunks: Sequence[Any], chunk_length: int) -> int:
    """The position behind the last embedding of a prompt, whose chunks each have a start and an end token."""
    fixes = [(number, fix) for number, chunk in enumerate(chunks) for fix in chunk.fixes]
    ends = [number * (chunk_length + 2) + 1 + fix.offset + fix.embedding.vectors for number, fix in fixes]
    return max(ends, default=0)


def text_with_names(prompt: Prompt, names: dict[str, str]) -> str:
    """The prompt as text, with private names between spaces, so that they do not join adjacent text."""
    pieces = (f" {names[p.name]} " if isinstance(p, Slot) else p for p in prompt)
    return "".join(pieces).strip()


def clear_cached_conditions() -> None:
    """Clears the WebUI's cached conditions, so that the next generation encodes its prompts again."""
    plain, text_to_image = processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img
    plain.cached_c, plain.cached_uc = [None] * 3, [None] * 3
    text_to_image.cached_hr_c, text_to_image.cached_hr_uc = [None] * 3, [None] * 3
