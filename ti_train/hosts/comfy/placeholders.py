"""Embeddings from memory in ComfyUI's prompts: a clone of a CLIP with placeholders for vectors.

Before the host tokenizes a text, each placeholder is replaced by ComfyUI's embedding syntax with a private name. So
emphasis, chunks and every node that calls `clip.tokenize` work as they do for an embedding file, and gradients flow
into the vectors. The tokenizer is copied too: all clones of a CLIP share it, and the input CLIP must not change.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ...errors import UserError
from ...host import Embeddings, Vectors, Vocabulary
from ...prompt_check import unknown_marks
from ...text import unicode_forms
from ..spelling import letters, readable
from .inputs import check_inputs

log = logging.getLogger("ti_train")
MARK = "\x02"  # begins a placeholder of a training run: a control character, which prompts do not contain
PRIVATE = "ti-train-private-"  # no file has this name; ends in letters, since the host reads "x:1.2" as a weight


def encoders(clip: Any) -> dict[str, Any]:
    """Encoder name -> tokenizer, of each text encoder that supports embeddings. Raises UserError if there is none."""
    check_inputs(clip=clip)
    found = {
        name: tokenizer
        for name, tokenizer in vars(clip.tokenizer).items()
        if hasattr(tokenizer, "_try_get_embedding") and hasattr(clip.cond_stage_model, name)
    }
    if not found:
        raise UserError(
            f"This CLIP ({type(clip.cond_stage_model).__name__}) has no text encoder that supports embeddings. "
            "Supported are the CLIPs of Stable Diffusion 1, 2 and XL."
        )
    return found


def input_embedding(clip: Any, encoder: str) -> Any:
    """The input embedding of an encoder, a module with a weight [V, width]."""
    return getattr(clip.cond_stage_model, encoder).transformer.get_input_embeddings()


def widths(clip: Any) -> dict[str, int]:
    """Encoder -> width of its input embedding."""
    return {encoder: int(input_embedding(clip, encoder).weight.shape[1]) for encoder in encoders(clip)}


def vocabulary(clip: Any, encoder: str) -> Vocabulary:
    """The vocabulary of an encoder."""
    tokenizer = encoders(clip)[encoder]

    def tokenize(text: str) -> list[int]:
        ids = tokenizer.tokenizer(text)["input_ids"][tokenizer.tokens_start :]
        return list(ids[:-1] if tokenizer.tokenizer_adds_end_token else ids)

    def spell(token: int) -> str:
        return readable(str(tokenizer.inv_vocab[token]))

    return Vocabulary(input_embedding(clip, encoder).weight, tokenize, spell)


def with_embeddings(clip: Any, embeddings: Embeddings) -> Any:
    """A clone of a CLIP with placeholders: placeholder -> encoder -> vectors. New placeholders override old ones."""
    clone = clip.clone()
    clone.tokenizer = _copy_as(clip.tokenizer, _PlaceholderTokenizer)
    names = dict(getattr(clip.tokenizer, "ti_train_names", {}))
    for encoder, tokenizer in encoders(clip).items():
        reader = _copy_as(tokenizer, _PrivateEmbeddings)
        known = dict(getattr(tokenizer, "ti_train_vectors", {}))
        known |= {PRIVATE + letters(len(known) + i): vectors[encoder] for i, vectors in enumerate(embeddings.values())}
        reader.ti_train_vectors = known
        reader.embedding_directory = reader.embedding_directory or []  # None would disable the host's embedding syntax
        setattr(clone.tokenizer, encoder, reader)
        names |= dict(zip(embeddings, list(known)[-len(embeddings) :], strict=True))
    clone.tokenizer.ti_train_names = names
    return clone


def _copy_as(tokenizer: Any, reading: type) -> Any:
    twin = copy.copy(tokenizer)
    if not isinstance(twin, reading):
        twin.__class__ = _derived(reading, type(tokenizer))  # type: ignore[arg-type]
    return twin


@cache
def _derived(reading: type, base: type) -> type:
    """A subclass of `base` with the methods of `reading`, so that isinstance checks still pass."""
    return type(base.__name__, (reading, base), {})


def replace_placeholders(text: str, names: Mapping[str, str]) -> str:
    """Replaces every placeholder that is a whole word by the host's embedding syntax."""
    if not names:
        return text
    names = {written: name for placeholder, name in names.items() for written in unicode_forms(placeholder)}
    whole = "|".join(map(_whole_word, sorted(names, key=len, reverse=True)))
    return re.sub(whole, lambda match: f" embedding:{names[match[0]]} ", text)


def remarks_on(text: str, names: Mapping[str, str]) -> list[str]:
    """Which marks of a user's prompt stand for no embedding; none for the prompts of a training run."""
    if any(name.startswith(MARK) for name in names):
        return []
    words = [name[1:-1] if name[0] + name[-1] == "<>" else name for name in names]
    return unknown_marks((text,), words, "the prompt", names)


@cache
def _log_once(message: str) -> None:
    log.warning(message)


def _whole_word(placeholder: str) -> str:
    """A pattern for the placeholder as a whole word: `cat` does not match in `cats`."""
    before = r"(?<![\w-])(?<!embedding:)" if re.match(r"\w", placeholder) else ""
    after = r"(?![\w-])" if re.search(r"\w$", placeholder) else ""
    return before + re.escape(placeholder) + after


class _PlaceholderTokenizer:
    """The tokenizer of a whole CLIP."""

    ti_train_names: dict[str, str]  # placeholder -> private name

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        for remark in remarks_on(text, self.ti_train_names):
            _log_once(remark)
        return parent.tokenize_with_weights(replace_placeholders(text, self.ti_train_names), *args, **kwargs)


class _PrivateEmbeddings:
    """The tokenizer of one text encoder."""

    ti_train_vectors: Vectors  # private name -> [n, width]
    embedding_directory: Any

    def _try_get_embedding(self, embedding_name: str, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        private = self.ti_train_vectors.get(embedding_name.split()[0])
        if private is None:
            return parent._try_get_embedding(embedding_name, *args, **kwargs)
        without_files = copy.copy(self)
        without_files.embedding_directory = []
        parent = super(_PrivateEmbeddings, without_files)
        _, *rest = parent._try_get_embedding(embedding_name, *args, **kwargs)  # two values in 0.3.64, three in 0.33
        return (private, *rest)
