"""Which options the tab and the API have, and what their help adds here."""

NOTES = {
    "name": " Write it in prompts.",
    "init": " Files: in the embeddings folder.",
    "preview_prompts": " One prompt per line.",
    "templates": " Files: in textual_inversion_templates.",
}
NOT_OFFERED = {
    "device": "The WebUI chooses it (--use-cpu, --device-id).",
    "dtype": "The checkpoint is already loaded; the WebUI chooses its precision (--no-half, --precision full).",
    "guidance": "The WebUIs' families have no guidance in the model.",
    "preview_sampler": "They have a field of this name with the WebUI's own samplers.",
    "preview_scheduler": "The WebUI chooses it.",
}
