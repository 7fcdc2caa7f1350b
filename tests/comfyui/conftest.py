"""A ComfyUI for the tests. COMFYUI_PATH: its folder; COMFYUI_PYTHON: its Python, if it is not the one of the tests;
COMFYUI_FRONT_END, TI_TRAIN_CHROMIUM: the page and a browser, where they are not found by themselves;
TI_TRAIN_WORLD: the world, assembled (comfyui/, diffusers/), with its concepts and its judge below or beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from comfyui_server import Server
from page import OFFLINE, Page
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
FAMILIES = ("sd1", "sd2-v", "sdxl")
CACHE = Path(os.environ.get("TI_TRAIN_TEST_CACHE", Path.home() / ".cache" / "ti-train-tests"))


@pytest.fixture(scope="session")
def comfyui() -> Path:
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        pytest.skip("COMFYUI_PATH is not set: give the folder of a ComfyUI to run these tests in it")
    if not (Path(path) / "main.py").is_file():
        pytest.skip(f"COMFYUI_PATH '{path}' is no ComfyUI: it has no main.py")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def comfyui_python() -> str:
    return os.environ.get("COMFYUI_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def world() -> Path:
    path = os.environ.get("TI_TRAIN_WORLD")
    if not path:
        pytest.skip("TI_TRAIN_WORLD is not set: give the folder of the assembled world (comfyui/, diffusers/)")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def drawn(comfyui, comfyui_python) -> Path:
    """A folder with FAMILY.safetensors and FAMILY-lora.safetensors for each of FAMILIES: 3.5 GB in all."""
    for family in FAMILIES:
        if not (CACHE / f"{family}-lora.safetensors").is_file():
            drawing = [comfyui_python, str(HERE / "draw_checkpoint.py"), family, str(CACHE)]
            subprocess.run(drawing, cwd=comfyui, check=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    return CACHE


@pytest.fixture(scope="session")
def front_end(comfyui_python) -> Path | None:
    """The page: COMFYUI_FRONT_END, or the package that ComfyUI's Python has."""
    if "COMFYUI_FRONT_END" in os.environ:
        return Path(os.environ["COMFYUI_FRONT_END"]).resolve()
    where = "import comfyui_frontend_package as p; print(*p.__path__)"
    found = subprocess.run([comfyui_python, "-c", where], capture_output=True, text=True, check=False)
    return Path(found.stdout.strip()) / "static" if found.returncode == 0 else None


@pytest.fixture(scope="session")
def browser(front_end) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: no browser to drive")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("TI_TRAIN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("There is no Chromium: set TI_TRAIN_CHROMIUM to one, or put one on the PATH")
    if front_end is None or not (front_end / "index.html").is_file():
        pytest.skip(f"ComfyUI's page is not in '{front_end}': set COMFYUI_FRONT_END to the folder of its index.html")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=list(OFFLINE))
        yield running
        running.close()


@pytest.fixture(scope="session")
def server(comfyui, front_end, drawn, tmp_path_factory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("comfyui")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "probe").symlink_to(HERE / "probe", target_is_directory=True)
    (base / "models" / "checkpoints").mkdir(parents=True)
    (base / "models" / "loras").mkdir()
    for family in FAMILIES:
        (base / "models" / "checkpoints" / f"{family}.safetensors").symlink_to(drawn / f"{family}.safetensors")
        (base / "models" / "loras" / f"{family}-lora.safetensors").symlink_to(drawn / f"{family}-lora.safetensors")
    world = os.environ.get("TI_TRAIN_WORLD")
    if world:
        (base / "models" / "checkpoints" / "world.safetensors").symlink_to(
            Path(world).resolve() / "comfyui" / "checkpoints" / "world.safetensors"
        )
        (base / "models" / "vae_approx").symlink_to(Path(world).resolve() / "comfyui" / "vae_approx")
    draw_pictures(base / "input" / "toys")
    running = Server(comfyui, base, front_end)
    yield running
    running.stop()


@pytest.fixture
def page(browser, server) -> Iterator[Callable[..., Page]]:
    """Opens pages; all are closed after the test."""
    opened: list[Page] = []

    def page(**settings: Any) -> Page:
        opened.append(Page(browser, server, **settings))
        return opened[-1]

    yield page
    for one in opened:
        one.close()


def draw_pictures(folder: Path) -> None:
    """Two pictures of different sizes, one with a caption."""
    folder.mkdir(parents=True)
    for name, colour, size in (("blue", (40, 60, 200), (64, 64)), ("red", (200, 40, 40), (80, 64))):
        picture = Image.new("RGB", size, (230, 230, 220))
        ImageDraw.Draw(picture).ellipse([12, 8, 52, 48], fill=colour)
        picture.save(folder / f"{name}.png")
    (folder / "red.txt").write_text("a red toy", encoding="utf-8")
