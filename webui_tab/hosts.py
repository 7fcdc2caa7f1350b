"""Which WebUI this is, and its host."""

from __future__ import annotations

from typing import Any

from modules import sd_models, shared

from ..ti_train.errors import UserError


def connect() -> Any:
    """The host of the loaded model; hold the WebUI's queue lock. Raises UserError for a model it cannot train."""
    if hasattr(sd_models, "forge_model_reload"):
        from ..ti_train.hosts.webui.forge import ForgeHost

        return ForgeHost()
    model = shared.sd_model  # loads the chosen checkpoint where none is loaded yet
    if model is None:
        raise UserError("No checkpoint could be loaded. Choose one at the top left; the WebUI's console says more.")
    if hasattr(model, "forge_objects"):
        from ..ti_train.hosts.webui.reforge import ReForgeHost

        return ReForgeHost()
    from ..ti_train.hosts.webui.a1111 import A1111Host

    return A1111Host()
