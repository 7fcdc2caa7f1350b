"""Nodes of the tests, put into ComfyUI beside the pack: they write down what stock nodes do not let one see."""

import collections
import gc
import hashlib
import json
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


class ProbeObjects:
    """How many objects and tensors the process has, and what the modules of the pack keep between runs."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"file": ("STRING", {})}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "write", "tests", True

    def write(self, file):
        gc.collect()
        objects = gc.get_objects()
        types = collections.Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
        counted = {
            "objects": len(objects),
            "types": types,
            "tensors": sum(issubclass(type(each), torch.Tensor) for each in objects),  # isinstance() wakes lazy ones
            "kept": kept_by_the_pack(),
        }
        (Path(folder_paths.get_output_directory()) / file).write_text(json.dumps(counted))
        return {}


def kept_by_the_pack():
    """Items of the containers and of the cached functions at the top of its modules."""
    import nodes

    pack, _, _ = nodes.NODE_CLASS_MAPPINGS["TITrain_TrainEmbedding"].__module__.rpartition(".nodes.")
    modules = [module for name, module in sys.modules.items() if name.startswith(pack)]
    values = {id(value): value for module in modules for value in vars(module).values()}.values()
    containers = (dict, list, set, collections.deque)
    sizes = [len(value) for value in values if isinstance(value, containers)]
    return sum(sizes) + sum(value.cache_info().currsize for value in values if hasattr(value, "cache_info"))


NODE_CLASS_MAPPINGS = {
    "ProbeConditioning": ProbeConditioning,
    "ProbeWeights": ProbeWeights,
    "ProbeClip": ProbeClip,
    "ProbeFamily": ProbeFamily,
    "ProbeObjects": ProbeObjects,
}
