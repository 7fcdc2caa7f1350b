"""Model families: what their training images, text encoders and samplers are, as far as no model says it itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..formats.layouts import reads_syntax
from ..host import Prediction, Sampling

USUAL = Sampling()
SCHEDULE = "a noise schedule that is neither eps, v nor flow prediction"
VERSIONS = OLD, NEW = "0.3.64", "0.33.0"  # of ComfyUI, in which the families were tried


@dataclass(frozen=True)
class Family:
    """A family as ComfyUI loads it.

    sampling: what is usual for it, not measured here. ComfyUI cannot tell the distilled model of a family from its base
    (Z-Image, klein, Krea 2); the settings are then those of the distilled one.
    """

    title: str
    classes: tuple[str, ...]  # ComfyUI's names, in its supported_models
    encoders: tuple[str, ...]
    sampling: Sampling = USUAL
    others: tuple[str, ...] = ()  # of relatives that ComfyUI has under the same name, and that were not tried
    guidance: float = 0.0  # of the network, if it is usually another than ComfyUI's default
    optional: tuple[str, ...] = ()  # of the encoders: a CLIP without them conditions the model too
    clip: str = ""  # ComfyUI's class of its CLIP, where that makes one conditioning of whichever encoders it has
    resolution: int = 0  # side in pixels of its training images, where `resolution_of` does not have it
    hosts: tuple[str, ...] = VERSIONS  # those of them that load it
    refused: str = ""  # why no embedding can be trained for it
    tried: str = "random weights"

    @property
    def syntax(self) -> bool:
        """Whether ComfyUI reads embedding:name in its prompts."""
        return reads_syntax(self.encoders)


def distilled(steps: int, sampler: str = "euler") -> Sampling:
    """Guidance is part of the network: cfg 1, which halves the work too."""
    return Sampling(steps, 1.0, sampler, "simple")


# The settings are those of ComfyUI's own templates (the package comfyui-workflow-templates-json 0.1.50), each named by
# its file, or the defaults of a pipeline of diffusers 0.42, with the sampler and scheduler of ComfyUI's KSampler.
CLIP_PAIR = ("clip_l", "clip_g")
FLUX = ("clip_l", "t5xxl")
KLEIN = ("qwen3_4b", "qwen3_8b")
HIDREAM = (*CLIP_PAIR, "t5xxl", "llama")
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
    # StableCascadePriorPipeline
    Family("Stable Cascade (stage C)", ("Stable_Cascade_C",), ("clip_g",), Sampling(20, 4.0)),
    # sd3.5_simple_example
    Family(
        "Stable Diffusion 3 and 3.5, with and without T5",
        ("SD3",),
        (*CLIP_PAIR, "t5xxl"),
        Sampling(20, 4.0, "euler", "sgm_uniform"),
        optional=(*CLIP_PAIR, "t5xxl"),
        clip="SD3ClipModel",
    ),
    # flux_dev_full_text_to_image, flux1_krea_dev; flux_kontext_dev_basic, which has a guidance of 2.5
    Family(
        "Flux.1 dev; Krea and Kontext, which are the same network", ("Flux",), FLUX, distilled(20), optional=("clip_l",)
    ),
    # flux_fill_inpaint_example; FluxFillPipeline has this guidance too
    Family("Flux.1 Fill", ("FluxInpaint",), FLUX, Sampling(20, 1.0), guidance=30.0, optional=("clip_l",)),
    # flux_schnell_full_text_to_image
    Family("Flux.1 schnell", ("FluxSchnell",), FLUX, distilled(4), optional=("clip_l",)),
    # image_ovis_text_to_image; ComfyUI has it as Flux.1 schnell
    Family("Ovis-Image", ("Ovis",), ("qwen3_2b",), Sampling(20, 5.0, "euler", "simple"), hosts=(NEW,)),
    # image_flux2_klein_text_to_image; in it the base model has 20 steps and cfg 5
    Family(
        "Flux.2 klein 4B and 9B",
        ("Flux2",),
        KLEIN,
        distilled(4),
        ("mistral3_24b",),
        optional=KLEIN,  # one of them: `fitting.py` compares its width with the network's
        hosts=(NEW,),
    ),
    # image_chroma_text_to_image
    Family("Chroma", ("Chroma",), ("t5xxl",), Sampling(26, 3.5, "euler", "beta")),
    # PixArtAlphaPipeline, PixArtSigmaPipeline
    Family("PixArt Alpha and Sigma", ("PixArtAlpha", "PixArtSigma"), ("t5xxl",), Sampling(20, 4.5)),
    # AuraFlowPipeline, which has 50 steps
    Family("AuraFlow", ("AuraFlow",), ("pile_t5xl",), Sampling(25, 3.5)),
    # image_z_image_turbo; image_z_image, of the base model: 25 steps, cfg 4
    Family("Z-Image and Z-Image Turbo", ("ZImage",), ("qwen3_4b",), distilled(8, "res_multistep"), hosts=(NEW,)),
    # image_netayume_lumina_t2i; Lumina2Pipeline has these steps and cfg too
    Family(
        "Lumina 2",
        ("Lumina2",),
        ("gemma2_2b",),
        Sampling(30, 4.0, "res_multistep", "simple"),
        ("gemma3_4b", "jina_clip_2"),
    ),
    # image_omnigen2_t2i, the cfg of its text
    Family("OmniGen2", ("Omnigen2",), ("qwen25_3b",), Sampling(20, 5.0, "euler", "simple")),
    # hidream_i1_full; hidream_i1_dev and hidream_i1_fast: 28 and 16 steps, cfg 1, lcm, normal
    Family(
        "HiDream-I1",
        ("HiDream",),
        HIDREAM,
        Sampling(50, 5.0, "uni_pc", "simple"),
        optional=HIDREAM,
        clip="HiDreamTEModel",
    ),
    # image_qwen_Image_2512 and QwenImagePipeline, which have 50 steps
    Family("Qwen-Image", ("QwenImage",), ("qwen25_7b",), Sampling(25, 4.0, "euler", "simple"), resolution=1328),
    # image_krea2_turbo_t2i; the base model: 28 steps, cfg 5.5 (Krea2Pipeline, whose guidance_scale is less by 1)
    Family("Krea 2", ("Krea2",), ("qwen3vl_4b",), distilled(8), hosts=(NEW,)),
    # image_anima_base_v1
    Family("Anima", ("Anima",), ("qwen3_06b",), Sampling(30, 4.0, "euler", "simple"), hosts=(NEW,)),
    # HunyuanDiTPipeline, which has 50 steps
    Family("Hunyuan-DiT", ("HunyuanDiT",), ("chinese_roberta", "mt5xl"), Sampling(25, 5.0)),
    Family("Playground 2.5", (), (), refused=SCHEDULE),  # ComfyUI has it as SDXL
    Family("Cosmos-Predict2", ("CosmosT2IPredict2",), (), refused=SCHEDULE),
    Family(
        "LongCat-Image",
        ("LongCatImage",),
        ("qwen25_7b",),
        hosts=(NEW,),
        refused="ComfyUI's tokenizer for it reads no embeddings",
    ),
    Family("HiDream-O1", ("HiDreamO1",), (), hosts=(NEW,), refused="it has no text encoder"),
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


def class_name(name: str, unet_config: Mapping[str, Any]) -> str:
    """The name in this table of ComfyUI's class of a model: that of Flux.1 schnell is Ovis-Image's too, whose
    layers differ."""
    return "Ovis" if unet_config.get("yak_mlp") else name


def resolution_of(context_width: int | None, prediction: Prediction) -> int:
    """Side in pixels of a family's training images, from the width of its text conditioning.

    512 for Stable Diffusion 1 and 2's base model, 768 for 2 with v-prediction, 1024 for XL and later families.
    """
    if context_width == 1024:
        return 512 if prediction == "eps" else 768
    return 512 if context_width == 768 else 1024
