"""Writes a small pipeline's weights as one file in the layout of Stable Diffusion's makers (LDM).

Written from the layout of the originals, key by key; diffusers' loader is what reads it back.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ti_train.hosts.diffusers.checkpoint_file import CONFIGS

UNET, VAE = "model.diffusion_model.", "first_stage_model."
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


def unet_key(key: str, layers: int, has_attention: set[str]) -> str:
    """A key of diffusers' U-Net -> its original; blocks are numbered through, a down- or upsampler counts as one."""
    name, leaf = key.rsplit(".", 1)
    if name in UNET_ENDS:
        return f"{UNET_ENDS[name]}.{leaf}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = match[1], int(match[2]), match[3]
        to = f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * index}.{RESNET[rest]}"
        return f"{to}.{leaf}"
    side, block, kind, index, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()
    number = int(block) * (layers + 1) + (1 if side == "down" else 0)
    if kind == "downsamplers":
        return f"input_blocks.{number + layers}.0.op.{leaf}"
    if kind == "upsamplers":
        place = 2 if f"up_blocks.{block}" in has_attention else 1
        return f"output_blocks.{number + layers}.{place}.conv.{leaf}"
    to = f"{'input' if side == 'down' else 'output'}_blocks.{number + int(index)}"
    return f"{to}.1.{rest}.{leaf}" if kind == "attentions" else f"{to}.0.{RESNET[rest]}.{leaf}"


def original_unet(unet: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    attention = {match[0] for key in unet if (match := re.match(r"up_blocks\.\d(?=\.attentions)", key))}
    return {UNET + unet_key(key, layers, attention): tensor for key, tensor in unet.items()}


def original_vae(vae: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Upwards levels are counted from the finest; attention is a convolution of one pixel."""
    found = {}
    for key, tensor in vae.items():
        to = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        to = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", to)
        to = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", to)
        to = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", to)
        to = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", to)
        to = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", to)
        if match := re.match(r"(\w+)\.mid_block\.attentions\.0\.(.*)\.(weight|bias)", to):
            to = f"{match[1]}.mid.attn_1.{VAE_ATTENTION[match[2]]}.{match[3]}"
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        found[VAE + to] = tensor
    return found


def open_clip(text: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Stable Diffusion 2's and the second of XL: query, key and value in one, the projection transposed."""
    found = {}
    for key, tensor in text.items():
        name = key.removeprefix("text_model.")
        if match := re.match(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", name):
            block, part, leaf = f"transformer.resblocks.{match[1]}", match[2], match[3]
            if part == "self_attn.q_proj":
                three = [text[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
                found[f"{block}.attn.in_proj_{leaf}"] = torch.cat(three)
            elif part in OPEN_CLIP:
                found[f"{block}.{OPEN_CLIP[part]}.{leaf}"] = tensor
        else:
            to = {
                "embeddings.token_embedding.weight": "token_embedding.weight",
                "embeddings.position_embedding.weight": "positional_embedding",
                "text_projection.weight": "text_projection",
            }.get(name, name.replace("final_layer_norm", "ln_final"))
            found[to] = tensor.T if to == "text_projection" else tensor
    return {prefix + key: tensor for key, tensor in found.items()}


def clip(text: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in text.items()}


TEXT = {
    "sd1": {"text_encoder": (clip, "cond_stage_model.transformer.")},
    "sd2": {"text_encoder": (open_clip, "cond_stage_model.model.")},
    "sdxl": {
        "text_encoder": (clip, "conditioner.embedders.0.transformer."),
        "text_encoder_2": (open_clip, "conditioner.embedders.1.model."),
    },
}


def tensors_of(folder: Path, family: str) -> dict[str, Tensor]:
    """All of a pipeline folder's weights under their original names."""

    def weights(part: str) -> dict[str, Tensor]:
        (file,) = (folder / part).glob("*.safetensors")
        return load_file(file)

    layers = json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"]
    levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    tensors = original_unet(weights("unet"), layers) | original_vae(weights("vae"), levels)
    for part, (layout, prefix) in TEXT[family].items():
        tensors |= layout(weights(part), prefix)
    if family == "sd2":  # the originals carry the layer that Stable Diffusion 2 leaves out
        last = {key: tensor for key, tensor in tensors.items() if ".resblocks.1." in key}
        tensors |= {key.replace(".resblocks.1.", ".resblocks.2."): tensor + 1 for key, tensor in last.items()}
    return tensors


def write_checkpoint(path: Path, folder: Path, family: str, **metadata: str) -> Path:
    tensors = {key: tensor.contiguous() for key, tensor in tensors_of(folder, family).items()}
    save_file(tensors, path, metadata or None)
    return path


def write_configs(root: Path, kind: str, folder: Path) -> None:
    """What the shipped folder of a kind says, in the small pipeline's shapes."""
    for file in folder.rglob("*config.json"):
        if not file.parent.name.startswith("tokenizer"):
            copy(file, root / kind / file.relative_to(folder))
    for file in (CONFIGS / kind).rglob("tokenizer_config.json"):
        copy(file, root / kind / file.relative_to(CONFIGS / kind))
    copy(CONFIGS / kind / "model_index.json", root / kind / "model_index.json")


def copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, to)
