from importlib.util import find_spec

# ComfyUI looks for this file. pytest >= 8 imports it too, where there is no ComfyUI and perhaps no package.
if __package__ and find_spec("comfy_api"):
    from .nodes.extension import comfy_entrypoint

    WEB_DIRECTORY = "./web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
