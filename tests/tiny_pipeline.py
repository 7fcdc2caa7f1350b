"""Writes Stable Diffusion folders in diffusers' layout with a few hundred thousand random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ti_train.hosts.spelling import BYTES

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = (
    "c a", "ca t</w>", "d o", "do g</w>", "p h", "ph o", "pho t", "phot o</w>", "o f</w>",
    "t o", "to y</w>", "r e", "re d</w>", "t h", "th e</w>",
)  # fmt: skip
WIDTHS = {"sd1": (32,), "sd2": (48,), "sdxl": (32, 48)}  # of each text encoder
PADDING = {"sd1": (END,), "sd2": ("!",), "sdxl": (END, "!")}  # what follows the end of a prompt


def write_tokenizer(folder: Path) -> None:
    """CLIP's byte-level BPE with the words of MERGES; any other text falls into letters."""
    pieces = [*BYTES, *(letter + "</w>" for letter in BYTES), *(merge.replace(" ", "") for merge in MERGES), START, END]
    folder.mkdir(parents=True)
    vocabulary = json.dumps({piece: i for i, piece in enumerate(pieces)})
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")


def tokenizer(folder: Path, padding: str):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(
        folder, model_max_length=77, bos_token=START, eos_token=END, unk_token=END, pad_token=padding
    )


def text_encoder(width: int, tokenizer, projection: bool = False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=width,
        hidden_act="quick_gelu" if width == WIDTHS["sd1"][0] else "gelu",
    )  # fmt: skip
    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    model.get_input_embeddings().weight.data.normal_(0, 0.3)
    return model


def unet(family: str):
    from diffusers import UNet2DConditionModel

    shape: dict[str, object] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "use_linear_projection": family != "sd1",
    }
    if family == "sdxl":
        shape |= {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2),
            "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + WIDTHS["sdxl"][-1],
        }  # fmt: skip
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 32), layers_per_block=1,
        cross_attention_dim=sum(WIDTHS[family]), attention_head_dim=4, norm_num_groups=8, **shape,
    )  # fmt: skip


def autoencoder(small: bool):
    from diffusers import AutoencoderKL, AutoencoderTiny

    if small:
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
        )  # fmt: skip
    return AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def write_pipeline(
    folder: Path,
    family: str = "sd1",
    prediction: str = "epsilon",
    small_vae: bool = False,
    tokenizers: Sequence[object] = (),
    **options: object,
) -> Path:
    """`options`: of the scheduler. `tokenizers`: of the text encoders, in the place of those that know MERGES."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    if not tokenizers:
        write_tokenizer(folder / "words")
        tokenizers = [tokenizer(folder / "words", padding) for padding in PADDING[family]]
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type=prediction, **options,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = text_encoder(WIDTHS[family][0], tokenizers[0])
        denoiser, vae = unet(family), autoencoder(small_vae)
        parts = {
            "text_encoder": first,
            "tokenizer": tokenizers[0],
            "unet": denoiser,
            "vae": vae,
            "scheduler": scheduler,
        }
        if family == "sdxl":
            second = text_encoder(WIDTHS[family][1], tokenizers[1], projection=True)
            parts |= {"text_encoder_2": second, "tokenizer_2": tokenizers[1]}
            made = StableDiffusionXLPipeline(**parts)
        else:
            made = StableDiffusionPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
    made.save_pretrained(folder / "model")
    return folder / "model"
