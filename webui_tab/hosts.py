"""Detects the WebUI and creates its host."""

from __future__ import annotations

from typing import Any

from modules import sd_models, shared

from ..ti_train.errors import UserError


def connect() -> Any:
    """The host for the loaded model; hold the WebUI's queue lock. Raises UserError for an unsupported model."""
    if hasattr(sd_models, "forge_model_reload"):
        from ..ti_train.hosts.webui.forge import ForgeHost

        return ForgeHost()
    model = shared.sd_model  # loads the chosen checkpoint if none is loaded
    if model is None:
        raise UserError("No checkpoint could be loaded. Choose one at the top left, or see the WebUI's console.")
    if hasattr(model, "forge_objects"):
        from ..ti_train.hosts.webui.reforge import ReForgeHost

        return ReForgeHost()
    from ..ti_train.hosts.webui.a1111 import A1111Host

    return A1111Host()
