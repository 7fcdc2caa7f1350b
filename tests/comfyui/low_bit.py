"""Training with weights of few bits, inside of ComfyUI's process: the gradient against that in fp32.

usage: low_bit.py FAMILY KIND ...     prints one line of JSON: what was found of each kind of weights
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from family_checks import fixed_batch
from inside import difference, enter_comfyui, gradient_of, make_host, pack
from tiny_families import FAMILIES, draw, models

FP8 = torch.float8_e4m3fn
LAYOUTS = {
    "scaled fp8": ("float8_e4m3fn", "TensorCoreFP8E4M3Layout"),
    "int8": ("int8_tensorwise", "TensorWiseINT8Layout"),
    "nvfp4": ("nvfp4", "TensorCoreNVFP4Layout"),
    "mxfp8": ("mxfp8", "TensorCoreMXFP8Layout"),
}


def main(family: str, *kinds: str) -> None:
    enter_comfyui("--cpu")
    pack()
    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        print("\n" + json.dumps(looked_at(family, kinds)))


def looked_at(family: str, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    model, clip, vae = draw(family, [])
    host = make_host(model, clip, vae)
    data = fixed_batch(host, FAMILIES[family]().side)
    exact, found = gradient_of(host, data), {}
    for kind in kinds:
        few = lowered(family, kind, model, clip)
        host = make_host(*few, vae)
        before = bits(*few)
        gradient = gradient_of(host, data)
        found[kind] = {
            "cosine": min(
                float(torch.cosine_similarity(g.flatten(), exact[e].flatten(), 0)) for e, g in gradient.items()
            ),
            "rounded": rounded(family, kind, data, gradient, model, clip, vae),
            "checkpointed": difference(gradient_of(host, data, gradient_checkpointing=True), gradient),
            "nearest": [host.vocabulary(e).nearest(v[0])[0][0] for e, v in data["vectors"].items()],
            "untouched": same_bits(before, bits(*few)),
            "stored": sorted({str(t.dtype) for t in before.values()}),
        }
    return found


def rounded(family: str, kind: str, data: Any, gradient: Any, model: Any, clip: Any, vae: Any) -> float:
    """How far a gradient is from that of the rounded weights in fp32."""
    with torch.inference_mode():
        pair = models(FAMILIES[family](), [])
        for part, plain in zip(
            (pair[0].model.diffusion_model, pair[1].cond_stage_model),
            (model.model.diffusion_model, clip.cond_stage_model),
            strict=True,
        ):
            linear = matrices(plain)
            weights = {n: few_bits(t, kind, n in linear) for n, t in plain.state_dict().items()}
            part.load_state_dict(weights)
    return difference(gradient, gradient_of(make_host(*pair, vae), data))


def few_bits(weight: torch.Tensor, kind: str, linear: bool) -> torch.Tensor:
    """The fp32 values that are left of a weight."""
    if kind == "fp16" or (kind == "fp8" and weight.ndim > 1):
        return weight.to(torch.float16 if kind == "fp16" else FP8).float()
    if not linear or kind == "fp8":
        return weight
    return Packed.of(weight).dequantised(weight) if kind == "packed" else in_layout(weight, *LAYOUTS[kind]).dequantize()


def matrices(part: torch.nn.Module) -> set[str]:
    return {f"{name}.weight" for name, module in part.named_modules() if type(module).__name__ == "Linear"}


@torch.inference_mode()
def lowered(family: str, kind: str, model: Any, clip: Any, load: str = "cpu") -> tuple[Any, Any]:
    """The same model and CLIP with weights of few bits."""
    import comfy.ops

    sizes, dtype = FAMILIES[family](), {"fp8": FP8, "fp16": torch.float16, "fp32": torch.float32}.get(kind)
    network, text = (in_few_bits(part, kind, dtype) for part in (model.model.diffusion_model, clip.cond_stage_model))
    if dtype:  # of all weights, and ComfyUI casts them
        pair = models(sizes, [], dtype, torch.float32, load=load)
    elif kind == "packed":
        pair = models(sizes, [], operations=packing(), load=load)
    else:
        emulated = {name for name, _ in LAYOUTS.values() if name != "int8_tensorwise"}  # as ComfyUI picks for a CPU
        operations = comfy.ops.mixed_precision_ops({}, torch.float32, disabled=emulated)
        pair = models(sizes, [], operations=operations, load=load, text=text)
    pair[0].model.diffusion_model.load_state_dict(network, assign=True)
    if kind not in LAYOUTS:
        pair[1].cond_stage_model.load_state_dict(text, assign=True)
    return pair


def in_few_bits(part: torch.nn.Module, kind: str, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """The keys and tensors of a file. dtype: of all of its weights."""
    linear = matrices(part)
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in part.state_dict().items():
        if dtype:
            weights[name] = tensor.to(dtype) if tensor.ndim > 1 or kind == "fp16" else tensor
        elif name not in linear:
            weights[name] = tensor
        elif kind == "packed":
            weights[name] = Packed.of(tensor)
        else:
            weights |= quantised(name, tensor, *LAYOUTS[kind])
    return weights


def quantised(name: str, weight: torch.Tensor, algorithm: str, layout: str) -> dict[str, torch.Tensor]:
    """The keys of a weight in ComfyUI's files."""
    stored: dict[str, torch.Tensor] = in_layout(weight, algorithm, layout).state_dict(name)
    about = torch.tensor(list(json.dumps({"format": algorithm}).encode()), dtype=torch.uint8)
    return stored | {name.removesuffix("weight") + "comfy_quant": about}


def in_layout(weight: torch.Tensor, algorithm: str, layout: str) -> Any:
    from comfy.quant_ops import QuantizedTensor

    scale = {"scale": "recalculate"} if algorithm.startswith("float8") else {}
    return QuantizedTensor.from_float(weight, layout, **scale)


class Packed(torch.Tensor):
    """Bytes that a layer makes a matrix of at each call, like those of a GGUF file."""

    scale: float

    @classmethod
    def of(cls, weight: torch.Tensor) -> Packed:
        scale = float(weight.abs().max()) / 127
        packed = (weight / scale).round().to(torch.int8).as_subclass(cls)
        packed.scale = scale
        return packed

    def detach(self) -> Packed:
        """Itself, which knows its scale; nn.Parameter would make another."""
        return self

    def to(self, *args: Any, **kwargs: Any) -> Packed:
        moved = super().to(*args, **kwargs)
        moved.scale = self.scale
        return moved

    def dequantised(self, like: torch.Tensor) -> torch.Tensor:
        return self.as_subclass(torch.Tensor).to(like.device, like.dtype) * self.scale


def packing() -> Any:
    import comfy.ops

    class Operations(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
                bias = None if self.bias is None else self.bias.to(input)
                return torch.nn.functional.linear(input, self.weight.dequantised(input), bias)

    return Operations


def bits(model: Any, clip: Any) -> dict[str, torch.Tensor]:
    """What every weight holds, as it is stored."""
    modules = {"model": model.model, "clip": clip.cond_stage_model}
    found = {f"{m}.{n}": t for m, module in modules.items() for n, t in module.state_dict().items()}
    return {name: tensor.detach().as_subclass(torch.Tensor).cpu().clone() for name, tensor in found.items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(t.flatten().view(torch.uint8), other[name].flatten().view(torch.uint8)) for name, t in one.items()
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
