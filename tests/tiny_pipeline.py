"""Writes a Stable Diffusion folder in diffusers' layout with a few hundred thousand random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = (
    "c a", "ca t</w>", "d o", "do g</w>", "p h", "ph o", "pho t", "phot o</w>", "o f</w>",
    "t o", "to y</w>", "r e", "re d</w>", "t h", "th e</w>",
)  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """CLIP's byte-level BPE with the words of MERGES; any other text falls into letters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]
    pieces = [*letters, *(c + "</w>" for c in letters), *(merge.replace(" ", "") for merge in MERGES), START, END]
    folder.mkdir(parents=True)
    vocabulary = json.dumps({piece: i for i, piece in enumerate(pieces)})
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")


def write_pipeline(folder: Path, prediction: str = "epsilon", small_vae: bool = False, **scheduler: object) -> Path:
    from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    write_tokenizer(folder / "words")
    tokenizer = CLIPTokenizer.from_pretrained(
        folder / "words", model_max_length=77, bos_token=START, eos_token=END, unk_token=END, pad_token=END
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        text_encoder = CLIPTextModel(config)
        text_encoder.get_input_embeddings().weight.data.normal_(0, 0.3)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 32), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
        )  # fmt: skip
        if small_vae:
            vae = AutoencoderTiny(
                encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
            )  # fmt: skip
        else:
            vae = AutoencoderKL(
                block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16,
                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            )  # fmt: skip
    StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet,
        DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1, prediction_type=prediction, **scheduler,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "model")  # fmt: skip
    return folder / "model"
