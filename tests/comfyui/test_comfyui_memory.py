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
    """Bytes that a prompt's encoding holds while its gradient is wanted, and what the host says."""
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
        return {"held": held, "said": host.kept_per_prompt, "prompts": len(cond)}


def test_the_host_knows_what_the_casts_of_xl_hold(comfyui, comfyui_python, drawn):
    found = on_card(kept, str(drawn / "sdxl.safetensors"), gib=24, python=comfyui_python, cwd=comfyui)
    assert 0.8 * found["held"] <= found["said"] <= found["held"]


def refusals(checkpoint: str) -> list[str]:
    """With --novram, and on cards that are too small for the model's 53 MiB with its encoder's 235, and for those."""
    import torch
    from devices.pretend_cuda import Card
    from inside import enter_comfyui, load, make_host, pack

    enter_comfyui()
    pack()
    import comfy.model_management as management
    from pack.ti_train.errors import UserError

    Card.computes = False
    host, found = make_host(*load(checkpoint)), []
    for vram, total in (("NO_VRAM", 8192), ("NORMAL_VRAM", 200), ("NORMAL_VRAM", 40)):
        management.vram_state, Card.total = management.VRAMState[vram], total * MIB
        try:
            with torch.inference_mode(), torch.inference_mode(False), host.training():
                found.append("")
        except UserError as error:
            found.append(str(error))
    return found


def test_what_cannot_be_loaded_whole_is_refused_with_its_size_and_what_would_fit(comfyui, comfyui_python, drawn):
    novram, small, tiny = on_card(refusals, str(drawn / "sd1.safetensors"), python=comfyui_python, cwd=comfyui)
    assert "in parts" in novram
    assert "MiB of weights" in novram
    assert "without --novram" in novram
    assert "the GPU has 200 MiB" in small
    assert "Start ComfyUI with --lowvram" in small
    assert "the GPU has 40 MiB" in tiny
    assert "a smaller one" in tiny


def test_another_checkpoint_makes_room_for_a_step(comfyui, comfyui_python, drawn):
    found = on_card(look, str(drawn / "sd1.safetensors"), 100 * MIB, gib=8, python=comfyui_python, cwd=comfyui)
    assert found["before"] == [0, 0, 1, 1]
    assert set(found["within"]) >= {0}
    assert found["within"].count(0) == 2
    assert found["missing"] <= 0
    assert found["after release"] == []
