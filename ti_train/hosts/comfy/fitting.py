"""Whether a MODEL and a CLIP belong together, and what is known of their family."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ..families import BY_CLASS
from .encoders import encoders, reads_syntax

NOT_TRIED = (
    "This pack has not been tried with this model family ({}). The run stops with an error if the embedding does not "
    "reach the model. Look at the previews to see whether it trains what the images show."
)
NO_SYNTAX = (
    "ComfyUI reads no embedding:name in prompts for this model family. Use the clip output, or Load Embedding with the "
    "trained file."
)
NO_GUIDANCE = "guidance {:g} has no effect: only models in which guidance is distilled read it, such as Flux.1 dev."


def remarks_on(model: Any, clip: Any, guidance: float) -> tuple[str, ...]:
    """What the user should know before a run. Raises UserError if nothing can be trained with these two."""
    class_name = type(model.model.model_config).__name__
    family, found = BY_CLASS.get(class_name), encoders(clip)
    if family and family.refused:
        raise UserError(f"No embedding can be trained for {family.title}: {family.refused}.")
    if family and not set(found) <= {*family.encoders, *family.others}:
        raise UserError(
            f"The CLIP belongs to another model family: it has the text encoder(s) {' + '.join(found)}, and the model "
            f"({family.title}) needs {' + '.join(family.encoders)}. Connect the CLIP of the same checkpoint, or the "
            "loader for this model's text encoders."
        )
    tried = family and set(found) <= set(family.encoders)
    remarks = [] if tried else [NOT_TRIED.format(f"{class_name}, {' + '.join(found)}")]
    remarks += [] if all_read_syntax(clip) else [NO_SYNTAX]
    return tuple(remarks + [NO_GUIDANCE.format(guidance)] * (guidance > 0 and not reads_guidance(model.model)))


def reads_guidance(model: Any) -> bool:
    """Whether guidance is an input of the network, by the layers that ComfyUI has found in its file."""
    network = model.diffusion_model
    return bool(model.model_config.unet_config.get("guidance_embed")) or hasattr(network, "distilled_guidance_layer")


def all_read_syntax(clip: Any) -> bool:
    """Whether the host's own `embedding:name` works in prompts."""
    return all(reads_syntax(encoder.tokenizer) for encoder in encoders(clip).values())
