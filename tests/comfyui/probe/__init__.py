"""Nodes of the tests, put into ComfyUI beside the pack: they write down what stock nodes do not let one see."""

import hashlib
import sys
from pathlib import Path

import folder_paths
import torch


class ProbeConditioning:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"conditioning": ("CONDITIONING",), "file": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "write", "tests", True

    def write(self, conditioning, file):
        pooled = [entry[1].get("pooled_output") for entry in conditioning]
        tensors = [t.clone() for t in [*(entry[0] for entry in conditioning), *pooled] if t is not None]
        torch.save(tensors, Path(folder_paths.get_output_directory()) / file)
        return {}


class ProbeWeights:
    """A hash of all weights as they stand, and whether any was left trainable or swapped. `after` sets the order."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {"model": ("MODEL",), "clip": ("CLIP",), "file": ("STRING", {})},
            "optional": {"after": ("IMAGE",)},
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "write", "tests", True

    def write(self, model, clip, file, after=None):
        digest, trainable, normal = hashlib.sha256(), 0, 0
        for module in (model.model, clip.cond_stage_model):
            for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
                digest.update(name.encode() + tensor.detach().clone().reshape(-1).view(torch.uint8).numpy().tobytes())
                trainable += tensor.requires_grad
                normal += not tensor.is_inference()
        text = (
            f"{digest.hexdigest()} trainable {trainable} normal {normal} inference {torch.is_inference_mode_enabled()}"
        )
        (Path(folder_paths.get_output_directory()) / file).write_text(text)
        return {}


class ProbeClip:
    """Makes a model known to open_clip."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"config": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "add", "tests", True

    def add(self, config):
        import open_clip

        open_clip.add_model_config(config)
        return {}


class ProbeFamily:
    """A tiny model of a family, see tiny_families.py."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"family": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "CLIP", "VAE"), "draw", "tests"

    def draw(self, family):
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        from tiny_families import draw

        return draw(family, folder_paths.get_folder_paths("embeddings"))


NODE_CLASS_MAPPINGS = {
    "ProbeConditioning": ProbeConditioning,
    "ProbeWeights": ProbeWeights,
    "ProbeClip": ProbeClip,
    "ProbeFamily": ProbeFamily,
}
