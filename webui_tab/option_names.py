"""Which options the tab and the API have, and what is true of them here only."""

NOTES = {
    "name": " Prompts have it as it is.",
    "init": " The file is one of the embeddings folder.",
    "templates": " The file is one of the WebUI's textual_inversion_templates, without its ending.",
}
NOT_OFFERED = {
    "device": "The WebUI chooses it (--use-cpu, --device-id).",
    "dtype": "The checkpoint is loaded already; the WebUI chooses its precision (--no-half, --precision full).",
}
