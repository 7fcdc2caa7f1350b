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
from ..spelling import readable

Cond = dict[str, Any]
Outputs = dict[str, tuple[Tensor, Tensor | None]]  # encoder -> hidden states [B, T, width], pooled output [B, width]
SINGLE_ENCODERS = {1024: "clip_h"}  # width -> ComfyUI's name for Stable Diffusion 2's encoder; all others are clip_l


class TextEncoder:
    """A CLIP text model with its tokenizer, for prompts with embeddings in their slots."""

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.table: nn.Module = model.get_input_embeddings()
        limit = tokenizer.model_max_length - 2  # without start and end
        self.vocabulary = Vocabulary(self.table.weight, self._tokenize, self._spell, limit=limit)

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def _spell(self, token: int) -> str:
        return readable(str(self.tokenizer.convert_ids_to_tokens(token)))

    def __call__(self, prompts: Sequence[Prompt], embeddings: Embeddings, **options: Any) -> Any:
        """The model's outputs for a batch of prompts, differentiable in the vectors."""
        ids, places, vectors = [], [], []
        for row, prompt in enumerate(prompts):
            line, slots = self.token_ids(prompt, embeddings)
            ids.append(line)
            for position, slot in slots:
                rows = self.rows(slot, embeddings)
                places += [(row, position + i) for i in range(len(rows))]
                vectors.append(rows)
        with place_vectors(self.table, places, vectors):
            return self.model(upload(torch.tensor(ids), self.vocabulary.table.device), **options)

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


@contextmanager
def place_vectors(table: nn.Module, places: list[tuple[int, int]], vectors: list[Tensor]) -> Iterator[None]:
    """Replaces looked-up embeddings [B, T, width] by vectors at (row, position), within the context.

    Done by a hook on the lookup: it is differentiable in the vectors, and the table is neither resized, copied nor
    trained.
    """
    if not places:
        yield
        return

    def replace(_module: nn.Module, _inputs: Any, looked_up: Tensor) -> Tensor:
        rows, positions = upload(torch.tensor(places), looked_up.device).T
        return looked_up.float().index_put((rows, positions), torch.cat(vectors))

    handle = table.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


class StableDiffusion:
    """Stable Diffusion 1 and 2: the last hidden state of one text encoder, after the final norm."""

    def __init__(self, pipeline: Any) -> None:
        width = int(pipeline.text_encoder.get_input_embeddings().weight.shape[1])
        name = SINGLE_ENCODERS.get(width, "clip_l")
        self.encoders = {name: TextEncoder(name, pipeline.text_encoder, pipeline.tokenizer)}

    def outputs(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> Outputs:
        return {name: (encoder(prompts, embeddings)[0].float(), None) for name, encoder in self.encoders.items()}

    def encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, _sizes: Sequence[Size] = ()) -> Cond:
        ((states, _),) = self.outputs(prompts, embeddings).values()
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
        self.encoders = {name: TextEncoder(name, *part) for name, part in parts.items()}
        self.empty_is_zero = bool(pipeline.config.force_zeros_for_empty_prompt)
        side = int(pipeline.unet.config.sample_size) * int(pipeline.vae_scale_factor)
        self.default_size = Size((side, side), (0, 0), (side, side))

    def outputs(self, prompts: Sequence[Prompt], embeddings: Embeddings) -> Outputs:
        found = {}
        for name, encoder in self.encoders.items():
            output = encoder(prompts, embeddings, output_hidden_states=True)
            pooled = output.text_embeds.float() if name == "clip_g" else None
            found[name] = (output.hidden_states[-2].float(), pooled)
        return found

    def encode(self, prompts: Sequence[Prompt], embeddings: Embeddings, sizes: Sequence[Size] = ()) -> Cond:
        outputs = self.outputs(prompts, embeddings)
        numbers = [s.original + s.crop + s.target for s in sizes or [self.default_size] * len(prompts)]
        pooled = outputs["clip_g"][1]
        assert pooled is not None
        return {
            "encoder_hidden_states": torch.cat([states for states, _ in outputs.values()], dim=-1),
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
    for name, (states, pooled) in family.outputs(prompts, embeddings).items():
        ends = [family.encoders[name].end_of_slots(prompt, embeddings) for prompt in prompts]
        found[name] = [TextStates(s, None if pooled is None else pooled[i], ends[i]) for i, s in enumerate(states)]
    return found


FAMILIES: dict[str, type[StableDiffusion] | type[StableDiffusionXL]] = {  # by the pipeline's class
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
}
