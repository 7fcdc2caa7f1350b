"""Embeddings from memory in ComfyUI's prompts: a clone of a CLIP with placeholders for vectors.

Before the host tokenizes a text, each placeholder is replaced by ComfyUI's embedding syntax with a private name. So
emphasis, chunks and every node that calls `clip.tokenize` work as they do for an embedding file, and gradients flow
into the vectors. The tokenizer is copied too: all clones of a CLIP share it, and the input CLIP must not change.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from ...errors import UserError
from ...host import Embeddings, Vectors
from ...prompt_check import unknown_marks, whole_words
from ...text import unicode_forms
from ..spelling import letters
from .encoders import encoders, reads_syntax, tokenizers

log = logging.getLogger("ti_train")
MARK = "\x02"  # begins a placeholder of a training run: a control character, which prompts do not contain
PRIVATE = "ti-train-private-"  # no file has this name; ends in letters, since the host reads "x:1.2" as a weight
SYNTAX = "embedding:"
OURS = re.compile(rf"{SYNTAX}({PRIVATE}[a-z]+)")
ABSENT = (
    "The embedding does not reach the text encoder: its vectors are not among the tokens that {} makes of the prompt "
    "(encoder: {}). Either the prompt is longer than the encoder's limit, so write the embedding further in front; or "
    "ComfyUI's tokenizer for this model family reads no embeddings, so that none can be trained for it."
)


def logged(remarks: Sequence[str]) -> None:
    for remark in remarks:
        log.warning(remark)


def with_embeddings(
    clip: Any, embeddings: Embeddings, every_encoder: bool = False, tell: Callable[[Sequence[str]], None] = logged
) -> Any:
    """A clone of a CLIP with placeholders: placeholder -> encoder -> vectors. New placeholders override old ones.

    Tokenizing raises UserError if no encoder gets a placeholder's vectors; with `every_encoder`, if one does not.
    tell: called with what of a prompt is not read as it was meant, while the host tokenizes it.
    """
    clone = clip.clone()
    clone.tokenizer = _copy_as(clip.tokenizer, _PlaceholderTokenizer)
    names = dict(getattr(clip.tokenizer, "ti_train_names", {}))
    encoder_of = {encoder.attribute: name for name, encoder in encoders(clip).items()}
    for attribute, tokenizer in tokenizers(clip.tokenizer).items():
        reader = _copy_as(tokenizer, _PrivateEmbeddings)
        known = dict(getattr(tokenizer, "ti_train_vectors", {}))
        # without vectors for an encoder, or with a tokenizer that only counts ids (Anima's T5), it stands for nothing
        encoder = encoder_of.get(attribute)
        given = [vectors.get(encoder or "", next(iter(vectors.values()))[:0]) for vectors in embeddings.values()]
        known |= {PRIVATE + letters(len(known) + i): vectors for i, vectors in enumerate(given)}
        reader.ti_train_vectors = known
        reader.ti_train_as_dict = not reads_syntax(tokenizer)
        reader.embedding_directory = reader.embedding_directory or []  # None would disable the host's embedding syntax
        setattr(clone.tokenizer, attribute, reader)
        names |= dict(zip(embeddings, list(known)[len(known) - len(embeddings) :], strict=True))
    clone.tokenizer.ti_train_names = names
    clone.tokenizer.ti_train_encoders = encoder_of
    clone.tokenizer.ti_train_strict = every_encoder
    clone.tokenizer.ti_train_tell = tell
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
    written = {form: name for placeholder, name in names.items() for form in unicode_forms(placeholder)}
    return whole_words(names).sub(lambda match: f"{SYNTAX}{written[match[0]]} ", text)


def remarks_on(text: str, names: Mapping[str, str]) -> list[str]:
    """Which marks of a user's prompt stand for no embedding; none for the prompts of a training run."""
    if any(name.startswith(MARK) for name in names):
        return []
    return unknown_marks((text,), names, "the prompt", names)


def spaced(text: str, emphasis: bool) -> str:
    """Puts a space before our names where the host needs one: it reads them after a space, or where a piece begins.

    No other spaces: to a language model, two are another token than the one before a typed `embedding:name`.
    emphasis: whether the tokenizer reads (text:1.2), in which a piece begins after the bracket.
    """

    def lead(match: re.Match[str]) -> str:
        before, after = text[: match.start()], text[match.end() :]
        in_brackets = emphasis and before.endswith("(") and not before.endswith("\\(") and ")" in after
        return match[0] if not before or before[-1].isspace() or in_brackets else f" {match[0]}"

    return OURS.sub(lead, text)


class _PlaceholderTokenizer:
    """The tokenizer of a whole CLIP."""

    ti_train_names: dict[str, str]  # placeholder -> private name
    ti_train_encoders: dict[str, str]  # attribute of a tokenizer -> encoder
    ti_train_strict: bool
    ti_train_tell: Callable[[Sequence[str]], None]

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        self.ti_train_tell(remarks_on(text, self.ti_train_names))
        replaced = replace_placeholders(text, self.ti_train_names)
        tokens = parent.tokenize_with_weights(replaced, *args, **kwargs)
        used = [match[1] for match in OURS.finditer(replaced)]
        if used:
            self._check(tokens, used)
        return tokens

    def _check(self, tokens: Mapping[str, Any], used: Sequence[str]) -> None:
        """Raises UserError if the vectors of the private names `used` are not among the tokens."""
        there = [entry[0] for batches in tokens.values() for batch in batches for entry in batch]
        given: list[str] = []
        absent: list[str] = []
        for attribute, encoder in self.ti_train_encoders.items():
            vectors = getattr(self, attribute).ti_train_vectors
            memory = {v.untyped_storage().data_ptr() for v in vectors.values()}
            found = sum(memory_of(token) in memory for token in there)
            expected = sum(len(vectors[name]) for name in used)
            given += [encoder] if expected else []
            absent += [encoder] if found < expected else []
        if absent and (self.ti_train_strict or absent == given):
            raise UserError(ABSENT.format(type(self).__name__, ", ".join(absent)))
        if absent:
            self.ti_train_tell([f"The prompt is too long for {', '.join(absent)}: the embedding is cut off there."])


def memory_of(token: Any) -> int | None:
    """Where a token's vector is stored; None for an id."""
    vector = token.get("data") if isinstance(token, dict) else token
    return vector.untyped_storage().data_ptr() if isinstance(vector, Tensor) else None


class _PrivateEmbeddings:
    """The tokenizer of one text encoder."""

    ti_train_vectors: Vectors  # private name -> [n, width]
    ti_train_as_dict: bool  # where the host reads no embeddings, its code compares tokens as numbers
    embedding_directory: Any

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        emphasis = not kwargs.get("disable_weights", getattr(self, "disable_weights", False))
        batches = parent.tokenize_with_weights(spaced(text, emphasis), *args, **kwargs)
        if not self.ti_train_as_dict:
            return batches
        return [[(_as_dict(token), *rest) for token, *rest in batch] for batch in batches]

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


def _as_dict(token: Any) -> Any:
    """A vector in the form that ComfyUI has for tokens other than ids."""
    return {"type": "embedding", "data": token} if isinstance(token, Tensor) else token
