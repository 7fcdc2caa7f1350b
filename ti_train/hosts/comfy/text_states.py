"""The output of each text encoder of a CLIP while ComfyUI encodes prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from einops import rearrange
from torch import Tensor

from ...host import Embeddings, TextStates
from .encoders import Encoder
from .placeholders import memory_of

Tokens = dict[str, list[Any]]  # what a CLIP's `tokenize` returns: key -> chunks


def captured(
    clip: Any, encoders: Mapping[str, Encoder], tokens: Sequence[Tokens], embeddings: Embeddings
) -> dict[str, list[TextStates]]:
    """What each encoder makes of each prompt: encoder -> one for each of `tokens`."""
    found: dict[str, list[TextStates]] = {name: [] for name in encoders}
    with _watched(encoders, found, embeddings):
        for line in tokens:
            clip.encode_from_tokens(line, return_pooled=True)
    return found


@contextmanager
def _watched(
    encoders: Mapping[str, Encoder], found: Mapping[str, list[TextStates]], embeddings: Embeddings
) -> Iterator[None]:
    """Appends the output of each forward pass to `found`: behind it, ComfyUI joins and crops the encoders' outputs."""

    def hook_of(name: str) -> Any:
        vectors = [part[name] for part in embeddings.values() if name in part]
        memory = {v.untyped_storage().data_ptr() for v in vectors if len(v)}

        def keep(_module: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
            found[name].append(_states(inputs[0], output[0], output[1], memory))

        return keep

    handles = [encoder.module.register_forward_hook(hook_of(name)) for name, encoder in encoders.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _states(chunks: list[list[Any]], states: Tensor, pooled: Tensor | None, memory: set[int]) -> TextStates:
    """chunks: ids and vectors. states: [chunks, T, width], or [chunks, layers, T, width] of several layers.

    An extra chunk at the end is the empty prompt, with which ComfyUI weighs tokens; it counts as padding here.
    """
    if states.ndim == 4:
        states = rearrange(states, "chunks layers t width -> chunks t (layers width)")
    length = states.shape[1]
    places = [
        n * length + i for n, chunk in enumerate(chunks) for i, token in enumerate(chunk) if memory_of(token) in memory
    ]
    flat = rearrange(states, "chunks t width -> (chunks t) width").float()
    return TextStates(flat, None if pooled is None else pooled[0].float(), max(places, default=-1) + 1)
