# ComfyUI looks for this file; pytest >= 8 imports it bare, outside any package, which has to work.
if __package__:
    from .nodes.extension import comfy_entrypoint

    WEB_DIRECTORY = "./web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
