"""What the tests share: a folder of pictures, and two small real models (tiny_host.py, tiny_pipeline.py)."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library reads it: no test may touch the network

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import hypothesis
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_clip import write_clip
from tiny_host import TinyHost, dataset_of
from tiny_pipeline import write_pipeline

from ti_train.data.dataset import Dataset
from ti_train.training.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent

hypothesis.settings.register_profile("any-machine", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("any-machine")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """No bytes in the names of tests: a zip has its time, and the processes of pytest-xdist compare their names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in one order, so that equal means equal; and quicker on models this small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of three pictures: discs of different colours, two of them with a caption."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in (("blue", (40, 60, 200)), ("green", (30, 160, 60)), ("red", (200, 40, 40))):
        picture = Image.new("RGB", (48, 40), (230, 230, 220))
        ImageDraw.Draw(picture).ellipse([10, 6, 38, 34], fill=colour)
        picture.save(folder / f"{name}.png")
    (folder / "red.txt").write_text("red toy", encoding="utf-8")
    (folder / "blue.txt").write_text("blue dog", encoding="utf-8")
    return folder


@pytest.fixture
def host() -> TinyHost:
    return TinyHost()


@pytest.fixture
def dataset(host, pictures) -> Dataset:
    return dataset_of(host, pictures)


@pytest.fixture
def settings() -> Callable[..., TrainConfig]:
    """A run of six steps of two pictures; give what is to be different."""

    def settings(**given) -> TrainConfig:
        small = {"name": "my-toy", "init": "toy", "steps": 6, "batch_size": 2, "evaluate_every": 2, "device": "cpu"}
        return TrainConfig(**(small | {"dtype": "float32"} | given))

    return settings


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory) -> Callable[..., Path]:
    """Writes a small Stable Diffusion folder; each kind once. Do not change what is in it: see `own_pipeline`."""
    pytest.importorskip("diffusers")
    written: dict[str, Path] = {}

    def pipeline(**kind) -> Path:
        if repr(kind) not in written:
            written[repr(kind)] = write_pipeline(tmp_path_factory.mktemp("pipeline"), **kind)
        return written[repr(kind)]

    return pipeline


@pytest.fixture(scope="session")
def clip_weights(tmp_path_factory) -> Path:
    """The weights of `tiny-clip`, which open_clip knows from then on."""
    pytest.importorskip("open_clip")
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def pipeline_folder(pipelines) -> Path:
    return pipelines()


@pytest.fixture
def own_pipeline(pipeline_folder, tmp_path) -> Path:
    """A copy of the folder for a test to damage."""
    return Path(shutil.copytree(pipeline_folder, tmp_path / "own-model"))


@pytest.fixture
def load_in_webui(monkeypatch) -> Iterator[Any]:
    """Imports a module of the pack under another name, as a WebUI does. The WebUI and gradio are mocks."""
    pytest.importorskip("pydantic", reason="the API's request is one of its models")
    with loaded_as_pack(monkeypatch, "modules", "gradio") as load:
        yield load


@pytest.fixture
def load_in_comfyui(monkeypatch) -> Iterator[Any]:
    """Imports a module of the pack under another name, as ComfyUI does. ComfyUI is mocks."""
    pytest.importorskip("aiohttp", reason="ComfyUI's server is made of it")
    inner = ("comfy.model_management", "comfy.utils", "comfy_api.latest", "comfy_execution.utils")
    outer = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "server")
    with loaded_as_pack(monkeypatch, *outer, *inner) as load:
        sys.modules["comfy_api.latest"].io.ComfyNode = object
        yield load


@contextmanager
def loaded_as_pack(monkeypatch, *mocks: str) -> Iterator[Any]:
    """A function that imports a module of the pack under another name. mocks: the modules of its host."""
    for name in mocks:
        monkeypatch.setitem(sys.modules, name, MagicMock(__version__="4.0"))
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec
    monkeypatch.setitem(sys.modules, "pack", importlib.util.module_from_spec(spec))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"pack.{name}")

    yield load
    for name in [name for name in sys.modules if name.startswith("pack.")]:
        del sys.modules[name]
