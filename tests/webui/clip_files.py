"""CLIP's tokenizer and configuration in transformers' layout, out of what open_clip brings along."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import open_clip

START, END = "<|startoftext|>", "<|endoftext|>"


NAME = "openai/clip-vit-large-patch14"


def clip_folder(hub: Path) -> Path:
    return hub / f"models--{NAME.replace('/', '--')}" / "snapshots" / "0"


def write_hub(hub: Path) -> None:
    """Writes a cache of the Hugging Face hub that holds CLIP ViT-L/14 without its weights."""
    write_clip(clip_folder(hub))
    refs = clip_folder(hub).parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0", encoding="utf-8")


def write_clip(folder: Path) -> None:
    """Writes vocab.json, merges.txt and the configurations of CLIP ViT-L/14; no weights."""
    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(source.read_bytes()).decode("utf-8").splitlines()[1 : 49152 - 256 - 2 + 1]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(m.split()) for m in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer", "bos_token": START, "eos_token": END, "unk_token": END,
        "pad_token": END, "model_max_length": 77, "errors": "replace", "do_lower_case": True,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    text = {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_size": 768,
        "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768,
        "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(text), encoding="utf-8")
