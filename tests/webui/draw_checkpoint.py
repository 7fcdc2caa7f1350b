"""Draws a checkpoint of Stable Diffusion 1.5 from a seed.

usage: draw_checkpoint.py FILE small     a U-Net of one level (28 M parameters), 0.4 GB, and FILE's .yaml for A1111
       draw_checkpoint.py FILE full      all true shapes, 2.1 GB

fp16, in the layout of the original release. Every layer is drawn, those too that training would begin at zero, since a
U-Net whose attention adds nothing ignores its prompt. The norms get weights that differ: a plain LayerNorm's output has
a mean of zero, by which the hosts' emphasis divides.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

Shapes = Iterator[tuple[str, tuple[int, ...]]]
CHANNELS, CONTEXT, TIME = 320, 768, 1280
DEEPEST_WITH_ATTENTION = 2
SIZES = {"full": ((1, 2, 4, 4), 2), "small": ((1,), 1)}  # a level's channels by CHANNELS, blocks a level
YAML = """model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    timesteps: 1000
    first_stage_key: jpg
    cond_stage_key: txt
    image_size: 64
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    scale_factor: 0.18215
    use_ema: false
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: {image_size: 32, in_channels: 4, out_channels: 4, model_channels: 320, attention_resolutions: [1],
        num_res_blocks: 1, channel_mult: [1], num_heads: 8, use_spatial_transformer: true, transformer_depth: 1,
        context_dim: 768, use_checkpoint: true, legacy: false}
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        ddconfig: {double_z: true, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3, ch: 128,
          ch_mult: [1, 2, 4, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}
        lossconfig: {target: torch.nn.Identity}
    cond_stage_config: {target: ldm.modules.encoders.modules.FrozenCLIPEmbedder}
"""


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


def transformer(name: str, width: int) -> Shapes:
    yield from norm(f"{name}.norm", width)
    yield from conv(f"{name}.proj_in", width, width, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, source in (("attn1", width), ("attn2", CONTEXT)):
        yield from linear(f"{block}.{attention}.to_q", width, width, bias=False)
        yield from linear(f"{block}.{attention}.to_k", source, width, bias=False)
        yield from linear(f"{block}.{attention}.to_v", source, width, bias=False)
        yield from linear(f"{block}.{attention}.to_out.0", width, width)
    yield from linear(f"{block}.ff.net.0.proj", width, 8 * width)
    yield from linear(f"{block}.ff.net.2", 4 * width, width)
    for number in (1, 2, 3):
        yield from norm(f"{block}.norm{number}", width)
    yield from conv(f"{name}.proj_out", width, width, 1)


def unet(levels: tuple[int, ...], blocks: int) -> Shapes:
    yield from linear("time_embed.0", CHANNELS, TIME)
    yield from linear("time_embed.2", TIME, TIME)
    yield from conv("input_blocks.0.0", 4, CHANNELS)
    width, skipped, index = CHANNELS, [CHANNELS], 1
    for level, factor in enumerate(levels):
        for _ in range(blocks):
            yield from residual(f"input_blocks.{index}.0", width, factor * CHANNELS)
            width = factor * CHANNELS
            if level <= DEEPEST_WITH_ATTENTION:
                yield from transformer(f"input_blocks.{index}.1", width)
            skipped.append(width)
            index += 1
        if level < len(levels) - 1:
            yield from conv(f"input_blocks.{index}.0.op", width, width)
            skipped.append(width)
            index += 1
    yield from residual("middle_block.0", width, width)
    yield from transformer("middle_block.1", width)
    yield from residual("middle_block.2", width, width)
    index = 0
    for level, factor in reversed(list(enumerate(levels))):
        for number in range(blocks + 1):
            yield from residual(f"output_blocks.{index}.0", width + skipped.pop(), factor * CHANNELS)
            width = factor * CHANNELS
            attends = level <= DEEPEST_WITH_ATTENTION
            if attends:
                yield from transformer(f"output_blocks.{index}.1", width)
            if level and number == blocks:
                yield from conv(f"output_blocks.{index}.{2 if attends else 1}.conv", width, width)
            index += 1
    yield from norm("out.0", width)
    yield from conv("out.2", width, 4)


def text_encoder(width: int = 768, layers: int = 12) -> Shapes:
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
    if name.endswith("_embedding.weight"):
        value = 0.02 * torch.randn(shape)
    elif len(shape) > 1:
        value = torch.randn(shape) / math.prod(shape[1:]) ** 0.5  # a gain of one
    else:
        value = 0.1 * torch.randn(shape) + (1.0 if name.endswith("weight") else 0.0)
    return value.half()


def main(file: Path, size: str) -> None:
    torch.manual_seed(0)
    parts = (
        ("model.diffusion_model.", unet(*SIZES[size])),
        ("cond_stage_model.transformer.text_model.", text_encoder()),
        ("first_stage_model.", vae()),
    )
    checkpoint = {prefix + name: drawn(name, shape) for prefix, shapes in parts for name, shape in shapes}
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    checkpoint["alphas_cumprod"] = torch.cumprod(1 - betas, 0).float()
    checkpoint["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint, file)
    if size == "small":
        file.with_suffix(".yaml").write_text(YAML, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
