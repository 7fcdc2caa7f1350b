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


def identities(family: str) -> dict[str, list[str]]:
    """The fingerprints of a model: [with the card's memory for all of it, for half, whole again], by what is added.

    plain: of its weights alone, without a projection that nothing reads, with the function that knows no ComfyUI.
    """
    enter_comfyui()
    pack()
    import comfy.model_management as management
    import comfy_kitchen

    comfy_kitchen.registry.disable("cuda")
    management.EXTRA_RESERVED_VRAM, management.minimum_inference_memory = 0, lambda: MIB
    with torch.inference_mode(), torch.inference_mode(False):
        pair, vae = draw(family, [])[:2], draw(family, [])[2]
        few = lowered(family, "fp16", *pair, load="cuda:0")
        size = few[0].model_size() + few[1].patcher.model_size()
        kinds = {"nothing": few, "LoRA": with_lora(*few, 0.5), "stronger": with_lora(*few, 1.0)}
        kinds |= {"shift": (shifted(few[0], 9.0), few[1])}
        found: dict[str, list[str]] = {"plain": [plain(*few, vae)]}
        for name, (model, clip) in kinds.items():
            found[name] = []
            for total in (8 * 2**30, MIB + size // 2, 8 * 2**30):
                management.unload_all_models()
                Card.total = total
                found[name].append(make_host(model, clip, vae).fingerprint)
                crowded = sum(p.loaded_size() for p in (model, clip.patcher)) < size
                assert crowded == (total < size), "the whole model is on the card, or there is no more of it"
    return found


def plain(model: Any, clip: Any, vae: Any) -> str:
    from pack.ti_train.host import digest_of

    modules = model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model
    weights = (pair for module in modules for pair in module.state_dict().items())
    return digest_of(pair for pair in weights if pair[0] != "clip_l.transformer.text_projection.weight")


def with_lora(model: Any, clip: Any, strength: float) -> tuple[Any, Any]:
    """Every matrix of the network and of the encoders is changed, as a LoRA with full matrices does."""
    pair = model.clone(), clip.clone()
    for patcher in (pair[0], pair[1].patcher):
        weights = {name: w for name, w in patcher.model.state_dict().items() if w.ndim == 2}
        patcher.add_patches(
            {name: ("diff", (torch.ones_like(w, device="cpu"),)) for name, w in weights.items()}, strength
        )
    return pair


def shifted(model: Any, shift: float) -> Any:
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    return ModelSamplingSD3().patch(model, shift)[0]


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
