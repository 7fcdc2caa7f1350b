"""Registers the API, the settings and the tab with the WebUI."""

from __future__ import annotations

from modules import script_callbacks

from .api import add_routes
from .jobs import interrupt_running
from .previews import remove_left_behind
from .settings import add_settings
from .tab import build


def register() -> None:
    script_callbacks.on_ui_settings(add_settings)
    script_callbacks.on_ui_tabs(build)
    script_callbacks.on_app_started(add_routes)
    script_callbacks.on_app_started(remove_left_behind)
    script_callbacks.on_before_reload(interrupt_running)
