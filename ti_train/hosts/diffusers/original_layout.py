"""Where a checkpoint file keeps the weights of diffusers' and transformers' modules: the layout of the models' makers.

A part's weights are looked up one by one, so that a file lacks weights by name. Text encoders are found in the layout
of transformers too, as other tools write them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
PARTS = {"unet": UNET, "vae": VAE, "text_encoder": "text_encoder.", "text_encoder_2": "text_encoder_2."}
WRAPPED = re.compile(r"((?:\w+\.)+?)" + re.escape(UNET))  # a wrapper of all weights
TEXT = re.compile(r"^(cond_stage_model|conditioner\.embedders\.(\d))\.(transformer|model)\.(text_model\.)?")
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def canonical_names(stored: Iterable[str]) -> dict[str, str]:
    """Name in the makers' layout, but with text encoders below text_encoder(_2). -> name in the file."""
    stored = list(stored)
    wrapper = next((match[1] for name in stored if (match := WRAPPED.match(name))), "")
    return {_canonical(name.removeprefix(wrapper)): name for name in stored}


def _canonical(name: str) -> str:
    name = VAE + name[4:] if name.startswith("vae.") else name
    return TEXT.sub(lambda match: PARTS["text_encoder_2" if match[2] == "1" else "text_encoder"], name)


@dataclass(frozen=True)
class Source:
    """A weight's place in a file. third: of a tensor of three stacked weights; transposed: [in, out]."""

    name: str
    third: int | None = None
    transposed: bool = False

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        if self.third is not None and stored and stored[0] % 3 == 0:
            return (stored[0] // 3, *stored[1:])
        return stored[::-1] if self.transposed else stored

    def read(self, stored: Tensor) -> Tensor:
        if self.third is not None:
            return stored.chunk(3)[self.third]
        return stored.T.contiguous() if self.transposed else stored


def sources(part: str, keys: Iterable[str], there: Mapping[str, tuple[int, ...]]) -> dict[str, Source]:
    """Key of a module's weight -> its place. keys: of the whole module; there: the file's canonical names."""
    keys, prefix = list(keys), PARTS[part]
    if part == "unet":
        find = _unet_names(keys)
    elif part == "vae":
        find = _vae_names(keys)
    else:
        return {key: _text_source(key.removeprefix("text_model."), prefix, there) for key in keys}
    return {key: Source(prefix + find(key)) for key in keys}


def _unet_names(keys: list[str]) -> Callable[[str], str]:
    """Blocks are numbered through; a down- or upsampler counts as one, or shares its block's number."""
    numbers = [int(m[1]) for key in keys if (m := re.match(r"down_blocks\.0\.resnets\.(\d)", key))]
    layers, attention = max(numbers) + 1, {key.split(".attentions.")[0] for key in keys if ".attentions." in key}

    def name(key: str) -> str:
        stem, leaf = key.rsplit(".", 1)
        if stem in UNET_ENDS:
            return f"{UNET_ENDS[stem]}.{leaf}"
        if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", stem):
            kind, index, rest = match[1], int(match[2]), match[3]
            to = f"1.{rest}" if kind == "attentions" else f"{2 * index}.{RESNET[rest]}"
            return f"middle_block.{to}.{leaf}"
        side, block, kind, index_, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", stem).groups()  # type: ignore[union-attr]
        number = int(block) * (layers + 1) + (1 if side == "down" else 0)
        if kind == "downsamplers":
            return f"input_blocks.{number + layers}.0.op.{leaf}"
        if kind == "upsamplers":
            return f"output_blocks.{number + layers}.{2 if f'up_blocks.{block}' in attention else 1}.conv.{leaf}"
        to = f"{'input' if side == 'down' else 'output'}_blocks.{number + int(index_)}"
        return f"{to}.1.{rest}.{leaf}" if kind == "attentions" else f"{to}.0.{RESNET[rest]}.{leaf}"

    return name


def _vae_names(keys: list[str]) -> Callable[[str], str]:
    """Upwards levels are counted from the finest."""
    levels = 1 + max(int(m[1]) for key in keys if (m := re.match(r"decoder\.up_blocks\.(\d)", key)))

    def name(key: str) -> str:
        to = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        to = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", to)
        to = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", to)
        to = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", to)
        to = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", to)
        to = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", to)
        attention = re.match(r"(\w+)\.mid_block\.attentions\.0\.(.*)\.(weight|bias)", to)
        return f"{attention[1]}.mid.attn_1.{VAE_ATTENTION[attention[2]]}.{attention[3]}" if attention else to

    return name


def _text_source(key: str, prefix: str, there: Mapping[str, tuple[int, ...]]) -> Source:
    """In transformers' layout if the file has that name, else in open_clip's if the file has it otherwise."""
    layers = re.match(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", key)
    openly = any(name.startswith(f"{prefix}transformer.resblocks.") for name in there)
    if prefix + key in there or not openly:
        return Source(prefix + key)
    if layers is None:
        return Source(prefix + OPEN_CLIP_ENDS[key], transposed=key == "text_projection.weight")
    block, part, leaf = f"{prefix}transformer.resblocks.{layers[1]}.", layers[2], layers[3]
    if part in OPEN_CLIP:
        return Source(f"{block}{OPEN_CLIP[part]}.{leaf}")
    return Source(f"{block}attn.in_proj_{leaf}", third="qkv".index(part.removeprefix("self_attn.")[0]))
