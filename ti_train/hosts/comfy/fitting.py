"""Whether a MODEL and a CLIP belong together, and what is known of their family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import UserError
from ..families import BY_CLASS, FAMILIES, Family, class_name
from .encoders import encoders, reads_syntax, widths

NOT_TRIED = (
    "This pack has not been tried with this model family ({}). The run stops with an error if the embedding does not "
    "reach the model. Look at the previews to see whether it trains what the images show."
)
NO_SYNTAX = (
    "ComfyUI reads no embedding:name in prompts for this model family. Use the clip output, or Load Embedding with the "
    "trained file."
)
SAME = "Connect the CLIP of the same checkpoint, or the loader for its text encoders with the type of this model."
OF_ONE_FAMILY = {family.clip for family in FAMILIES if family.clip}
WIDTHS = ("context_in_dim", "cap_feat_dim")  # of the conditioning, in ComfyUI's configurations of two kinds of networks
NO_GUIDANCE = "guidance {:g} has no effect: only models in which guidance is distilled read it, such as Flux.1 dev."


def remarks_on(model: Any, clip: Any, guidance: float) -> tuple[str, ...]:
    """What the user should know before a run. Raises UserError if nothing can be trained with these two."""
    name = name_of(model.model)
    family = BY_CLASS.get(name)
    if family and family.refused:  # first: such a CLIP may have no encoder at all
        raise UserError(f"No embedding can be trained for {family.title}: {family.refused}.")
    found = tuple(encoders(clip))
    if family:
        check_encoders(family, clip)
        check_width(family, model.model.model_config.unet_config, clip)
    tried = family and set(found) <= set(family.encoders)
    remarks = [] if tried else [NOT_TRIED.format(f"{name}, {' + '.join(found)}")]
    remarks += [] if all_read_syntax(clip) else [NO_SYNTAX]
    return tuple(remarks + [NO_GUIDANCE.format(guidance)] * (guidance > 0 and not reads_guidance(model.model)))


def name_of(model: Any) -> str:
    """The name of a model's family in the table of families."""
    config = model.model_config
    return class_name(type(config).__name__, config.unet_config)


def check_encoders(family: Family, clip: Any) -> None:
    """Raises UserError for a text encoder that the family does not have, without one that it needs, or if the CLIP
    joins the same encoders as another family reads them."""
    found = tuple(encoders(clip))
    foreign = set(found) - {*family.encoders, *family.others}
    needed = set() if set(found) & set(family.others) else set(family.encoders) - set(family.optional)
    kind = type(clip.cond_stage_model)
    own = next((each.__name__ for each in kind.__mro__ if each.__name__ in OF_ONE_FAMILY), "")
    alone = found == family.encoders == ("t5xxl",)  # every CLIP hands on T5's states as they are
    if foreign or not needed <= set(found) or (own != family.clip and not alone):
        wanted = f"{family.clip} with any of " * bool(family.clip) + " + ".join(family.encoders)
        raise UserError(
            f"The CLIP belongs to another model family: it is {kind.__name__.rstrip('_')} with the text encoder(s) "
            f"{' + '.join(found)}, and the model ({family.title}) needs {wanted}. {SAME}"
        )


def check_width(family: Family, unet_config: Mapping[str, Any], clip: Any) -> None:
    """Raises UserError if an only encoder gives the network another conditioning than it reads.

    Families share encoders: klein reads three layers of the one of which Z-Image reads one.
    """
    read = next((unet_config[key] for key in WIDTHS if key in unet_config), None)
    if read is None or len(encoders(clip)) > 1:
        return
    ((name, encoder),) = encoders(clip).items()
    layers = encoder.module.layer
    given = widths(clip)[name] * (len(layers) if isinstance(layers, list) else 1)
    if given != read:
        raise UserError(
            f"The CLIP belongs to another model: its text encoder {name}, as it is loaded, gives {given} values for "
            f"each token, and the model ({family.title}) reads {read}. {SAME}"
        )


def check_latents(model: Any, latents: Tensor) -> None:
    """Raises UserError if an image's latents, of a VAE, are not of the kind that the model reads."""
    wanted, name = model.latent_format, name_of(model)
    given = latents.shape[1], latents.ndim - 2
    needed = wanted.latent_channels, dimensions_of(wanted)
    if given != needed:
        title = BY_CLASS[name].title if name in BY_CLASS else name
        raise UserError(
            f"The VAE belongs to another model family: it encodes an image to {kind_of(*given)}, and the model "
            f"({title}) reads {kind_of(*needed)}. Connect the VAE of the same checkpoint, or Load VAE with this "
            "model's."
        )


def dimensions_of(latent_format: Any) -> int:
    """2, or 3 of a video model: rows and columns, and frames."""
    return int(getattr(latent_format, "latent_dimensions", 2))


def kind_of(channels: int, dimensions: int) -> str:
    return f"{'video' if dimensions == 3 else 'image'} latents with {channels} channels"


def reads_guidance(model: Any) -> bool:
    """Whether guidance is an input of the network, by the layers that ComfyUI has found in its file."""
    network = model.diffusion_model
    return bool(model.model_config.unet_config.get("guidance_embed")) or hasattr(network, "distilled_guidance_layer")


def all_read_syntax(clip: Any) -> bool:
    """Whether the host's own `embedding:name` works in prompts."""
    return all(reads_syntax(encoder.tokenizer) for encoder in encoders(clip).values())
