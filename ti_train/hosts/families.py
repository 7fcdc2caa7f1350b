"""Model families: what their training images, text encoders and samplers are, as far as no model says it itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..host import Prediction, Sampling

USUAL = Sampling()


@dataclass(frozen=True)
class Family:
    """A family as ComfyUI loads it.

    sampling: what is usual for it, not measured here. ComfyUI cannot tell the distilled model of a family from its base
    (Z-Image, klein); the settings are then those of the distilled one.
    """

    title: str
    classes: tuple[str, ...]  # ComfyUI's names, in its supported_models
    encoders: tuple[str, ...]  # any part of them may be loaded
    sampling: Sampling = USUAL
    others: tuple[str, ...] = ()  # of relatives that ComfyUI has under the same name, and that were not tried
    syntax: bool = True  # whether ComfyUI reads embedding:name in its prompts
    refused: str = ""  # why no embedding can be trained for it
    tried: str = "random weights"


def distilled(steps: int) -> Sampling:
    """Guidance is part of the network: cfg 1, which halves the work too."""
    return Sampling(steps, 1.0, "euler", "simple")


CLIP_PAIR = ("clip_l", "clip_g")
FAMILIES = (
    Family("Stable Diffusion 1", ("SD15",), ("clip_l",), tried="random weights, a small trained model"),
    Family("Stable Diffusion 2", ("SD20",), ("clip_h",)),
    Family("Stable Diffusion XL (Pony, Illustrious, NoobAI ...); v-prediction, inpainting", ("SDXL",), CLIP_PAIR),
    Family("Stable Diffusion XL refiner", ("SDXLRefiner",), ("clip_g",)),
    Family("Stable Cascade (stage C)", ("Stable_Cascade_C",), ("clip_g",), Sampling(20, 4.0, "euler", "simple")),
    Family(
        "Stable Diffusion 3 and 3.5, with and without T5",
        ("SD3",),
        (*CLIP_PAIR, "t5xxl"),
        Sampling(28, 4.5, "euler", "sgm_uniform"),
    ),
    Family("Flux.1 dev, Krea", ("Flux",), ("clip_l", "t5xxl"), distilled(20)),
    Family("Flux.1 schnell", ("FluxSchnell",), ("clip_l", "t5xxl"), distilled(4)),
    Family("Flux.2 klein 4B", ("Flux2",), ("qwen3_4b",), distilled(4), ("qwen3_8b", "mistral3_24b")),
    Family("Chroma", ("Chroma",), ("t5xxl",), Sampling(26, 4.0, "euler", "beta")),
    Family("PixArt Sigma", ("PixArtSigma",), ("t5xxl",), Sampling(20, 4.5)),
    Family("AuraFlow", ("AuraFlow",), ("pile_t5xl",), Sampling(25, 3.5), syntax=False),
    Family("Z-Image and Z-Image Turbo", ("ZImage",), ("qwen3_4b",), Sampling(9, 1.0, "res_multistep", "simple")),
    Family(
        "Lumina 2",
        ("Lumina2",),
        ("gemma2_2b",),
        Sampling(25, 4.0, "res_multistep", "simple"),
        ("gemma3_4b", "jina_clip_2"),
        False,
    ),
    Family("OmniGen2", ("Omnigen2",), ("qwen25_3b",), Sampling(20, 5.0, "euler", "simple"), syntax=False),
    Family("HiDream-I1", ("HiDream",), (*CLIP_PAIR, "t5xxl", "llama"), Sampling(28, 5.0, "euler", "simple")),
    Family("Qwen-Image", ("QwenImage",), ("qwen25_7b",), Sampling(20, 2.5, "euler", "simple"), syntax=False),
    Family("Krea 2", ("Krea2",), ("qwen3vl_4b",), Sampling(25, 4.0, "euler", "simple")),
    Family("Anima", ("Anima",), ("qwen3_06b",), Sampling(30, 4.0, "euler", "simple")),
    Family("Hunyuan-DiT", ("HunyuanDiT",), ("chinese_roberta", "mt5xl"), Sampling(25, 6.0), syntax=False),
    Family(
        "Playground 2.5, Cosmos-Predict2", (), (), refused="a noise schedule that is neither eps, v nor flow prediction"
    ),
    Family(
        "LongCat-Image", ("LongCatImage",), ("qwen25_7b",), refused="ComfyUI's tokenizer for it reads no embeddings"
    ),
    Family("HiDream-O1", ("HiDreamO1",), (), refused="it has no text encoder"),
)
BY_CLASS = {name: family for family in FAMILIES for name in family.classes}


def resolution_of(context_width: int | None, prediction: Prediction) -> int:
    """Side in pixels of a family's training images, from the width of its text conditioning.

    512 for Stable Diffusion 1 and 2's base model, 768 for 2 with v-prediction, 1024 for XL and later families.
    """
    if context_width == 1024:
        return 512 if prediction == "eps" else 768
    return 512 if context_width == 768 else 1024
