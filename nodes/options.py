"""Training Options: settings that most training runs leave at their defaults."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from comfy_api.latest import io

from ..ti_train.training.widgets import values_of
from .files import digest, template_files
from .option_inputs import option_input
from .option_names import FIRST_OPTIONAL, TRAINING_OPTIONS
from .sockets import CATEGORY, OptionsSocket, searched


class TrainingOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        required = set(takewhile(lambda name: name != FIRST_OPTIONAL, TRAINING_OPTIONS))
        files = {"templates": tuple(template_files())}
        return io.Schema(
            node_id="TITrain_TrainingOptions",
            display_name="Training Options",
            category=CATEGORY,
            description="More settings for Train Embedding. The defaults are the same as without this node.",
            **searched("textual inversion", "embedding training", "learning rate", "captions"),
            inputs=[
                option_input(name, option, files.get(option, ()), optional=name not in required)
                for name, option in TRAINING_OPTIONS.items()
            ],
            outputs=[OptionsSocket.Output("options", display_name="options", tooltip="Connect to Train Embedding.")],
        )

    @classmethod
    def fingerprint_inputs(cls, templates: str = "", **_: Any) -> str:
        """A hash of the chosen template file: when the file changes, train again."""
        file = template_files().get(templates)
        return digest([file]) if file else ""

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        values = values_of({TRAINING_OPTIONS[name]: value for name, value in inputs.items()})
        file = template_files().get(values.get("templates", ""))
        return io.NodeOutput(values | ({"templates": str(file)} if file else {}))
