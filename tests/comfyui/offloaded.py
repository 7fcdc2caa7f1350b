"""Training with weights that ComfyUI keeps in system memory and fetches by layers, on a pretended card."""

from __future__ import annotations

from typing import Any

import torch
from devices.pretend_cuda import Card
from family_checks import fixed_batch
from inside import enter_comfyui, gradient_of, make_host, pack
from low_bit import bits, lowered, same_bits
from tiny_families import FAMILIES, draw

MIB = 2**20
ROOM = 64 * MIB  # for a step
MODES = {  # name -> its VRAM state, and whether the card has room for half of the weights only
    "whole": ("NORMAL_VRAM", False),
    "in parts": ("NORMAL_VRAM", True),
    "novram": ("NO_VRAM", False),
    "lowvram": ("LOW_VRAM", True),
}


def looked_at(family: str, kinds: list[str], keep: bool = True) -> dict[str, dict[str, Any]]:
    """Of each kind of weights and mode: what is on the card, and the gradient against that in fp32 on the CPU.

    keep: False leaves autograd what each layer makes of its weight, as if there were no recast.py.
    """
    enter_comfyui()
    pack()
    import comfy.model_management as management
    import comfy_kitchen

    comfy_kitchen.registry.disable("cuda")  # kernels that need a driver
    management.EXTRA_RESERVED_VRAM, management.minimum_inference_memory = 0, lambda: ROOM  # more than these models have
    from pack.ti_train.hosts.comfy import host as adapter

    if not keep:
        adapter.recast = lambda *_, **__: torch.enable_grad()
    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        model, clip, vae = draw(family, [])
        for patcher in (model, clip.patcher):
            patcher.load_device = torch.device("cpu")
        exact = make_host(model, clip, vae)
        data = fixed_batch(exact, FAMILIES[family]().side)
        wanted, found = gradient_of(exact, data), {}
        for kind in kinds:
            few = lowered(family, kind, model, clip, load="cuda:0")
            before = bits(*few)
            for mode, (state, crowded) in MODES.items():
                management.unload_all_models()
                size = few[0].model_size() + few[1].patcher.model_size()
                management.vram_state = management.VRAMState[state]
                Card.total = ROOM + size // 2 if crowded else 8 * 2**30
                found[f"{kind}, {mode}"] = one(make_host(*few, vae), few, data, wanted)
            found[kind] = {"untouched": same_bits(before, bits(*few))}
    return found


def one(host: Any, few: tuple[Any, Any], data: dict[str, Any], wanted: dict[str, torch.Tensor]) -> dict[str, Any]:
    here = {key: value.to(host.device) if torch.is_tensor(value) else value for key, value in data.items()}
    here["vectors"] = {encoder: v.to(host.device) for encoder, v in data["vectors"].items()}
    gradient = {encoder: g.cpu() for encoder, g in gradient_of(host, here, memory=ROOM).items()}
    again = gradient_of(host, here, gradient_checkpointing=True, memory=ROOM)
    patchers = few[0], few[1].patcher
    return {
        "on the card": sum(p.loaded_size() for p in patchers) / sum(p.model_size() for p in patchers),
        "cosine": min(float(torch.cosine_similarity(g.flatten(), wanted[e].flatten(), 0)) for e, g in gradient.items()),
        "gradient": {encoder: g.flatten().tolist() for encoder, g in gradient.items()},
        "checkpointed": max(float((again[e].cpu() - g).norm() / g.norm()) for e, g in gradient.items()),
    }
