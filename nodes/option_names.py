"""Which input of which node is which option. Saved workflows store inputs by position: append, never reorder."""

from typing import Literal

TRAIN_EMBEDDING = {
    "name": "name",
    "initial_text": "init",
    "num_vectors": "num_vectors",
    "steps": "steps",
    "learning_rate": "learning_rate",
    "seed": "seed",
    "preview_every": "preview_every",
    "preview_prompts": "preview_prompts",
    # optional: older workflows do not have it
    "resolution": "resolution",
}
TRAINING_OPTIONS = {
    "templates": "templates",
    "batch_size": "batch_size",
    "accumulation": "accumulation",
    "resolution": "resolution",
    "flip": "flip",
    "schedule": "schedule",
    "learning_rates": "learning_rate",  # a number has its own input, beside the preset
    "warmup": "warmup",
    "gradient_clip": "gradient_clip",
    "gradient_checkpointing": "gradient_checkpointing",
    "checkpoint_every": "checkpoint_every",
    # optional: older workflows do not have them
    "crop": "square",
    "shuffle_tags": "shuffle_tags",
    "drop_tags": "drop_tags",
    "keep_tags": "keep_tags",
    "deterministic": "deterministic",
    "preview_negative": "preview_negative",
    "preview_seed": "preview_seed",
    "progressive_every": "progressive_every",
    "per_image_words": "per_image_words",
    "coarse_weight": "coarse_weight",
    "evaluate_every": "evaluate_every",
    "checkpoint_seconds": "checkpoint_seconds",
    "copy_every": "copy_every",
    "timesteps": "timesteps",
    "guidance": "guidance",
    "preview_steps": "preview_steps",
    "preview_cfg": "preview_cfg",
    "preview_sampler": "preview_sampler",
    "preview_scheduler": "preview_scheduler",
    "weighting": "weighting",
    "optimizer": "optimizer",
    "pull": "pull",
    "average": "average",
    "exclusion": "exclusion",
    "context": "context",
    "initial_vectors": "initial_vectors",
    "early_stop": "early_stop",
}
NUMBERS: dict[str, Literal["float"]] = {"learning_rate": "float"}  # inputs of another kind than their option
NOTES = {  # added to the tooltips of these inputs
    "preview_prompts": " One prompt per line.",
    "name": " In prompts write embedding:name, or use Load Embedding.",
    "initial_text": " To train an embedding further, enter its file, such as my-cat.safetensors. Files: in "
    "models/embeddings.",
    "templates": " If images have captions, the default is captions (Style: style-captions). Files: in "
    "models/textual_inversion_templates.",
    "learning_rate": " Enter such a text in Training Options.",
    "learning_rates": " Overrides learning_rate of Train Embedding.",
}
FIRST_OPTIONAL = "crop"
OPTIONAL_IN_TRAIN_EMBEDDING = ("resolution",)  # after all sockets
NOT_OFFERED = {
    "mask": "Masks come with the images.",
    "device": "ComfyUI chooses it (--cpu, --cuda-device).",
    "dtype": "The model is already loaded; ComfyUI chooses its precision (--force-fp32, --bf16-unet ...).",
}
