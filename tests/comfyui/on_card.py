"""Train Embedding on a pretended card, within ComfyUI's process and without its server: what its memory modes do.

Each case begins with models that are loaded from their file, and ends with a picture that is to be the one that they
sampled before anything was trained.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from devices.pretend_cuda import Card
from inside import enter_comfyui, load, pack, with_lora

GIB = 2**30
PICTURE = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Case:
    """One training; `vram` is a name of ComfyUI's VRAMState, and `gib` is the card's size."""

    vram: str = "NORMAL_VRAM"
    gib: float = 24
    lora: bool = False
    encoded_before: bool = False  # CLIP Text Encode has run on the same CLIP
    sampled_before: bool = False  # and KSampler on the same model
    greedy_vae: bool = False  # asks for more memory than there is, so that all else is unloaded
    cancelled: bool = False  # after step 1, and continued
    thrown_out: bool = False  # all models are unloaded after each step and each preview

    def same_numbers(self, other: Case) -> bool:
        """With --lowvram the text encoder computes on the CPU, which rounds differently."""
        return (self.vram == "LOW_VRAM", self.lora) == (other.vram == "LOW_VRAM", other.lora)


SMALL = 1.33  # GiB: 1.19 are what ComfyUI keeps free for itself, the text encoder has 0.10 and the U-Net 0.05
CASES = {
    "normal": Case(),
    "high": Case("HIGH_VRAM"),
    "low": Case("LOW_VRAM"),
    "after a text encode": Case(encoded_before=True),
    "low, after a text encode": Case("LOW_VRAM", encoded_before=True),
    "high, after a picture": Case("HIGH_VRAM", sampled_before=True),
    "after a picture": Case(sampled_before=True),
    "low, after a picture": Case("LOW_VRAM", sampled_before=True),
    "lora": Case(lora=True),
    "low, lora": Case("LOW_VRAM", lora=True, sampled_before=True),
    "small card": Case(gib=SMALL),
    "small card, lora, after a picture": Case(gib=SMALL, lora=True, sampled_before=True),
    "low, small card, after a picture": Case("LOW_VRAM", gib=SMALL, sampled_before=True),
    "cancelled and continued": Case(cancelled=True),
    "small card, cancelled and continued": Case(gib=SMALL, cancelled=True),
    "thrown out": Case(thrown_out=True),
    "low, lora, thrown out": Case("LOW_VRAM", lora=True, thrown_out=True),
    "greedy vae": Case(greedy_vae=True),
    "low, lora, greedy vae": Case("LOW_VRAM", lora=True, greedy_vae=True),
}


def try_all(checkpoint: str, lora: str, folder: str, only: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """What `tried` answers by case, or an "error"."""
    enter_comfyui()
    pack()
    sample_in_one_step()
    import folder_paths

    folder_paths.set_temp_directory(folder)
    pictures: dict[tuple[str, bool], torch.Tensor] = {}
    found = {}
    for number, (name, case) in enumerate(CASES.items()):
        if only and name not in only:
            continue
        try:
            with torch.inference_mode():  # as ComfyUI runs its nodes
                found[name] = tried(case, f"word-{number}", checkpoint, lora, pictures)
        except Exception:
            found[name] = {"error": traceback.format_exc()[-3000:]}
    return found


def tried(case: Case, word: str, checkpoint: str, lora: str, pictures: dict[Any, torch.Tensor]) -> dict[str, Any]:
    """Is "picture" that of before, which weights are "changed", the "vectors" and "dtype"; and is the model
    "displaced", in whole or in parts, by the text encoder and the VAE that were used last?"""
    key = (case.vram, case.lora)
    with_a_card_of(case.vram, 24)
    if key not in pictures:
        pictures[key] = sampled(*fresh(case, checkpoint, lora))
    with_a_card_of(case.vram, case.gib)
    model, clip, vae = fresh(case, checkpoint, lora)
    before = values(model, clip)
    if case.encoded_before:
        encoded(clip)
    if case.sampled_before:
        sampled(model, clip, vae)
    if case.greedy_vae:
        vae.memory_used_encode = vae.memory_used_decode = lambda *_: 10**15
    with thrown_out_models() if case.thrown_out else contextlib.nullcontext():
        if case.cancelled:
            cancel(model, clip, vae, word)
        embedding = trained(model, clip, vae, word, if_exists="continue").args[0]
    picture = sampled(model, clip, vae)
    encoded(clip)
    import comfy.model_management as management

    displaced = model.loaded_size() < model.model_size()
    management.unload_all_models()
    return {
        "picture": torch.equal(picture, pictures[key]),
        "displaced": displaced,
        "vectors": embedding.vectors["clip_l"].tolist(),
        "dtype": str(model.model.get_dtype()),
        "changed": [n for n, v in values(model, clip).items() if not same_bits(v, before[n])],
    }


def sample_in_one_step() -> None:
    """Previews too: what is tried is where the weights are."""
    import comfy.sample

    sample = comfy.sample.sample
    comfy.sample.sample = lambda model, noise, steps, *more, **options: sample(model, noise, 1, *more, **options)


def with_a_card_of(vram: str, gib: float) -> None:
    import comfy.model_management as management

    management.unload_all_models()
    management.vram_state = management.VRAMState[vram]
    Card.total = int(gib * GIB)


def fresh(case: Case, checkpoint: str, lora: str) -> tuple[Any, Any, Any]:
    """The models as they are loaded from their file, of which two layers of the text encoder are enough to compute."""
    model, clip, vae = load(checkpoint)
    del clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers[2:]
    if case.lora:
        model, clip = with_lora(model, clip, lora)
    return model, clip, vae


def values(model: Any, clip: Any) -> dict[str, torch.Tensor]:
    modules = {"model": model.model, "clip": clip.cond_stage_model}
    return {f"{m}.{n}": t.cpu().clone() for m, module in modules.items() for n, t in module.state_dict().items()}


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Of numbers and of what is none: ComfyUI 0.3.64 leaves the text projection of SD1's CLIP as memory was."""
    return one.dtype == other.dtype and torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


def encoded(clip: Any, text: str = "a photo of a toy") -> Any:
    import nodes

    return nodes.CLIPTextEncode().encode(clip, text)[0]


def sampled(model: Any, clip: Any, vae: Any) -> torch.Tensor:
    """CLIP Text Encode, KSampler and VAE Decode."""
    import nodes

    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    conditioning = encoded(clip), encoded(clip, "")
    (latent,) = nodes.KSampler().sample(model, 1, 1, 4.0, "euler", "normal", *conditioning, latent)
    picture: torch.Tensor = nodes.VAEDecode().decode(vae, latent)[0]
    return picture.cpu().clone()


def trained(model: Any, clip: Any, vae: Any, name: str, **settings: Any) -> Any:
    """The node's own execute: two steps, a preview at each."""
    from comfy_execution.graph import DynamicPrompt
    from pack.nodes.train import TrainEmbedding

    class Node(TrainEmbedding):
        hidden = SimpleNamespace(
            unique_id="1", prompt=None, extra_pnginfo=None, dynprompt=DynamicPrompt({"1": {"inputs": {}}})
        )

    given = {
        "model": model, "clip": clip, "vae": vae, "name": name, "initial_text": "toy", "num_vectors": 1,
        "preset": "Balanced", "steps": 2, "learning_rate": 0.0, "seed": 0, "preview_every": 1,
        "preview_prompts": "a photo of *", "if_exists": "new number", "save": False,
        "options": {"batch_size": 2, "accumulation": 1, "checkpoint_every": 1, "evaluate_every": 1},
    }  # fmt: skip
    return Node.execute([PICTURE], **{key: [value] for key, value in (given | settings).items()})


def cancel(model: Any, clip: Any, vae: Any, name: str) -> None:
    """A training that is interrupted after its first step."""
    import comfy.model_management as management

    with told("step", lambda step: management.interrupt_current_processing(step.step == 1)):
        try:
            trained(model, clip, vae, name)
        except management.InterruptProcessingException:
            return
    raise AssertionError("the training went on")


@contextlib.contextmanager
def thrown_out_models() -> Iterator[None]:
    import comfy.model_management as management

    throw_out = lambda _: management.unload_all_models()  # noqa: E731
    with told("step", throw_out), told("preview", throw_out):
        yield


@contextlib.contextmanager
def told(event: str, action: Callable[[Any], Any]) -> Iterator[None]:
    """Calls `action` with each of the training's events of a kind."""
    from pack.nodes.page.live import LiveRun

    method = getattr(LiveRun, event)

    def telling(self: Any, first: Any, *more: Any) -> None:
        method(self, first, *more)
        action(first)

    setattr(LiveRun, event, telling)
    try:
        yield
    finally:
        setattr(LiveRun, event, method)
