"""Room for a step inside ComfyUI, on a pretended card: other checkpoints leave it, the training's own stay."""

from __future__ import annotations

from typing import Any

import pytest
from devices.runner import on_card

pytestmark = pytest.mark.slow
MIB = 2**20


def look(checkpoint: str, more: int) -> dict[str, Any]:
    """What is loaded before a step and in it, which needs `more` bytes than are free; and what is free then."""
    import torch
    from devices.pretend_cuda import Card
    from inside import enter_comfyui, load, make_host, pack

    enter_comfyui()
    pack()
    import comfy.model_management as management

    Card.computes = False
    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        hosts = [make_host(*load(checkpoint)) for _ in range(2)]
        for host in hosts:
            host.encode([("a toy",)], {})
        parts = {id(module): number for number, host in enumerate(hosts) for module in host._weights()}

        def loaded() -> list[int]:
            return sorted(parts[id(model.model.model)] for model in management.current_loaded_models)

        before, needed = loaded(), torch.cuda.mem_get_info()[0] + more
        with hosts[0].training(memory=needed):
            found = {"before": before, "within": loaded(), "missing": needed - torch.cuda.mem_get_info()[0]}
        from pack.nodes.run import release

        release()
        return found | {"after release": loaded()}


def kept(checkpoint: str) -> dict[str, int]:
    """Bytes that the card holds for a prompt's encoding while its gradient is wanted, and those of the weights in fp32,
    in which ComfyUI computes text encoders."""
    import torch
    from devices.pretend_cuda import Card
    from inside import enter_comfyui, load, make_host, pack

    enter_comfyui()
    pack()
    from pack.ti_train.host import Slot

    Card.computes = False
    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        host = make_host(*load(checkpoint))
        vectors = {name: torch.zeros(1, n, device="cuda", requires_grad=True) for name, n in host.widths.items()}
        with host.training():
            before = torch.cuda.memory_allocated()
            cond = host.encode([("a toy like ", Slot("*"))], {"*": vectors})
            held = torch.cuda.memory_allocated() - before
        cast = sum(4 * parameter.numel() for parameter in host.clip.cond_stage_model.parameters())
        return {"held": held, "cast": cast, "prompts": len(cond)}


def test_what_the_text_encoders_cast_is_not_kept_until_backward(comfyui, comfyui_python, drawn):
    found = on_card(kept, str(drawn / "sdxl.safetensors"), gib=24, python=comfyui_python, cwd=comfyui)
    assert found["held"] < 0.1 * found["cast"]


MEDIUM = {  # of Flux: 0.3 billion parameters
    "hidden_size": 1024, "num_heads": 8, "depth": 4, "depth_single_blocks": 8, "axes_dim": [16, 56, 56],
}  # fmt: skip


def in_a_step(kinds: list[str], checkpointing: bool) -> dict[str, dict[str, float]]:
    """Of each kind of weights: their MiB on the card, and the most that a step in fp32 holds beside them."""
    from dataclasses import replace

    import torch
    from devices.pretend_cuda import Card
    from family_checks import fixed_batch
    from inside import enter_comfyui, gradient_of, make_host, pack
    from low_bit import lowered
    from tiny_families import FAMILIES, draw

    enter_comfyui()
    pack()
    import comfy.model_management as management
    import comfy_kitchen

    comfy_kitchen.registry.disable("cuda")  # kernels that need a driver
    tiny = FAMILIES["flux"]()
    FAMILIES["medium"] = lambda: replace(tiny, unet=tiny.unet | MEDIUM)
    found = {}
    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        model, clip, vae = draw("medium", [])
        for patcher in (model, clip.patcher):
            patcher.load_device = torch.device("cpu")
        data = fixed_batch(make_host(model, clip, vae), 64)
        data |= {key: value.to("cuda") for key, value in data.items() if torch.is_tensor(value)}
        data["vectors"] = {encoder: v.to("cuda") for encoder, v in data["vectors"].items()}
        for kind in kinds:
            host = make_host(*lowered("medium", kind, model, clip, load="cuda:0"), vae)
            with host.training():
                weights = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            gradient_of(host, data, gradient_checkpointing=checkpointing)
            found[kind] = {"weights": weights / MIB, "beside": (Card.peak - weights) / MIB}
            management.unload_all_models()
    return found


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_no_copy_of_the_weights_in_the_precision_of_computation_is_kept(comfyui, comfyui_python, checkpointing):
    kinds = ["fp32", "fp16", "fp8", "scaled fp8"]
    found = on_card(in_a_step, kinds, checkpointing, gib=24, python=comfyui_python, cwd=comfyui)
    plain = found["fp32"]
    for kind, share in (("fp16", 0.5), ("fp8", 0.25), ("scaled fp8", 0.25)):
        assert found[kind]["weights"] < (share + 0.05) * plain["weights"], found
        assert found[kind]["beside"] < plain["beside"] + 0.1 * plain["weights"], found


def places(checkpoint: str) -> list[tuple[float, str]]:
    """How much of the weights is on the card, of 53 MiB of the model and 235 of its encoder; the gradient's shapes."""
    import torch
    from devices.pretend_cuda import Card
    from inside import batch, enter_comfyui, gradient_of, load, make_host, pack

    enter_comfyui()
    pack()
    import comfy.model_management as management

    Card.computes = False
    host, found = make_host(*load(checkpoint)), []
    data = {k: v.to("cuda") if torch.is_tensor(v) else v for k, v in batch(host).items()}
    data["vectors"] = {encoder: v.to("cuda") for encoder, v in data["vectors"].items()}
    # ComfyUI keeps 1229 MiB free for itself; with less it has 200 for the weights, or none
    for vram, total in (("NORMAL_VRAM", 8192), ("NO_VRAM", 8192), ("NORMAL_VRAM", 1229 + 200), ("NORMAL_VRAM", 1000)):
        management.unload_all_models()
        management.vram_state, Card.total = management.VRAMState[vram], total * MIB
        try:
            with torch.inference_mode(), torch.inference_mode(False):
                host.encode([("a toy",)], {})  # before a step, which needs more room
                shapes = {name: list(g.shape) for name, g in gradient_of(host, data, memory=800 * MIB).items()}
            patchers = host.model, host.clip.patcher
            share = sum(p.loaded_size() for p in patchers) / sum(p.model_size() for p in patchers)
            found.append((share, str(shapes)))
        except torch.OutOfMemoryError as error:
            found.append((0.0, str(error)))
    return found


def test_what_does_not_fit_whole_trains_in_parts(comfyui, comfyui_python, drawn):
    whole, novram, small, smaller = on_card(places, str(drawn / "sd1.safetensors"), python=comfyui_python, cwd=comfyui)
    assert whole == [1.0, "{'clip_l': [2, 768]}"]
    assert novram[0] < 0.2
    assert 0.1 < small[0] < 0.9
    assert smaller[0] < small[0]
    assert {text for _, text in (novram, small, smaller)} == {whole[1]}


def test_another_checkpoint_makes_room_for_a_step(comfyui, comfyui_python, drawn):
    found = on_card(look, str(drawn / "sd1.safetensors"), 100 * MIB, gib=8, python=comfyui_python, cwd=comfyui)
    assert found["before"] == [0, 0, 1, 1]
    assert set(found["within"]) >= {0}
    assert found["within"].count(0) == 2
    assert found["missing"] <= 0
    assert found["after release"] == []
