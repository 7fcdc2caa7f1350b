"""Which WebUI this is, and its host."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from modules import sd_models


def connect() -> Any:
    """The host of the loaded model; hold the WebUI's queue lock. Raises UserError for a model it cannot train."""
    if hasattr(sd_models, "forge_model_reload"):
        from ..ti_train.hosts.forge import ForgeHost

        return ForgeHost()
    if find_spec("ldm_patched"):
        from ..ti_train.hosts.reforge import ReForgeHost

        return ReForgeHost()
    from ..ti_train.hosts.a1111 import A1111Host

    return A1111Host()
