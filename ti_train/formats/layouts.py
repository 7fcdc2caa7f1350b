"""Interprets the keys of embedding files: every layout that other tools write, without guessing.

Encoders have ComfyUI's names (its `embedding_key`). If keys can be interpreted in more than one way, all readings are
returned, and the caller chooses one by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..embedding import SINGLE, Embedding
from ..errors import UserError

ENCODERS = (
    *("clip_l", "clip_g", "clip_h", "t5xxl", "umt5xxl", "t5base", "umt5base", "mt5xl", "pile_t5xl", "byt5_small"),
    *("t5gemma", "llama", "gemma2_2b", "gemma3_4b", "gemma3_12b", "gemma4", "qwen25_3b", "qwen25_7b", "qwen3_06b"),
    *(
        "qwen3_2b",
        "qwen3_4b",
        "qwen3_8b",
        "qwen35_2b",
        "qwen3vl_4b",
        "qwen3vl_8b",
        "qwen3vl_32b",
        "mistral3_24b",
        "ministral3_3b",
    ),
    *("jina_clip_2", "chinese_roberta", "lyrics", "gpt_oss", "hidream_o1", "sam3_clip"),
)
ONETRAINER = {"t5": "t5xxl", "gemma": "gemma2_2b"}  # OneTrainer's name -> ours, where they differ
# Anima: ComfyUI looks into an embedding's file for T5 too, though only to count its tokens. Other vectors make it fail
# there; none are no tokens, as in training.
WITHOUT_VECTORS = {"qwen3_06b": {"t5xxl": 4096}}
WITHOUT_SYNTAX = {  # encoders whose tokenizers ComfyUI gives no folder of embeddings
    *("pile_t5xl", "mt5xl", "umt5base", "umt5xxl", "t5base", "t5gemma", "byt5_small", "chinese_roberta", "jina_clip_2"),
    *("gemma2_2b", "gemma3_4b", "gemma3_12b", "gemma4", "qwen25_3b", "qwen25_7b", "qwen3_2b", "lyrics"),
}
EMP, OUT = "emp_params", "_out"  # OneTrainer's key (sic), and the suffix of its vectors for an encoder's output
SDXL = {"clip_l": 768, "clip_g": 1280}
BY_WIDTH = {width: encoder for encoder, width in SDXL.items()}
NUMBERED = re.compile(r"text_encoders_\d")  # of diffusers' first pivotal tuning for SDXL, and of replicate's trainer
FACTS = ("step", "sd_checkpoint", "sd_checkpoint_name")  # beside the vectors in A1111's files
BUNDLE = re.compile(r"bundle_emb\.(.+?)\.(string_to_param\..+|\w+)")
PROVENANCE = "ti-train"  # the key of our header, as JSON, in files without a header of their own
OTHER_FILES = {  # keys of files that are not embeddings
    "optimizer_state_dict": "the state of A1111's optimizer; the embedding is in the file without '.optim'",
    "IN01": "an XTI embedding, with vectors for each layer of the U-Net, which no tool reads",
}


def reads_syntax(encoders: Iterable[str]) -> bool:
    """Whether ComfyUI reads `embedding:name` in prompts for a model with these encoders; for some it is off."""
    return not WITHOUT_SYNTAX & set(encoders)


@dataclass(frozen=True)
class Reading:
    """An embedding in a file, and how it is stored."""

    embedding: Embedding
    layout: str
    dtypes: Mapping[str, torch.dtype]  # encoder -> dtype in the file
    outputs: Mapping[str, Tensor] = field(default_factory=dict)  # OneTrainer's `_out`: encoder -> [n, width] fp32


def readings(
    content: Any, container: str, name: str, header: Mapping[str, str], word: str | None = None
) -> list[Reading]:
    """Every embedding in a file, or only `word` if the file has it. name: of an embedding without a name of its own.

    Raises UserError with a message that continues the file's name.
    """
    layout, words = _words(content)
    if not any(words.values()):
        raise UserError("holds no tensors, so it is not an embedding.")
    facts = _facts(content)
    origin = {key: facts[key] for key in FACTS if key in facts} | dict(header)

    def reading(key: str, keys: Keys) -> Reading:
        own = word if word and word in keys else name
        return _reading(key or own, keys, f"{container}, {layout or _listed(keys)}", origin)

    return [reading(*found) for found in words.items() if word not in words or found[0] == word]


def name_inside(content: Any) -> str | None:
    """The name that A1111 stores in a file; it uses that of an image, and for other files the file's own."""
    return _facts(content).get("name")


def provenance_in(texts: Any) -> dict[str, str]:
    """The header that this project adds to files without one of their own, {} if another program wrote the file."""
    found = json.loads(texts.get(PROVENANCE, "{}")) if isinstance(texts, dict) else {}
    return {str(key): str(value) for key, value in found.items()}


Keys = dict[str, Tensor]  # key in the file -> tensor


def _words(content: Any) -> tuple[str, dict[str, Keys]]:
    """The layout ("" if the keys name it), and embedding -> its keys; "" is an embedding without a name of its own."""
    if isinstance(content, Tensor):
        return "a bare tensor", {"": {SINGLE: content}}
    if isinstance(content, list):
        return "a list of tensors", {"": _by_width(content)}
    if not isinstance(content, dict):
        raise UserError(f"holds a {type(content).__name__}, not an embedding.")
    for key, what in OTHER_FILES.items():
        if key in content:
            raise UserError(f"holds {what}.")
    if "string_to_param" in content:
        params = content["string_to_param"]
        if not isinstance(params, dict):
            raise UserError("holds no vectors under 'string_to_param'.")
        return "A1111 string_to_param", _nameless({word: {SINGLE: t} for word, t in _candidates(params).items()})
    tensors = _candidates(content)
    bundled = [match for key in tensors if (match := BUNDLE.fullmatch(key))]
    if bundled:
        return "bundled in a LoRA", _bundles(bundled, tensors)
    named = {key: tensor for key, tensor in tensors.items() if _encoder(key.removesuffix(OUT), tensor)}
    onetrainers = {key: tensor for key, tensor in named.items() if key.removesuffix(OUT) == EMP}
    several = {key: tensor for key, tensor in named.items() if key not in onetrainers}
    words = {key: {key: tensor} for key, tensor in tensors.items() if key not in named}
    words |= {_names(keys): keys for keys in (onetrainers, several) if keys}
    return "", _nameless(words)


def _nameless(words: dict[str, Keys]) -> dict[str, Keys]:
    """A file's only embedding is named after the file whatever its key, as in all hosts."""
    return {"": next(iter(words.values()))} if len(words) == 1 else words


def _tensors(content: dict[Any, Any]) -> dict[str, Tensor]:
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _candidates(content: dict[Any, Any]) -> Keys:
    """The tensors that are vectors by their key or shape; all if there are none, so that an error is about the first.

    Beside them files have steps, scales, token ids and the weights of a LoRA.
    """
    tensors = _tensors(content)
    found = {key: t for key, t in tensors.items() if names_vectors(key) or has_vectors(t.shape, t.is_floating_point())}
    return found or tensors


def names_vectors(key: str) -> bool:
    """Whether a key says that its tensor is an embedding, whatever its shape."""
    known = key in (SINGLE, EMP) or key.startswith("bundle_emb.") or re.fullmatch(r"<.+>(_\d+)?", key)
    return bool(known) or key.removesuffix(OUT).lower() in ENCODERS or NUMBERED.fullmatch(key) is not None


def has_vectors(shape: Sequence[int], floats: bool) -> bool:
    """Whether a tensor can be a list of vectors: one or two dimensions of floats."""
    return floats and len(shape) in (1, 2) and 0 not in shape


def _encoder(key: str, tensor: Tensor) -> str:
    """Our name of the encoder of a key, "" if the key is none."""
    if key == EMP:
        return SINGLE
    if NUMBERED.fullmatch(key):
        return BY_WIDTH.get(tensor.shape[-1] if tensor.ndim else 0, SINGLE)
    known = key.lower()
    if known == "clip_g" and tensor.shape[-1:] == (SDXL["clip_l"],):  # OneTrainer's first embeddings for Flux
        return "clip_l"
    return ONETRAINER.get(known, known if known in ENCODERS else "")


def _names(keys: Iterable[str]) -> str:
    return " + ".join(_ordered(keys))


def _ordered(keys: Iterable[str]) -> list[str]:
    """In the order of the encoders of Stable Diffusion XL; files have any order."""
    return sorted(keys, key=lambda key: (key.lower() != "clip_l", key))


def _listed(keys: Keys) -> str:
    if len(keys) == 1:
        return f"one tensor '{next(iter(keys))}'"
    return "tensors " + " and ".join(f"'{key}'" for key in _ordered(keys))


def _bundles(matches: list[re.Match[str]], tensors: dict[str, Tensor]) -> dict[str, Keys]:
    words: dict[str, Keys] = {}
    for match in matches:
        word, key = match.groups()
        words.setdefault(word, {})[SINGLE if key.startswith("string_to_param") else key] = tensors[match[0]]
    return words


def _by_width(content: list[Any]) -> Keys:
    """A list of dicts is read as in ComfyUI: an encoder gets the tensors of its width, concatenated."""
    parts = [t for part in content if isinstance(part, dict) for t in _tensors(part).values() if t.ndim]
    by_width: dict[int, list[Tensor]] = {}
    for tensor in parts:
        by_width.setdefault(tensor.shape[-1], []).append(tensor.reshape(-1, tensor.shape[-1]))
    joined = {width: torch.cat(tensors) for width, tensors in by_width.items()}
    if len(joined) == 1:
        return {SINGLE: next(iter(joined.values()))}
    if not set(joined) <= set(BY_WIDTH):
        raise UserError(
            f"holds a list of tensors of width {', '.join(map(str, joined))} without the names of their "
            "text encoders; only 768 and 1280, those of Stable Diffusion XL, can be assigned."
        )
    return {BY_WIDTH[width]: tensor for width, tensor in joined.items()}


def _facts(content: Any) -> dict[str, str]:
    """The metadata in A1111's files."""
    if not isinstance(content, dict):
        return {}
    return {k: str(content[k]) for k in ("name", *FACTS) if isinstance(content.get(k), (str, int, float))}


def _reading(name: str, keys: Keys, layout: str, provenance: dict[str, str]) -> Reading:
    vectors: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    dtypes = {}
    empty = {
        key for key, tensor in keys.items() if _encoder(key, tensor) and tensor.shape[:1] == (0,)
    }  # see WITHOUT_VECTORS
    keys = {key: tensor for key, tensor in keys.items() if key not in empty} or keys
    for key, tensor in ((key, keys[key]) for key in _ordered(keys)):
        encoder = _encoder(key.removesuffix(OUT), keys[key]) or SINGLE
        part = outputs if key.endswith(OUT) and _encoder(key.removesuffix(OUT), keys[key]) else vectors
        if encoder in part:
            raise UserError(f"has vectors for the encoder '{encoder}' twice ({_names(keys)}), which is ambiguous.")
        part[encoder] = _checked(tensor, key)
        if part is vectors:
            dtypes[encoder] = tensor.dtype
    if not vectors:
        raise UserError(
            f"only holds vectors for the output of a text encoder ({_names(keys)}), which only OneTrainer uses."
        )
    if len({v.shape[0] for v in vectors.values()}) > 1:
        counts = " and ".join(f"{v.shape[0]} for {encoder}" for encoder, v in vectors.items())
        raise UserError(f"holds {counts}: an embedding needs the same number of vectors for each text encoder.")
    return Reading(Embedding(name, vectors, provenance), layout, dtypes, outputs)


def _checked(tensor: Tensor, key: str) -> Tensor:
    """[n, width] fp32."""
    if not has_vectors(tensor.shape, tensor.is_floating_point()):
        raise UserError(
            f"holds '{key}' of shape {list(tensor.shape)} and type {str(tensor.dtype)[6:]}; "
            "an embedding is a list of vectors, [num_vectors, width] of floats."
        )
    vectors = tensor.float().reshape(-1, tensor.shape[-1])
    if not vectors.isfinite().all():
        raise UserError(f"holds NaN or infinite values in '{key}'. Train or download the embedding again.")
    return vectors


def joined(first: Reading, second: Reading) -> Reading:
    """Joins the two files of diffusers for Stable Diffusion XL, in either order. Raises UserError."""
    pair = (first, second)
    widths = [v.shape[1] for reading in pair for v in reading.embedding.vectors.values()]
    counts = {reading.embedding.num_vectors for reading in pair}
    if sorted(widths) != sorted(SDXL.values()) or len(counts) != 1:
        raise UserError(
            f"The two files have {' and '.join(f'{r.embedding.num_vectors} vector(s)' for r in pair)} of the widths "
            f"{', '.join(map(str, widths))}. They are one embedding only if they are the two files of Stable Diffusion "
            "XL: as many vectors, of 768 and of 1280."
        )
    parts = {BY_WIDTH[v.shape[1]]: (v, r) for r in pair for v in r.embedding.vectors.values()}
    vectors = {encoder: parts[encoder][0] for encoder in SDXL}
    dtypes = {encoder: next(iter(parts[encoder][1].dtypes.values())) for encoder in SDXL}
    embedding = replace(first.embedding, vectors=vectors)
    return Reading(embedding, f"two files: {first.layout}; {second.layout}", dtypes)
