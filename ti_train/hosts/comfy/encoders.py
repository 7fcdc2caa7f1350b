"""The text encoders of a CLIP, under the names that ComfyUI looks for in embedding files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ...host import Vocabulary
from ..spelling import readable
from .inputs import check_inputs

MEASURED = 256  # rows of a table from which its scale is measured; some rows are zero
BEFORE = "a"  # a word before a text: to language models " cat", as in a prompt, is another token than "cat"


@dataclass(frozen=True)
class Encoder:
    """A text encoder that takes embeddings, with its tokenizer."""

    attribute: str  # of the CLIP's tokenizer
    tokenizer: Any  # an SDTokenizer
    module: Any  # an SDClipModel

    @property
    def table(self) -> Any:
        """The input embedding, a module with a weight [V, width]."""
        return self.module.transformer.get_input_embeddings()


def tokenizers(tokenizer: Any) -> dict[str, Any]:
    """Attribute -> tokenizer, of each tokenizer in that of a whole CLIP that reads embeddings."""
    return {name: part for name, part in vars(tokenizer).items() if hasattr(part, "_try_get_embedding")}


def encoders(clip: Any) -> dict[str, Encoder]:
    """Encoder name -> encoder, of each one that takes embeddings and is loaded. Raises UserError if there is none.

    The name is the tokenizer's `embedding_key`: that of the vectors in a file. A CLIP with one encoder names its
    tokenizer and its module each in an attribute `clip`; others give both the same attribute, which is None for an
    encoder that the user has not loaded.
    """
    check_inputs(clip=clip)
    parts, modules = tokenizers(clip.tokenizer), clip.cond_stage_model
    found = {}
    for attribute, tokenizer in parts.items():
        alone = attribute == getattr(clip.tokenizer, "clip", None)
        module = getattr(modules, getattr(modules, "clip", attribute) if alone else attribute, None)
        if module is not None:
            found[tokenizer.embedding_key] = Encoder(attribute, tokenizer, module)
    if not found:
        raise UserError(
            f"This CLIP ({type(clip.cond_stage_model).__name__}) has no text encoder that takes embeddings, so no "
            "embedding can be trained or loaded with it. The README lists the model families that work."
        )
    return found


def widths(clip: Any) -> dict[str, int]:
    """Encoder -> width of its input embedding."""
    return {name: int(encoder.table.weight.shape[1]) for name, encoder in encoders(clip).items()}


def reads_syntax(tokenizer: Any) -> bool:
    """Whether the host's own `embedding:name` works in prompts: it is off where no folder is handed on."""
    return tokenizer.embedding_directory is not None and not getattr(tokenizer, "ti_train_as_dict", False)


def vocabulary(clip: Any, encoder: str) -> Vocabulary:
    """The vocabulary of an encoder."""
    found = encoders(clip)[encoder]
    tokenizer = found.tokenizer

    def ids(text: str) -> list[int]:
        found = tokenizer.tokenizer(text)["input_ids"][tokenizer.tokens_start :]
        return list(found[:-1] if tokenizer.tokenizer_adds_end_token else found)

    def tokenize(text: str) -> list[int]:
        return ids(f"{BEFORE} {text}".rstrip())[len(ids(BEFORE)) :]

    def spell(token: int) -> str:
        """Tables have more rows than the tokenizer has pieces: T5's 28, Qwen's 267."""
        piece = tokenizer.inv_vocab.get(token)
        return f"<{token}>" if piece is None else readable(str(piece))

    if type(found.table.weight.data) is not Tensor:
        return Vocabulary(dequantised(found.table), tokenize, spell)
    return Vocabulary(found.table.weight, tokenize, spell, scale_of(found.table))


@torch.no_grad()
def dequantised(table: Any) -> Tensor:
    """The rows of a quantised table as its encoder reads them, [V, width] fp16."""
    rows: Tensor = table(torch.arange(table.weight.shape[0], device=table.weight.device), out_dtype=torch.float16)
    return rows


@torch.no_grad()
def scale_of(table: Any) -> float:
    """What the host multiplies a row by before its encoder reads it, as for Gemma; vectors enter behind that."""
    if type(table).__name__ == "Embedding":  # not one of a class of its own
        return 1.0
    rows = table.weight[:MEASURED].detach().float()
    read = table(torch.arange(len(rows), device=table.weight.device), out_dtype=torch.float32)
    ratio = float(read.float().norm() / rows.norm().clamp_min(1e-12))
    return 1.0 if abs(ratio - 1) < 1e-3 else ratio
