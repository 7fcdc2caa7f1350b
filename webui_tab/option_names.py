"""Which options the tab and the API have, and what is true of them here only."""

NOTES = {
    "name": " Write it in prompts.",
    "init": " Files: in the embeddings folder.",
    "templates": " Files: in textual_inversion_templates.",
}
NOT_OFFERED = {
    "device": "The WebUI chooses it (--use-cpu, --device-id).",
    "dtype": "The checkpoint is loaded already; the WebUI chooses its precision (--no-half, --precision full).",
}
