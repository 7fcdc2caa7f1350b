"""Embedding files of every layout, as the tools that own them write them, by code that shares nothing with ours."""

from __future__ import annotations

import base64
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save
from torch import Tensor, nn


@dataclass(frozen=True)
class Sample:
    data: bytes
    ending: str
    vectors: dict[str, Tensor]  # what is to be read, [n, width] fp32
    layout: str
    provenance: dict[str, str]
    name: str = ""  # where the file says one


def torch_saved(content: object, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def old_torch_saved(content: object) -> bytes:
    """As torch up to 2.0 wrote its zip: without the entries that A1111's safe loader does not know."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_saved(content))) as new, zipfile.ZipFile(file, "w") as old:
        for name in new.namelist():
            if name.endswith(("/data.pkl", "/version")) or "/data/" in name:
                old.writestr(name, new.read(name))
    return file.getvalue()


def parameter_dict(**parameters: Tensor) -> nn.ParameterDict:
    """As rinongal's script and A1111 under torch 1.11 keep their vectors; the names are those of placeholders."""
    return nn.ParameterDict({{"star": "*", "at": "@"}[key]: nn.Parameter(v) for key, v in parameters.items()})


def a1111_json(vectors: Tensor, name: str = "their-word") -> bytes:
    param = {"*": {"TORCHTENSOR": vectors.tolist()}}
    data = {"string_to_token": {"*": 265}, "string_to_param": param, "name": name, "step": 7}
    return json.dumps(data | {"sd_checkpoint": None, "sd_checkpoint_name": "model-a"}).encode()


def card(text: bytes, side: int = 16) -> bytes:
    """A PNG with A1111's chunk."""
    info, file = PngInfo(), io.BytesIO()
    info.add_text("sd-ti-embedding", base64.b64encode(text).decode())
    Image.new("RGB", (side, side), (200, 180, 90)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def panels(packed: bytes, kind: str = "PNG", height: int = 32) -> bytes:
    """A1111's panels: lower halves of the bytes left of the picture, upper halves right, both masked."""
    values = np.frombuffer(packed + bytes(-len(packed) % (3 * height)), np.uint8)
    state, mask = 0, []
    for _ in values:
        state = (1664525 * state + 1013904223) % 2**32
        mask.append(state % 255 & 0x0F)
    left, right = ((half ^ np.array(mask, np.uint8)).reshape(height, -1, 3) for half in (values & 0x0F, values >> 4))
    dark = np.zeros((height, 1, 3), np.uint8)
    middle = np.full((height, 20, 3), 0xA5, np.uint8)
    pixels = np.hstack([left | 0x80, dark, middle, dark, right | 0x80])
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return file.getvalue()


def samples() -> dict[str, Sample]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    v, one, l, g = draw(2, 16), draw(1, 16), draw(2, 768), draw(2, 1280)  # noqa: E741
    single, sdxl = {"emb_params": v}, {"clip_l": l, "clip_g": g}
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": v}, "name": "their-word", "step": 7}
    a1111 |= {"sd_checkpoint": None, "sd_checkpoint_name": "model-a"}
    facts = {"step": "7", "sd_checkpoint_name": "model-a"}
    old = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameter_dict(star=v)}
    terms, words = "A1111 string_to_param", "bundled in a LoRA"
    lora = {"lora_unet_x.lora_down.weight": draw(4, 8), "lora_unet_x.alpha": torch.tensor(4.0)}
    bundle = {"bundle_emb.their-word.clip_l": l, "bundle_emb.their-word.clip_g": g}
    text, title = a1111_json(v), {"modelspec.title": "x"}
    return {
        "kohya": Sample(
            save(single, title), "safetensors", single, "one tensor 'emb_params'", title
        ),
        "kohya-pt": Sample(old_torch_saved(single), "pt", single, "one tensor 'emb_params'", {}),
        "kohya-sdxl": Sample(save(sdxl), "safetensors", sdxl, "tensors 'clip_l' and 'clip_g'", {}),
        "kohya-sdxl-pt": Sample(old_torch_saved(sdxl), "pt", sdxl, "tensors 'clip_l' and 'clip_g'", {}),
        "diffusers": Sample(save({"<cat>": one[0]}), "safetensors", {"emb_params": one}, "one tensor '<cat>'", {}),
        "diffusers-bin": Sample(
            old_torch_saved({"<cat>": one[0]}), "bin", {"emb_params": one}, "one tensor '<cat>'", {}
        ),
        "a1111": Sample(old_torch_saved(a1111), "pt", single, terms, facts),
        "a1111-legacy": Sample(torch_saved(a1111, legacy=True), "pt", single, terms, facts),
        "rinongal": Sample(old_torch_saved(old), "pt", single, terms, {}),
        "rinongal-legacy": Sample(torch_saved(old, legacy=True), "pt", single, terms, {}),
        "onetrainer": Sample(
            save({"emp_params": v, "emp_params_out": v + 1}), "safetensors", single,
            "tensors 'emp_params' and 'emp_params_out'", {},
        ),
        "onetrainer-flux": Sample(
            save({"clip_l": l, "t5": draw(2, 64)}), "safetensors", {"clip_l": l}, "tensors 'clip_l' and 't5'", {}
        ),
        "comfyui": Sample(save({"clip_h": v}), "safetensors", {"clip_h": v}, "one tensor 'clip_h'", {}),
        "list": Sample(old_torch_saved([{"a": l}, {"b": g}]), "pt", sdxl, "a list of tensors", {}),
        "bare": Sample(old_torch_saved(one[0].half()), "bin", {"emb_params": one.half().float()}, "a bare tensor", {}),
        "lora": Sample(
            save(lora | {"bundle_emb.their-word.string_to_param.*": v}), "safetensors", single, words, {}, "their-word"
        ),
        "lora-sdxl": Sample(save(lora | bundle), "safetensors", sdxl, words, {}, "their-word"),
        "card": Sample(card(text), "png", single, f"PNG text chunk, {terms}", facts, "their-word"),
        "panels": Sample(panels(zlib.compress(text)), "png", single, f"PNG panels, {terms}", facts, "their-word"),
        "panels-webp": Sample(
            panels(zlib.compress(text), "WEBP"), "webp", single, f"WEBP panels, {terms}", facts, "their-word"
        ),
    }  # fmt: skip


def write_samples(folder: Path) -> dict[str, Path]:
    """One file each, called after its layout."""
    paths = {}
    for name, sample in samples().items():
        paths[name] = folder / f"{name}.{sample.ending}"
        paths[name].write_bytes(sample.data)
    return paths
