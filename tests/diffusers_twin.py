"""The checkpoints drawn in comfyui/ and webui/, in diffusers: the very weights, by diffusers' own key conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

CONFIGS = Path(__file__).resolve().parents[1] / "ti_train" / "hosts" / "diffusers" / "configs"
NETWORK = "model.diffusion_model."
VAE = "first_stage_model."
SHARED = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2, "use_linear_projection": True}
UNETS = {
    "sd1": {
        "block_out_channels": (320,), "layers_per_block": 1, "cross_attention_dim": 768, "attention_head_dim": 8,
        "down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",),
        "use_linear_projection": False,
    },
    "sd1-whole": {"cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False},
    "sd2-v": {
        "block_out_channels": (320,) * 4, "cross_attention_dim": 1024, "attention_head_dim": 5,
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    },
    "sdxl": {
        "block_out_channels": (320,) * 3, "cross_attention_dim": 2048, "attention_head_dim": 5,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
SHIPPED = {"sd1": "sd15", "sd1-whole": "sd15", "sd2-v": "sd21-v", "sdxl": "sdxl"}
ENCODERS = {
    "sd1": {"text_encoder": "cond_stage_model.transformer."},
    "sd1-whole": {"text_encoder": "cond_stage_model.transformer."},
    "sd2-v": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}


def twin(file: Path, family: str) -> Any:
    """A pipeline in fp32; its VAE is another one where the file has TAESD."""
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    from ti_train.hosts.diffusers.loading import clip_tokenizer

    weights = {key: tensor.float() for key, tensor in load_file(file).items()}
    shipped = CONFIGS / SHIPPED[family]
    unet = diffusers.UNet2DConditionModel(sample_size=8, **SHARED | UNETS[family])
    network = {key: tensor for key, tensor in weights.items() if key.startswith(NETWORK)}
    unet.load_state_dict(convert_ldm_unet_checkpoint(network, unet.config))
    scheduler = json.loads((shipped / "scheduler" / "scheduler_config.json").read_text())
    parts = {name: text_encoder(shipped / name, weights, prefix) for name, prefix in ENCODERS[family].items()}
    parts |= {
        name.replace("text_encoder", "tokenizer"): clip_tokenizer(shipped / name.replace("text_encoder", "tokenizer"))
        for name in ENCODERS[family]
    }
    vae = diffusers.AutoencoderTiny()
    if VAE + "quant_conv.weight" in weights:
        vae = diffusers.AutoencoderKL.from_config(shipped / "vae")
        vae.load_state_dict(convert_ldm_vae_checkpoint(weights, vae.config))
    parts |= {"unet": unet, "vae": vae}
    parts["scheduler"] = diffusers.DDIMScheduler.from_config(scheduler)
    if family == "sdxl":
        return diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(**parts, **without)


def text_encoder(folder: Path, weights: dict[str, Any], prefix: str) -> Any:
    import transformers
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    config = transformers.CLIPTextConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0])(config)
    own = {key: tensor for key, tensor in weights.items() if key.startswith(prefix)}
    if prefix.endswith("model."):
        converted = convert_open_clip_checkpoint(model, own, prefix)
    else:
        converted = convert_ldm_clip_checkpoint(own, prefix)
    names = set(model.state_dict())
    # transformers 5 has no `text_model.` in the names of a text model without projection
    fitting = {key if key in names else key.removeprefix("text_model."): tensor for key, tensor in converted.items()}
    fitting = {key: tensor for key, tensor in fitting.items() if key in names}
    model.load_state_dict(fitting)
    return model
