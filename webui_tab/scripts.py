"""The page's own scripts, under the name that this gradio has for an event's script."""

from __future__ import annotations

import gradio as gr
from packaging.version import Version

KEY = "js" if Version(gr.__version__).major >= 4 else "_js"


def script(function: str) -> dict[str, str]:
    """An event's argument that runs a function of javascript/ti_train.js before the event's handler."""
    return {KEY: function}
