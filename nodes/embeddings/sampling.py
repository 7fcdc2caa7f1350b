"""Inputs of the nodes that sample images to compare or to measure them."""

from __future__ import annotations

from comfy_api.latest import io

from ...ti_train.evaluation.options import sentence
from ...ti_train.evaluation.samples import Sampling
from ...ti_train.host import Host

STEPS = "Sampling steps; 0 = what suits the model family (Stable Diffusion: 25; others 4 to 50)."
CFG = (
    "CFG scale; 0 = what suits the model family (Stable Diffusion: 5; others 3.5 to 5; 1 where guidance is distilled "
    "into the model)."
)
DISTILLED = (
    "Guidance of a model in which it is distilled, such as Flux.1 dev: the one that the embedding was trained with; "
    "0 = the model's own (Flux.1 dev: 3.5)."
)


def model_inputs() -> tuple[io.Input, ...]:
    return (
        io.Model.Input("model", tooltip="The model to sample with, with its LoRAs."),
        io.Clip.Input("clip", tooltip="The model's text encoder. A clip skip set before this node is used."),
        io.Vae.Input("vae", tooltip="The VAE that decodes the images."),
    )


def sampling_inputs(number: int, what: str) -> tuple[io.Input, ...]:
    """number: the default of images for each prompt. what: its tooltip's beginning."""
    return (
        io.Int.Input("number", default=number, min=1, max=1000, tooltip=f"{what}, each with a seed of its own."),
        io.Int.Input("steps", default=0, min=0, max=1000, tooltip=STEPS),
        io.Float.Input(
            "guidance",
            display_name="cfg",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip=CFG,
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,  # else every Run samples again
            tooltip=sentence("seed"),
        ),
        io.Int.Input(
            "resolution",
            default=0,
            min=0,
            max=2048,
            step=8,
            tooltip=sentence("resolution"),
        ),
    )


def distilled_guidance_input() -> io.Input:
    return io.Float.Input(
        "distilled_guidance",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.1,
        optional=True,
        tooltip=DISTILLED,
    )


def sampling_for(host: Host, side: int, number: int, steps: int, cfg: float, seed: int) -> Sampling:
    """What the inputs mean for a model: 0 is what suits its family."""
    own = host.sampling
    return Sampling(side or host.resolution, number, steps or own.steps, cfg or own.cfg, seed)
