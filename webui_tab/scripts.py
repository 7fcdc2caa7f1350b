"""JavaScript for gradio events; the argument's name depends on the gradio version."""

from __future__ import annotations

import gradio as gr
from packaging.version import Version

KEY = "js" if Version(gr.__version__).major >= 4 else "_js"


def script(function: str) -> dict[str, str]:
    """The argument of an event that calls a function of javascript/ti_train.js before the handler."""
    return {KEY: function}
