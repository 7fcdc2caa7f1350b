"""Model families: what their training images, text encoders and samplers are, as far as no model says it itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..formats.layouts import reads_syntax
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
    refused: str = ""  # why no embedding can be trained for it
    tried: str = "random weights"

    @property
    def syntax(self) -> bool:
        """Whether ComfyUI reads embedding:name in its prompts."""
        return reads_syntax(self.encoders)


def distilled(steps: int) -> Sampling:
    """Guidance is part of the network: cfg 1, which halves the work too."""
    return Sampling(steps, 1.0, "euler", "simple")


# Where the settings are from: "template" is that of ComfyUI's workflow_templates repository for the family, "diffusers"
# the default of its pipeline, or the example in its documentation.
CLIP_PAIR = ("clip_l", "clip_g")
FLUX = ("clip_l", "t5xxl")
FAMILIES = (
    Family(
        "Stable Diffusion 1, also for inpainting", ("SD15",), ("clip_l",), tried="random weights, a small trained model"
    ),
    Family("Stable Diffusion 2", ("SD20",), ("clip_h",)),
    Family(
        "Stable Diffusion XL (Pony, Illustrious, NoobAI ...); v-prediction, inpainting, SSD-1B, Vega, KOALA",
        ("SDXL", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B"),
        CLIP_PAIR,
    ),
    Family("Stable Diffusion XL refiner", ("SDXLRefiner",), ("clip_g",)),
    # diffusers, of the prior
    Family("Stable Cascade (stage C)", ("Stable_Cascade_C",), ("clip_g",), Sampling(20, 4.0, "euler", "simple")),
    Family(
        "Stable Diffusion 3 and 3.5, with and without T5",
        ("SD3",),
        (*CLIP_PAIR, "t5xxl"),
        Sampling(28, 4.5, "euler", "sgm_uniform"),  # 28: diffusers; 4.5: Stability's sd3.5 repository, of Large
    ),
    # template; the guidance is the network's
    Family("Flux.1 dev; Krea and Kontext, which are the same network", ("Flux",), FLUX, distilled(20)),
    Family("Flux.1 Fill", ("FluxInpaint",), FLUX, distilled(20)),
    Family("Flux.1 schnell", ("FluxSchnell",), FLUX, distilled(4)),  # template, diffusers
    # template, of the distilled ones; the base models: 20 steps, cfg 5
    Family("Flux.2 klein 4B and 9B", ("Flux2",), ("qwen3_4b", "qwen3_8b"), distilled(4), ("mistral3_24b",)),
    Family("Chroma", ("Chroma",), ("t5xxl",), Sampling(26, 3.5, "euler", "beta")),  # template
    Family("PixArt Alpha and Sigma", ("PixArtAlpha", "PixArtSigma"), ("t5xxl",), Sampling(20, 4.5)),  # diffusers
    Family("AuraFlow", ("AuraFlow",), ("pile_t5xl",), Sampling(25, 3.5)),  # cfg: diffusers
    # template, of Turbo
    Family("Z-Image and Z-Image Turbo", ("ZImage",), ("qwen3_4b",), Sampling(8, 1.0, "res_multistep", "simple")),
    Family(
        "Lumina 2",
        ("Lumina2",),
        ("gemma2_2b",),
        Sampling(30, 4.0, "res_multistep", "simple"),  # steps and cfg: diffusers
        ("gemma3_4b", "jina_clip_2"),
    ),
    # template
    Family("OmniGen2", ("Omnigen2",), ("qwen25_3b",), Sampling(20, 5.0, "euler", "simple")),
    # template, of Full; Dev and Fast: 28 or 16 steps, cfg 1, lcm
    Family("HiDream-I1", ("HiDream",), (*CLIP_PAIR, "t5xxl", "llama"), Sampling(50, 5.0, "uni_pc", "simple")),
    # template; diffusers: 50 steps, cfg 4
    Family("Qwen-Image", ("QwenImage",), ("qwen25_7b",), Sampling(20, 2.5, "euler", "simple")),
    # diffusers, of the base model; Turbo: 8 steps, cfg 1
    Family("Krea 2", ("Krea2",), ("qwen3vl_4b",), Sampling(28, 4.5, "euler", "simple")),
    Family("Anima", ("Anima",), ("qwen3_06b",), Sampling(30, 4.0, "euler", "simple")),
    # cfg: diffusers
    Family("Hunyuan-DiT", ("HunyuanDiT",), ("chinese_roberta", "mt5xl"), Sampling(25, 5.0)),
    Family(
        "Playground 2.5, Cosmos-Predict2", (), (), refused="a noise schedule that is neither eps, v nor flow prediction"
    ),
    Family(
        "LongCat-Image", ("LongCatImage",), ("qwen25_7b",), refused="ComfyUI's tokenizer for it reads no embeddings"
    ),
    Family("HiDream-O1", ("HiDreamO1",), (), refused="it has no text encoder"),
)
# ComfyUI's name -> ModelSpec's identifier, or that of kohya's sd-scripts or SwarmUI. Without one, a file names none.
ARCHITECTURES = {
    "SD15": "stable-diffusion-v1",
    "SD20": "stable-diffusion-v2",
    "SDXL": "stable-diffusion-xl-v1-base",
    "SDXLRefiner": "stable-diffusion-xl-v1-refiner",
    "SSD1B": "segmind-stable-diffusion-1b",
    "Stable_Cascade_C": "stable-cascade-v1",
    "SD3": "stable-diffusion-3",
    "Flux": "flux-1-dev",
    "FluxInpaint": "flux-1-dev",
    "FluxSchnell": "flux-1-schnell",
    "Flux2": "flux-2",
    "Chroma": "chroma",
    "AuraFlow": "auraflow-v1",
    "ZImage": "z-image",
    "Lumina2": "lumina-2",
    "Omnigen2": "omnigen-2",
    "HiDream": "hidream-i1",
    "QwenImage": "qwen-image",
}
BY_CLASS = {name: family for family in FAMILIES for name in family.classes}


def resolution_of(context_width: int | None, prediction: Prediction) -> int:
    """Side in pixels of a family's training images, from the width of its text conditioning.

    512 for Stable Diffusion 1 and 2's base model, 768 for 2 with v-prediction, 1024 for XL and later families.
    """
    if context_width == 1024:
        return 512 if prediction == "eps" else 768
    return 512 if context_width == 768 else 1024
