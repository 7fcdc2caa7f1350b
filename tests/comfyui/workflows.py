"""Workflows in the API's format, as the page posts them."""

from __future__ import annotations

from typing import Any

Workflow = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def training(checkpoint: str = "sd1.safetensors", folder: str = "toys", **settings: Any) -> Workflow:
    """Load Checkpoint and Load Training Images into Train Embedding (node "train")."""
    given: dict[str, Any] = {
        "name": "my-toy", "initial_text": "toy", "num_vectors": 1, "preset": "Balanced", "steps": 3,
        "learning_rate": 0.0, "seed": 0, "preview_every": 0, "preview_prompts": "a photo of *",
        "if_exists": "new number", "save": True, "model": ["model", 0], "clip": ["model", 1], "vae": ["model", 2],
        "images": ["pictures", 0], "options": ["options", 0],
    }  # fmt: skip
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "pictures": node("TITrain_LoadTrainingImages", folder=folder, subfolders=False),
        "options": options(),
        "train": node("TITrain_TrainEmbedding", **given | settings),
    }


def options(**settings: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "templates": "the preset's", "batch_size": 1, "accumulation": 1, "resolution": 0, "flip": False,
        "schedule": "the preset's", "learning_rates": "", "warmup": 0, "gradient_clip": 1.0,
        "gradient_checkpointing": False, "checkpoint_every": 1,
    }  # fmt: skip
    return node("TITrain_TrainingOptions", **given | settings)


def sampling(
    text: str,
    clip: list[Any],
    prefix: str,
    model: list[Any] | None = None,
    vae: list[Any] | None = None,
    **ksampler: Any,
) -> Workflow:
    """CLIP Text Encode, KSampler, VAE Decode and Save Image (node "save")."""
    given: dict[str, Any] = {"seed": 1, "steps": 4, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal"}
    count = ksampler.pop("count", 1)
    links = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["empty", 0], "denoise": 1.0}
    return {
        "positive": node("CLIPTextEncode", clip=clip, text=text),
        "negative": node("CLIPTextEncode", clip=clip, text=""),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=count),
        "sample": node("KSampler", model=model or ["model", 0], **links, **given | ksampler),
        "decode": node("VAEDecode", samples=["sample", 0], vae=vae or ["model", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix=prefix),
    }
