"""Training with GGUF files by the custom node ComfyUI-GGUF, inside of ComfyUI's process: the gradient against that of
fp32 weights.

usage: gguf_files.py CUSTOM_NODE FOLDER KIND ...     prints one line of JSON: what was found of each kind of weights
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from family_checks import fixed_batch, train
from inside import difference, enter_comfyui, gradient_of, make_host, pack, same
from tiny_families import CLIP_L, FAMILIES, FLUX, T5, fill, models, vae_weights

BLOCK = 256  # numbers that share a scale in K-quants: a row holds whole blocks
TEXT = CLIP_L | {"t5xxl_model_config": T5 | {"d_model": BLOCK, "d_ff": 2 * BLOCK, "d_kv": BLOCK // 2}}
# what ComfyUI reads off the file's weights, and of the rest the sizes that it takes for given
NETWORK = FLUX | {
    "context_in_dim": BLOCK, "hidden_size": BLOCK, "num_heads": 2, "axes_dim": [16, 56, 56], "mlp_ratio": 4.0,
    "guidance_embed": True,
}  # fmt: skip
T5_NAMES = {  # as llama.cpp names them, in the order in which they are replaced
    "encoder.block.": "enc.blk.", "shared": "token_embd", "encoder.final_layer_norm": "enc.output_norm",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b", "layer.0.SelfAttention.": "attn_",
    "layer.0.layer_norm": "attn_norm", "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wi_0": "ffn_gate", "layer.1.DenseReluDense.wo": "ffn_down",
    "layer.1.layer_norm": "ffn_norm",
}  # fmt: skip


def main(custom_node: str, folder: str, *kinds: str) -> None:
    enter_comfyui("--cpu")
    pack()
    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        print("\n" + json.dumps(looked_at(loaded(Path(custom_node)), Path(folder), kinds)))


def looked_at(node: ModuleType, folder: Path, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    import comfy.sd

    drawn, found = drawn_weights(), {}
    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=vae_weights(16), dtype=torch.float32, metadata={"tae_latent_channels": 16})
        fill(vae.first_stage_model)
    host = make_host(*from_weights(drawn), vae)
    data = fixed_batch(host, FAMILIES["flux"]().side)
    exact = gradient_of(host, data)
    for kind in kinds:
        files = written(folder / kind, drawn, kind)
        few = from_files(node, files)
        host, before = make_host(*few, vae), stored(*few)
        gradient = gradient_of(host, data)
        rounded = gradient_of(make_host(*from_weights(read_back(node, files)), vae), data)
        found[kind] = {
            "stored": sorted({str(t.dtype) for t in few[0].model.parameters()}),
            "cosine": {e: cosine(g, exact[e]) for e, g in gradient.items()},
            "cosine to rounded": {e: cosine(g, rounded[e]) for e, g in gradient.items()},
            "rounded": difference(gradient, rounded),
            "checkpointed": difference(gradient_of(host, data, gradient_checkpointing=True), gradient),
            "nearest": {e: host.vocabulary(e).nearest(host.vocabulary(e).rows("cat")[0])[0][0] for e in host.widths},
            **train(host, folder / kind, FAMILIES["flux"]().side),
            "untouched": same(before, stored(*few)),
        }
    return found


def stored(model: Any, clip: Any) -> dict[str, tuple[int, torch.Tensor]]:
    """Of every weight the very object, and the bytes that it holds: the custom node's class copies none."""
    modules = {"model": model.model, "clip": clip.cond_stage_model}
    parameters = {f"{m}.{name}": p for m, module in modules.items() for name, p in module.named_parameters()}
    return {name: (id(p), p.data.as_subclass(torch.Tensor).clone()) for name, p in parameters.items()}


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), 0))


def loaded(custom_node: Path) -> ModuleType:
    """The custom node, as ComfyUI loads it."""
    where = {"submodule_search_locations": [str(custom_node)]}
    spec = importlib.util.spec_from_file_location("ComfyUI_GGUF", custom_node / "__init__.py", **where)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.inference_mode()
def drawn_weights() -> dict[str, dict[str, torch.Tensor]]:
    """Of a tiny Flux.1 dev that ComfyUI can tell from its weights: file -> name -> weight."""
    model, clip = models(replace(FAMILIES["flux"](), unet=NETWORK, encoders=TEXT), [])
    torch.manual_seed(0)
    parts = {
        "flux": model.model.diffusion_model,
        "clip_l": clip.cond_stage_model.clip_l.transformer,
        "t5": clip.cond_stage_model.t5xxl.transformer,
    }
    for part in parts.values():
        fill(part)
    return {name: part.state_dict() for name, part in parts.items()}


def from_weights(weights: dict[str, dict[str, torch.Tensor]]) -> tuple[Any, Any]:
    """A MODEL and a CLIP as ComfyUI's own loaders make them."""
    import comfy.sd

    copies = {name: dict(part) for name, part in weights.items()}
    with torch.inference_mode(), of_tiny_sizes():
        model = comfy.sd.load_diffusion_model_state_dict(copies["flux"], {"dtype": torch.float32})
        kind = comfy.sd.CLIPType.FLUX
        given = [copies["clip_l"], copies["t5"]]
        clip = comfy.sd.load_text_encoder_state_dicts(given, clip_type=kind, model_options={"dtype": torch.float32})
    return model, clip


def from_files(node: ModuleType, files: dict[str, Path]) -> tuple[Any, Any]:
    """A MODEL and a CLIP as the custom node's loaders make them."""
    import folder_paths

    for kind in ("unet", "diffusion_models", "clip", "text_encoders"):
        folder_paths.folder_names_and_paths[kind] = ([str(files["flux"].parent)], {".gguf", ".safetensors"})
    loaders = node.NODE_CLASS_MAPPINGS
    with torch.inference_mode(), of_tiny_sizes():
        (model,) = loaders["UnetLoaderGGUF"]().load_unet(files["flux"].name)
        (clip,) = loaders["DualCLIPLoaderGGUF"]().load_clip(files["clip_l"].name, files["t5"].name, "flux")
    return model, clip


@contextmanager
def of_tiny_sizes() -> Iterator[None]:
    """ComfyUI takes the sizes of Flux's text encoders for given."""
    import comfy.sd

    clip_of = comfy.sd.CLIP

    def tiny(*args: Any, model_options: dict[str, Any], **kwargs: Any) -> Any:
        return clip_of(*args, model_options=model_options | TEXT, **kwargs)

    comfy.sd.CLIP = tiny
    try:
        yield
    finally:
        comfy.sd.CLIP = clip_of


def written(folder: Path, weights: dict[str, dict[str, torch.Tensor]], kind: str) -> dict[str, Path]:
    """The files: network and T5 as GGUF, CLIP as safetensors, as people have them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    files = {name: folder / f"{name}.gguf" for name in ("flux", "t5")} | {"clip_l": folder / "clip_l.safetensors"}
    write_gguf(files["flux"], "flux", weights["flux"], kind)
    t5 = {llama_name(name): tensor for name, tensor in weights["t5"].items() if name != "encoder.embed_tokens.weight"}
    write_gguf(files["t5"], "t5encoder", t5, kind)
    save_file({name: tensor.contiguous() for name, tensor in weights["clip_l"].items()}, files["clip_l"])
    return files


def llama_name(name: str) -> str:
    for theirs, ours in T5_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def write_gguf(file: Path, architecture: str, weights: dict[str, torch.Tensor], kind: str) -> None:
    """Matrices in few bits where a row holds whole blocks, else fp16; the rest in fp32, as the converters do."""
    import gguf

    writer, low = gguf.GGUFWriter(file, architecture), gguf.GGMLQuantizationType[kind]
    for name, tensor in weights.items():
        values = tensor.float().numpy()
        if tensor.ndim == 2 and tensor.shape[1] % BLOCK == 0:
            bits = in_q4_k(values) if kind == "Q4_K" else gguf.quants.quantize(values, low)
            writer.add_tensor(name, bits, raw_dtype=low)
        else:
            writer.add_tensor(name, values.astype(np.float16) if tensor.ndim == 2 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_q4_k(values: np.ndarray) -> np.ndarray:
    """Q4_K, which the package does not write: here with the same scale and minimum for all parts of a block."""
    rows = values.reshape(-1, BLOCK)
    low = rows.min(axis=1, keepdims=True)
    scale = ((rows.max(axis=1, keepdims=True) - low) / 15).astype(np.float16)
    minimum = (-low).astype(np.float16)  # what is subtracted
    numbers = ((rows + minimum) / scale).round().clip(0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    ones = np.tile(np.array([1] * 8 + [0x11] * 4, np.uint8), (len(rows), 1))  # eight scales and minima, of six bits
    packed = (numbers[:, :, 0] | numbers[:, :, 1] << 4).reshape(-1, BLOCK // 2)
    blocks = np.concatenate([scale.view(np.uint8), minimum.view(np.uint8), ones, packed], axis=1)
    return blocks.reshape(*values.shape[:-1], -1)


@torch.inference_mode()
def read_back(node: ModuleType, files: dict[str, Path]) -> dict[str, dict[str, torch.Tensor]]:
    """The weights that the files hold, in fp32."""
    from ComfyUI_GGUF.dequant import dequantize_tensor
    from ComfyUI_GGUF.loader import gguf_clip_loader, gguf_sd_loader
    from safetensors.torch import load_file

    of_gguf = {"flux": gguf_sd_loader(str(files["flux"])), "t5": gguf_clip_loader(str(files["t5"]))}
    plain = {
        part: {name: dequantize_tensor(t, torch.float32).as_subclass(torch.Tensor) for name, t in weights.items()}
        for part, weights in of_gguf.items()
    }
    return plain | {"clip_l": load_file(files["clip_l"])}


if __name__ == "__main__":
    main(*sys.argv[1:])
