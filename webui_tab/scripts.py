"""JavaScript for gradio events (the argument's name depends on the gradio version), and buttons that it clicks."""

from __future__ import annotations

import gradio as gr
from packaging.version import Version

KEY = "js" if Version(gr.__version__).major >= 4 else "_js"


def script(function: str) -> dict[str, str]:
    """The argument of an event that calls a function of javascript/ti_train.js before the handler."""
    return {KEY: function}


def hidden_button(elem_id: str) -> gr.Button:
    """A button that scripts of the page click. (gradio leaves out of the page what is not visible.)"""
    return gr.Button(elem_id=elem_id, elem_classes=["ti-train-hidden"])
