"""Inputs of the nodes that sample images to compare or to measure them."""

from __future__ import annotations

from comfy_api.latest import io

from ...ti_train.evaluation.options import sentence


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
        io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps (Euler)."),
        io.Float.Input("guidance", default=5.0, min=0.0, max=100.0, step=0.1, tooltip=sentence("guidance")),
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
