# ComfyUI looks for this file; pytest >= 8 imports it bare, outside any package, which has to work.
if __package__:
    from .nodes.extension import comfy_entrypoint

    __all__ = ["comfy_entrypoint"]
