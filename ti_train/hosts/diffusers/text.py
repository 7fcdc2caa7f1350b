"""Text conditioning of Stable Diffusion pipelines, as keyword arguments of the U-Net.

All differences between model families are in the two classes at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...device import upload
from ...errors import UserError
from ...host import Embeddings, Prompt, SampleRequest, Size, Slot, TextStates, Vocabulary
from ...text import whole
from ..spelling import readable
from .graphs import GraphedPasses, Outputs

Cond = dict[str, Any]
SINGLE_ENCODERS = {1024: "clip_h"}  # width -> ComfyUI's name for Stable Diffusion 2's encoder; all others are clip_l
KEPT = 40  # bytes that a layer keeps for backward, of each token and coordinate


class TextEncoder:
    """A CLIP text model with its tokenizer, for prompts with embeddings in their slots."""

    def __init__(self, name: str, model: Any, tokenizer: Any, penultimate: bool) -> None:
        """penultimate: whether the denoiser reads the hidden states before the last layer."""
        self.name, self.model, self.tokenizer, self.penultimate = name, model, tokenizer, penultimate
        self.passes = GraphedPasses(self.outputs)
        self.table: nn.Module = model.get_input_embeddings()
        limit = tokenizer.model_max_length - 2  # without start and end
        self.vocabulary = Vocabulary(self.table.weight, self._tokenize, self._spell, limit=limit)

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(whole(text), add_special_tokens=False, verbose=False).input_ids)

    def _spell(self, token: int) -> str:
        return readable(str(self.tokenizer.convert_ids_to_tokens(token)))

    def __call__(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> Outputs:
        """The hidden states [B, T, width] and the pooled output [B, width] of a text model that projects it, fp32.

        Differentiable in the vectors.
        """
        lines, places, vectors = [], [], []
        for row, prompt in enumerate(prompts):
            line, slots = self.token_ids(prompt, embeddings)
            lines.append(line)
            for position, slot in slots:
                rows = self.rows(slot, embeddings)
                places += [(row, position + i) for i in range(len(rows))]
                vectors.append(rows)
        ids = upload(torch.tensor(lines), self.vocabulary.table.device)
        embedded = placed(self.table(ids).float(), places, vectors)
        kept = KEPT * self.model.config.num_hidden_layers * embedded.numel()
        return self.passes(kept, ids, embedded)

    def outputs(self, ids: Tensor, embedded: Tensor) -> Outputs:
        """The same of token ids [B, T] that were looked up as `embedded` [B, T, width]."""
        with looked_up(self.table, embedded):
            output = self.model(ids, output_hidden_states=self.penultimate)
        states = output.hidden_states[-2] if self.penultimate else output.last_hidden_state
        return states.float(), *([output.text_embeds.float()] if "text_embeds" in output else [])

    def rows(self, slot: Slot, embeddings: Embeddings) -> Tensor:
        """The vectors in a slot; none if the embedding has none for this encoder."""
        return embeddings[slot.name].get(self.name, self.vocabulary.table.detach()[:0].float())

    def end_of_slots(self, prompt: Prompt, embeddings: Embeddings) -> int:
        """The position behind the last slot; 0 without a slot."""
        _, slots = self.token_ids(prompt, embeddings)
        return max((start + len(self.rows(slot, embeddings)) for start, slot in slots), default=0)

    def token_ids(self, prompt: Prompt, embeddings: Embeddings) -> tuple[list[int], list[tuple[int, Slot]]]:
        """Token ids with start, end and padding, and the position of each slot. UserError if a slot does not fit.

        Slots are filled with the start token, because the pooled output is read at the first end token or highest id.
        """
        length, tokenizer = self.tokenizer.model_max_length, self.tokenizer
        ids, slots = [tokenizer.bos_token_id], []
        for piece in prompt:
            if isinstance(piece, Slot):
                count = len(self.rows(piece, embeddings))
                slots.append((len(ids), piece))
                ids += [tokenizer.bos_token_id] * count
                if len(ids) >= length:
                    raise UserError(
                        f"The prompt does not fit: the embedding '{piece.name}' with {count} vector(s) ends at token "
                        f"{len(ids) - 1}, and the text encoder takes {length - 2}. "
                        "Use fewer vectors, or a shorter template or caption."
                    )
            else:
                ids += self._tokenize(piece)
        ids = [*ids[: length - 1], tokenizer.eos_token_id]
        return ids + [tokenizer.pad_token_id] * (length - len(ids)), slots


def placed(embedded: Tensor, places: list[tuple[int, int]], vectors: list[Tensor]) -> Tensor:
    """Looked-up embeddings [B, T, width] with vectors at (row, position)."""
    if not places:
        return embedded
    rows, positions = upload(torch.tensor(places), embedded.device).T
    return embedded.index_put((rows, positions), torch.cat(vectors))


@contextmanager
def looked_up(table: nn.Module, embedded: Tensor) -> Iterator[None]:
    """Makes a lookup give these embeddings, within the context.

    Done by a hook: it is differentiable in the embeddings, and the table is neither resized, copied nor trained.
    """
    handle = table.register_forward_hook(lambda *_: embedded)
    try:
        yield
    finally:
        handle.remove()


class StableDiffusion:
    """Stable Diffusion 1 and 2: the last hidden state of one text encoder, after the final norm."""

    def __init__(self, pipeline: Any) -> None:
        width = int(pipeline.text_encoder.get_input_embeddings().weight.shape[1])
        name = SINGLE_ENCODERS.get(width, "clip_l")
        self.encoders = {name: TextEncoder(name, pipeline.text_encoder, pipeline.tokenizer, penultimate=False)}

    def encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, _sizes: Sequence[Size] = ()) -> Cond:
        ((states,),) = (encoder(prompts, embeddings) for encoder in self.encoders.values())
        return {"encoder_hidden_states": states}

    def sampling(self, request: SampleRequest, embeddings: Embeddings) -> dict[str, Tensor]:
        """The prompts, as the pipeline's keyword arguments."""
        negatives = [request.negative] * len(request.prompts)
        return {
            "prompt_embeds": self.encode(request.prompts, embeddings)["encoder_hidden_states"],
            "negative_prompt_embeds": self.encode(negatives, embeddings)["encoder_hidden_states"],
        }


class StableDiffusionXL:
    """Stable Diffusion XL (Podell et al. 2023, section 2).

    The penultimate hidden states of two encoders, concatenated, without the final norm; the pooled output of the
    second; and the size conditioning.
    """

    def __init__(self, pipeline: Any) -> None:
        parts = {
            "clip_l": (pipeline.text_encoder, pipeline.tokenizer),
            "clip_g": (pipeline.text_encoder_2, pipeline.tokenizer_2),
        }
        self.encoders = {name: TextEncoder(name, *part, penultimate=True) for name, part in parts.items()}
        self.empty_is_zero = bool(pipeline.config.force_zeros_for_empty_prompt)
        side = int(pipeline.unet.config.sample_size) * int(pipeline.vae_scale_factor)
        self.default_size = Size((side, side), (0, 0), (side, side))

    def encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size] = ()) -> Cond:
        (states,), (more, pooled) = (encoder(prompts, embeddings) for encoder in self.encoders.values())
        numbers = [s.original + s.crop + s.target for s in sizes or [self.default_size] * len(prompts)]
        return {
            "encoder_hidden_states": torch.cat([states, more], dim=-1),
            "added_cond_kwargs": {
                "text_embeds": pooled,
                "time_ids": upload(torch.tensor(numbers, dtype=pooled.dtype), pooled.device),
            },
        }

    def sampling(self, request: SampleRequest, embeddings: Embeddings) -> dict[str, Tensor]:
        """The prompts, as the pipeline's keyword arguments; the pipeline itself adds the sizes."""
        positive = self._prompt_embeds(request.prompts, embeddings)
        if request.negative in ((), ("",)) and self.empty_is_zero:
            negative = {name: torch.zeros_like(tensor) for name, tensor in positive.items()}
        else:
            negative = self._prompt_embeds([request.negative] * len(request.prompts), embeddings)
        return positive | {f"negative_{name}": tensor for name, tensor in negative.items()}

    def _prompt_embeds(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, Tensor]:
        cond = self.encode(prompts, embeddings)
        return {
            "prompt_embeds": cond["encoder_hidden_states"],
            "pooled_prompt_embeds": cond["added_cond_kwargs"]["text_embeds"],
        }


def text_states(family: Any, prompts: Sequence[Prompt], embeddings: Embeddings) -> dict[str, list[TextStates]]:
    """A family's outputs, for each encoder and prompt."""
    found = {}
    for name, encoder in family.encoders.items():
        states, *pooled = encoder(prompts, embeddings)
        ends = [encoder.end_of_slots(prompt, embeddings) for prompt in prompts]
        found[name] = [TextStates(s, pooled[0][i] if pooled else None, ends[i]) for i, s in enumerate(states)]
    return found


FAMILIES: dict[str, type[StableDiffusion] | type[StableDiffusionXL]] = {  # by the pipeline's class
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
}
