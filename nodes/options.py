"""Training Options: the settings that most trainings leave alone."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..ti_train.prompts import BUILT_IN
from .sockets import CATEGORY, OptionsSocket

PRESETS_OWN = "the preset's"
KEEP, SQUARE = "keep proportions", "square"


class TrainingOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_TrainingOptions",
            display_name="Training Options",
            category=CATEGORY,
            description="More settings for Train Embedding. The defaults are those that it has without this node.",
            inputs=[
                io.Combo.Input(
                    "templates",
                    options=[PRESETS_OWN, *BUILT_IN],
                    default=PRESETS_OWN,
                    tooltip="The sentences around the word while it is learnt. object: 'a photo of a ...'; style: 'a "
                    "painting in the style of ...'; captions and style-captions add each picture's caption. "
                    "The preset's: object or style, with captions where they are connected.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Pictures a pass. 0: the preset's (Balanced and Style 4, Paper 1). Fewer need less memory.",
                ),
                io.Int.Input(
                    "accumulation",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Passes a step: a batch of 1 with 4 passes learns as a batch of 4, in less memory.",
                ),
                io.Int.Input(
                    "resolution",
                    default=0,
                    min=0,
                    max=2048,
                    step=8,
                    tooltip="Side in pixels of a square picture; others keep their proportions, with as many pixels. "
                    "0: the model's own (512 for Stable Diffusion 1), or less where the pictures are smaller.",
                ),
                io.Boolean.Input(
                    "flip",
                    default=False,
                    tooltip="Learn mirrored copies too. Wrong for text and for what has a left and a right.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=[PRESETS_OWN, "linear", "constant"],
                    default=PRESETS_OWN,
                    tooltip="How the learning rate goes on. linear: down to 0, which averages the noise away.",
                ),
                io.String.Input(
                    "learning_rates",
                    default="",
                    tooltip="Rates with their last steps, '0.005:100, 0.001:400, 0.0001', instead of learning_rate "
                    "and schedule. Empty: those.",
                ),
                io.Int.Input(
                    "warmup",
                    default=0,
                    min=0,
                    max=10000,
                    tooltip="Steps in which the rate rises. 0: none; a word's few vectors need none.",
                ),
                io.Float.Input(
                    "gradient_clip",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Longest gradient of a step, as an L2 norm; 0: no limit. 1 stops single bad steps.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    tooltip="Compute activations twice instead of keeping them: less memory, a third slower. Switched "
                    "on by itself when the memory is full.",
                ),
                io.Int.Input(
                    "checkpoint_every",
                    default=100,
                    min=1,
                    max=100000,
                    tooltip="Steps between two saves, against power cuts; Cancel saves in any case.",
                ),
                # optional: workflows of before these were there do not have them
                io.Combo.Input(
                    "crop",
                    options=[PRESETS_OWN, KEEP, SQUARE],
                    default=PRESETS_OWN,
                    optional=True,
                    tooltip="keep proportions: pictures of any shape are trained nearly whole. square: their middle is "
                    "cut out, as in the paper. The preset's: keep, and square for Paper.",
                ),
                io.Boolean.Input(
                    "shuffle_tags",
                    default=False,
                    optional=True,
                    tooltip="The comma-separated tags of a caption in a new order each time.",
                ),
                io.Float.Input(
                    "drop_tags",
                    default=0.0,
                    min=0.0,
                    max=0.95,
                    step=0.05,
                    optional=True,
                    tooltip="Probability, 0 to 0.95, with which each tag of a caption is left out. 0: none is.",
                ),
                io.Int.Input(
                    "keep_tags",
                    default=0,
                    min=0,
                    max=100,
                    optional=True,
                    tooltip="Tags at a caption's beginning that are neither shuffled nor left out.",
                ),
                io.Boolean.Input(
                    "deterministic",
                    default=False,
                    optional=True,
                    tooltip="The same digits every time on a GPU too, where PyTorch has kernels for it: slower. "
                    "Off: two runs differ a little there.",
                ),
            ],
            outputs=[OptionsSocket.Output("options", display_name="options", tooltip="For Train Embedding.")],
        )

    @classmethod
    def execute(
        cls,
        templates: str,
        batch_size: int,
        schedule: str,
        learning_rates: str,
        crop: str = PRESETS_OWN,
        **values: Any,
    ) -> io.NodeOutput:
        chosen = {
            "templates": templates if templates != PRESETS_OWN else None,
            "schedule": schedule if schedule != PRESETS_OWN else None,
            "batch_size": batch_size or None,
            "learning_rate": learning_rates.strip() or None,
            "square": crop == SQUARE if crop != PRESETS_OWN else None,
        }
        return io.NodeOutput({key: value for key, value in chosen.items() if value is not None} | values)
