"""Draws a checkpoint of a Stable Diffusion family from a seed.

usage: draw_checkpoint.py FILE sd1         a U-Net of one level, 0.5 GB, and FILE's .yaml for A1111
       draw_checkpoint.py FILE sd1-whole   all true shapes, 2.1 GB
       draw_checkpoint.py FILE sd2-v       Stable Diffusion 2 with v-prediction and narrow levels, and its .yaml
       draw_checkpoint.py FILE sdxl        Stable Diffusion XL with narrow levels, and its .yaml

The text encoders have their true shapes, which the hosts take for granted. fp16, in the layout of the original release.
Every layer is drawn, those too that training would begin at zero, since a U-Net whose attention adds nothing ignores
its prompt. The norms get weights that differ: a plain LayerNorm's output has a mean of zero, by which the hosts'
emphasis divides.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

Shapes = Iterator[tuple[str, tuple[int, ...]]]
CHANNELS, TIME = 320, 1280
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Network:
    """A U-Net: its levels' channels (by CHANNELS) and transformers, residual blocks a level, width of the text."""

    levels: tuple[int, ...]
    depths: tuple[int, ...]
    blocks: int
    context: int
    linear: bool = False  # projections around the transformers
    about: int = 0  # width of what it is told beside the text


NETWORKS = {
    "sd1": Network((1,), (1,), 1, 768),
    "sd1-whole": Network((1, 2, 4, 4), (1, 1, 1, 0), 2, 768),
    "sd2-v": Network((1, 1, 1, 1), (1, 1, 1, 0), 2, 1024, linear=True),
    "sdxl": Network((1, 1, 1), (0, 2, 10), 2, 2048, linear=True, about=2816),
}
TOLD_BY = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"  # v-prediction where it spreads


def linear(name: str, width_in: int, width_out: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (width_out, width_in)
    if bias:
        yield f"{name}.bias", (width_out,)


def conv(name: str, channels_in: int, channels_out: int, side: int = 3) -> Shapes:
    yield f"{name}.weight", (channels_out, channels_in, side, side)
    yield f"{name}.bias", (channels_out,)


def norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def residual(name: str, channels_in: int, channels_out: int) -> Shapes:
    yield from norm(f"{name}.in_layers.0", channels_in)
    yield from conv(f"{name}.in_layers.2", channels_in, channels_out)
    yield from linear(f"{name}.emb_layers.1", TIME, channels_out)
    yield from norm(f"{name}.out_layers.0", channels_out)
    yield from conv(f"{name}.out_layers.3", channels_out, channels_out)
    if channels_in != channels_out:
        yield from conv(f"{name}.skip_connection", channels_in, channels_out, 1)


def transformer(name: str, width: int, depth: int, network: Network) -> Shapes:
    def projection(place: str) -> Shapes:
        return linear(f"{name}.{place}", width, width) if network.linear else conv(f"{name}.{place}", width, width, 1)

    yield from norm(f"{name}.norm", width)
    yield from projection("proj_in")
    for block in (f"{name}.transformer_blocks.{number}" for number in range(depth)):
        for attention, source in (("attn1", width), ("attn2", network.context)):
            yield from linear(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from linear(f"{block}.{attention}.to_k", source, width, bias=False)
            yield from linear(f"{block}.{attention}.to_v", source, width, bias=False)
            yield from linear(f"{block}.{attention}.to_out.0", width, width)
        yield from linear(f"{block}.ff.net.0.proj", width, 8 * width)
        yield from linear(f"{block}.ff.net.2", 4 * width, width)
        for number in (1, 2, 3):
            yield from norm(f"{block}.norm{number}", width)
    yield from projection("proj_out")


def unet(network: Network) -> Shapes:
    yield from linear("time_embed.0", CHANNELS, TIME)
    yield from linear("time_embed.2", TIME, TIME)
    if network.about:
        yield from linear("label_emb.0.0", network.about, TIME)
        yield from linear("label_emb.0.2", TIME, TIME)
    yield from conv("input_blocks.0.0", 4, CHANNELS)
    levels = list(enumerate(zip(network.levels, network.depths, strict=True)))
    width, skipped, index = CHANNELS, [CHANNELS], 1
    for level, (factor, depth) in levels:
        for _ in range(network.blocks):
            yield from residual(f"input_blocks.{index}.0", width, factor * CHANNELS)
            width = factor * CHANNELS
            if depth:
                yield from transformer(f"input_blocks.{index}.1", width, depth, network)
            skipped.append(width)
            index += 1
        if level < len(levels) - 1:
            yield from conv(f"input_blocks.{index}.0.op", width, width)
            skipped.append(width)
            index += 1
    yield from residual("middle_block.0", width, width)
    yield from transformer("middle_block.1", width, max(network.depths), network)
    yield from residual("middle_block.2", width, width)
    index = 0
    for level, (factor, depth) in reversed(levels):
        for number in range(network.blocks + 1):
            yield from residual(f"output_blocks.{index}.0", width + skipped.pop(), factor * CHANNELS)
            width = factor * CHANNELS
            if depth:
                yield from transformer(f"output_blocks.{index}.1", width, depth, network)
            if level and number == network.blocks:
                yield from conv(f"output_blocks.{index}.{2 if depth else 1}.conv", width, width)
            index += 1
    yield from norm("out.0", width)
    yield from conv("out.2", width, 4)


def clip(width: int = 768, layers: int = 12) -> Shapes:
    """In transformers' layout."""
    yield "embeddings.position_embedding.weight", (77, width)
    yield "embeddings.token_embedding.weight", (49408, width)
    for layer in (f"encoder.layers.{number}" for number in range(layers)):
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{layer}.self_attn.{projection}", width, width)
        yield from linear(f"{layer}.mlp.fc1", width, 4 * width)
        yield from linear(f"{layer}.mlp.fc2", 4 * width, width)
        yield from norm(f"{layer}.layer_norm1", width)
        yield from norm(f"{layer}.layer_norm2", width)
    yield from norm("final_layer_norm", width)


def open_clip(width: int, layers: int) -> Shapes:
    """In open_clip's layout, the last layer but one and the pooled output among what is used."""
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    yield "token_embedding.weight", (49408, width)
    for layer in (f"transformer.resblocks.{number}" for number in range(layers)):
        yield f"{layer}.attn.in_proj_weight", (3 * width, width)
        yield f"{layer}.attn.in_proj_bias", (3 * width,)
        yield from linear(f"{layer}.attn.out_proj", width, width)
        yield from linear(f"{layer}.mlp.c_fc", width, 4 * width)
        yield from linear(f"{layer}.mlp.c_proj", 4 * width, width)
        yield from norm(f"{layer}.ln_1", width)
        yield from norm(f"{layer}.ln_2", width)
    yield from norm("ln_final", width)


def text_encoders(family: str) -> dict[str, Shapes]:
    if family == "sdxl":
        texts = {"conditioner.embedders.0.transformer.text_model.": clip()}
        return texts | {"conditioner.embedders.1.model.": open_clip(1280, 32)}
    if family == "sd2-v":
        return {"cond_stage_model.model.": open_clip(1024, 24)}
    return {"cond_stage_model.transformer.text_model.": clip()}


def vae_residual(name: str, channels_in: int, channels_out: int) -> Shapes:
    yield from norm(f"{name}.norm1", channels_in)
    yield from conv(f"{name}.conv1", channels_in, channels_out)
    yield from norm(f"{name}.norm2", channels_out)
    yield from conv(f"{name}.conv2", channels_out, channels_out)
    if channels_in != channels_out:
        yield from conv(f"{name}.nin_shortcut", channels_in, channels_out, 1)


def vae_half(name: str, widths: list[int], blocks: int, sampling: str, ends: tuple[int, int]) -> Shapes:
    """An encoder or a decoder; `widths` in the order that the data take."""
    decoder = sampling == "upsample"
    yield from conv(f"{name}.conv_in", ends[0], widths[0])
    if decoder:
        yield from vae_middle(name, widths[0])
    width = widths[0]
    for position, wanted in enumerate(widths):
        level = len(widths) - 1 - position if decoder else position
        path = f"{name}.{'up' if decoder else 'down'}.{level}"
        for number in range(blocks):
            yield from vae_residual(f"{path}.block.{number}", width, wanted)
            width = wanted
        if position < len(widths) - 1:
            yield from conv(f"{path}.{sampling}.conv", width, width)
    if not decoder:
        yield from vae_middle(name, width)
    yield from norm(f"{name}.norm_out", width)
    yield from conv(f"{name}.conv_out", width, ends[1])


def vae_middle(name: str, width: int) -> Shapes:
    yield from vae_residual(f"{name}.mid.block_1", width, width)
    yield from norm(f"{name}.mid.attn_1.norm", width)
    for projection in ("q", "k", "v", "proj_out"):
        yield from conv(f"{name}.mid.attn_1.{projection}", width, width, 1)
    yield from vae_residual(f"{name}.mid.block_2", width, width)


def vae() -> Shapes:
    yield from vae_half("encoder", [128, 256, 512, 512], 2, "downsample", (3, 8))
    yield from vae_half("decoder", [512, 512, 256, 128], 3, "upsample", (4, 3))
    yield from conv("quant_conv", 8, 8, 1)
    yield from conv("post_quant_conv", 4, 4, 1)


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith(("_embedding.weight", "positional_embedding")):
        value = 0.02 * torch.randn(shape)
    elif len(shape) > 1:
        value = torch.randn(shape) / math.prod(shape[1:]) ** 0.5  # a gain of one
    else:
        value = 0.1 * torch.randn(shape) + (1.0 if name.endswith("weight") else 0.0)
    return value.half()


def main(file: Path, family: str) -> None:
    torch.manual_seed(0)
    parts = {"model.diffusion_model.": unet(NETWORKS[family])} | text_encoders(family) | {"first_stage_model.": vae()}
    checkpoint = {prefix + name: drawn(name, shape) for prefix, shapes in parts.items() for name, shape in shapes}
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    checkpoint["alphas_cumprod"] = torch.cumprod(1 - betas, 0).float()
    if family.startswith("sd1"):
        checkpoint["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if family == "sd2-v":
        checkpoint[TOLD_BY] = torch.randn(checkpoint[TOLD_BY].shape).mul(0.2).half()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint, file)
    if (HERE / f"{family}.yaml").is_file():
        shutil.copy(HERE / f"{family}.yaml", file.with_suffix(".yaml"))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
