"""Runs another tool's own functions that load or save an embedding, without starting the tool. Its Python runs this.

usage: tool_loaders.py TOOL FOLDER JOBS.json RESULTS.pt

JOBS: a list of {"do": "load", "file", "encoders": [names]} or {"do": "save", "file", "vectors": the file of a dict}.
RESULTS: for each job the encoders' vectors as the tool has them, None after a save, or the text of its error.

The tool's modules that hold these functions are the real ones; what they import beside torch, numpy, Pillow and
safetensors is replaced by empty classes, so that no model, page or GPU is needed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import types
from abc import ABCMeta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

torch_load = torch.load  # A1111 puts its own there


class AnyAttribute(ABCMeta):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Empty


class Empty(metaclass=AnyAttribute):
    """Stands for any class, function or constant of a module that is not there."""

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args = args


class EmptyModule(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (Empty,), {})
        setattr(self, name, value)
        return value


class EmptyFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module under the given names, save for the real ones and the packages that hold them."""

    def __init__(self, replaced: tuple[str, ...], real: tuple[str, ...]) -> None:
        self.replaced, self.real = replaced, real

    def find_spec(self, name: str, *_: Any) -> Any:
        real = any(module == name or module.startswith(f"{name}.") for module in self.real)
        if real or name.partition(".")[0] not in self.replaced:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> EmptyModule:
        return EmptyModule(spec.name)

    def exec_module(self, module: Any) -> None:
        pass


def enter(folder: str, replaced: tuple[str, ...], *real: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.meta_path.insert(0, EmptyFinder(replaced, real))


def by_encoder(vectors: Any, encoders: list[str]) -> dict[str, torch.Tensor]:
    """A1111 and Forge have a tensor for one encoder, a dict for two."""
    return vectors if isinstance(vectors, dict) else {encoders[0]: vectors}


class WebUI:
    """A1111 and reForge: their database, their safe loader (which replaces torch.load) and their picture format."""

    def __init__(self, folder: str) -> None:
        real = ("modules.safe", "modules.textual_inversion.textual_inversion")
        enter(folder, ("modules", "tqdm"), *real, "modules.textual_inversion.image_embedding")
        from modules import cache, devices, errors, hashes, shared

        shared.cmd_opts = SimpleNamespace(disable_safe_unpickle=False)
        shared.opts = SimpleNamespace(textual_inversion_image_embedding_data_cache=False, save_optimizer_state=False)
        shared.sd_model = SimpleNamespace(cond_stage_model=SimpleNamespace(tokenize=lambda names: [[1]]))
        devices.device = torch.device("cpu")
        hashes.sha256 = lambda *_: ""
        cache.cache = lambda _: {}
        errors.report = lambda message, **_: sys.stderr.write(f"{message} {sys.exc_info()[1]}\n")
        import modules.safe  # noqa: F401
        from modules.textual_inversion import image_embedding, textual_inversion

        self.module, self.pictures = textual_inversion, image_embedding

    def load(self, file: str, encoders: list[str]) -> dict[str, torch.Tensor]:
        database = self.module.EmbeddingDatabase()
        database.load_from_file(file, Path(file).name)
        (embedding,) = database.word_embeddings.values()
        return by_encoder(embedding.vec, encoders)

    def save(self, file: str, vectors: dict[str, torch.Tensor]) -> None:
        (rows,) = vectors.values()
        embedding = self.module.Embedding(rows, "their-word", 7)
        if file.endswith(".pt"):
            return embedding.save(file)
        from PIL import Image, PngImagePlugin

        data = {"string_to_param": {"*": rows}, "name": "their-word", "step": 7}
        picture = Image.new("RGB", (256, 256), (200, 180, 90))
        if "panels" in file:
            self.pictures.insert_image_data_embed(picture, data).save(file)
        else:
            info = PngImagePlugin.PngInfo()
            info.add_text("sd-ti-embedding", self.pictures.embedding_to_b64(data))
            picture.save(file, "PNG", pnginfo=info)
        return None


class Forge:
    def __init__(self, folder: str) -> None:
        enter(folder, ())
        import backend.text_processing.textual_inversion as module

        self.module = module

    def load(self, file: str, encoders: list[str]) -> dict[str, torch.Tensor]:
        tokenizer = lambda names, **_: {"input_ids": [[1]]}  # noqa: E731
        database = self.module.EmbeddingDatabase(tokenizer)
        database.load_from_file(file, Path(file).name)
        (embedding,) = database.word_embeddings.values()
        return by_encoder(embedding.vec, encoders)


class ComfyUI:
    def __init__(self, folder: str) -> None:
        enter(folder, ())
        sys.argv[1:] = ["--cpu"]
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.sd1_clip

        self.module = comfy.sd1_clip

    def load(self, file: str, encoders: list[str]) -> dict[str, torch.Tensor]:
        width = {"clip_l": 768, "clip_g": 1280, "clip_h": 1024, "t5xxl": 4096}
        found = {}
        for encoder in encoders:
            path, key = Path(file), encoder if encoder in width else "clip_l"
            found[encoder] = self.module.load_embed(path.name, str(path.parent), width[key], key)
        return found


class Kohya:
    def __init__(self, folder: str) -> None:
        replaced = ("library", "accelerate", "diffusers", "transformers", "toml", "tqdm")
        enter(folder, replaced, "train_textual_inversion")
        import sdxl_train_textual_inversion
        import train_textual_inversion

        self.one = train_textual_inversion.TextualInversionTrainer()
        self.two = sdxl_train_textual_inversion.SdxlTextualInversionTrainer.__new__(
            sdxl_train_textual_inversion.SdxlTextualInversionTrainer
        )

    def load(self, file: str, encoders: list[str]) -> dict[str, torch.Tensor]:
        trainer = self.one if len(encoders) == 1 else self.two
        return dict(zip(encoders, trainer.load_weights(file), strict=True))

    def save(self, file: str, vectors: dict[str, torch.Tensor]) -> None:
        trainer = self.one if len(vectors) == 1 else self.two
        trainer.save_weights(file, list(vectors.values()), None, {"modelspec.title": "their-word"})


class OneTrainer:
    def __init__(self, folder: str) -> None:
        setups = ("modules.modelSetup.BaseStableDiffusionSetup", "modules.modelSetup.BaseStableDiffusionXLSetup")
        mixins = ("modules.modelLoader.mixin.EmbeddingLoaderMixin", "modules.modelSaver.mixin.EmbeddingSaverMixin")
        savers = [
            f"modules.modelSaver.{name[0].lower()}{name[1:]}.{name}EmbeddingSaver"
            for name in ("StableDiffusion", "StableDiffusionXL")
        ]
        enter(folder, ("modules", "diffusers", "transformers"), *setups, *mixins, *savers)
        import importlib

        self.setups = [getattr(importlib.import_module(name), name.rpartition(".")[2]) for name in setups]
        self.savers = [getattr(importlib.import_module(name), name.rpartition(".")[2]) for name in savers]
        self.loader = getattr(importlib.import_module(mixins[0]), "EmbeddingLoaderMixin")  # noqa: B009

    def load(self, file: str, encoders: list[str]) -> dict[str, torch.Tensor]:
        state = self.loader()._EmbeddingLoaderMixin__load_embedding(file)
        wanted = SimpleNamespace(uuid="1", placeholder="word", is_output_embedding=False)
        config = SimpleNamespace(all_embedding_configs=lambda: [wanted], embedding=wanted)
        table = SimpleNamespace(weight=torch.zeros(1))
        encoder = SimpleNamespace(get_input_embeddings=lambda: table)
        names = ("", "_1", "_2")
        model = SimpleNamespace(embedding_state_dicts={"1": state}, tokenizer=None, tokenizer_1=None, tokenizer_2=None)
        for name in names:
            setattr(model, f"text_encoder{name}", encoder)
            setattr(model, f"all_text_encoder{name}_embeddings", list)
        trainer = SimpleNamespace(train_device="cpu", _add_embeddings_to_tokenizer=lambda *_: None)
        self.setups[len(encoders) - 1]._setup_embeddings(trainer, model, config)
        return dict(zip(encoders, model.embedding.args[1 : 1 + len(encoders)], strict=True))

    def save(self, file: str, vectors: dict[str, torch.Tensor]) -> None:
        parts = {}
        names = ["text_encoder"] if len(vectors) == 1 else ["text_encoder_1", "text_encoder_2"]
        for name, rows in zip(names, vectors.values(), strict=True):
            parts[f"{name}_embedding"] = SimpleNamespace(vector=rows, output_vector=rows + 1)
        self.savers[len(vectors) - 1]()._save_safetensors(SimpleNamespace(**parts), None, file, torch.float32)


TOOLS = {"webui": WebUI, "forge": Forge, "comfyui": ComfyUI, "kohya": Kohya, "onetrainer": OneTrainer}


def done(tool: Any, job: dict[str, Any]) -> Any:
    try:
        if job["do"] == "save":
            return tool.save(job["file"], torch_load(job["vectors"]))
        return {encoder: rows.detach().clone() for encoder, rows in tool.load(job["file"], job["encoders"]).items()}
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(name: str, folder: str, jobs: str, results: str) -> None:
    work = json.loads(Path(jobs).read_text(encoding="utf-8"))
    tool = TOOLS[name](str(Path(folder).resolve()))
    found = [done(tool, job) for job in work]
    torch.save(found, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
