"""What ComfyUI's page asks the pack: the trainings of now, and the pictures of a folder of the input directory."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web
from PIL import Image
from server import PromptServer

from ..ti_train.data.captions import caption_file
from ..ti_train.data.image_files import DAMAGED, SUFFIXES, on_white, upright
from ..ti_train.data.picture import bucket
from ..ti_train.errors import UserError
from ..ti_train.files import write_atomically
from .live import LiveRun, runs
from .load import caption_of, inside_input, pictures_of
from .tensors import side_to_train_at

THUMBNAIL = 256  # pixels
USUAL_SIDE = 512  # pixels: Stable Diffusion 1's, where no Training Options say otherwise
LONGEST_CAPTION = 10_000  # characters


def register() -> None:
    """Adds the routes to ComfyUI's server, where there is one."""
    server: Any = getattr(PromptServer, "instance", None)
    if server is None:
        return
    routes = server.routes
    routes.get("/ti_train/runs")(list_runs)
    routes.get("/ti_train/runs/{run}/previews/{number}")(preview)
    routes.post("/ti_train/runs/{run}/stop")(stop_and_keep)
    routes.get("/ti_train/pictures")(list_pictures)
    routes.get("/ti_train/thumbnail")(thumbnail)
    routes.post("/ti_train/caption")(write_caption)


async def list_runs(_: web.Request) -> web.Response:
    return web.json_response([run.snapshot() for run in runs])


def asked_for(request: web.Request) -> LiveRun:
    run = next((run for run in runs if run.id == request.match_info["run"]), None)
    if run is None:
        raise web.HTTPNotFound(text="This training is not known any more.")
    return run


async def preview(request: web.Request) -> web.Response:
    number = request.match_info["number"]
    picture = asked_for(request).picture(int(number)) if number.isdecimal() else None
    if picture is None:
        raise web.HTTPNotFound(text="This preview is not kept.")
    return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


async def stop_and_keep(request: web.Request) -> web.Response:
    asked_for(request).stop.set()
    return web.json_response({})


async def list_pictures(request: web.Request) -> web.Response:
    """The pictures of a folder as training will see them; `error` says why there are none."""
    query = request.query
    resolution = int(query.get("resolution") or 0) or USUAL_SIDE
    try:
        described = await asyncio.to_thread(
            describe_folder, query.get("folder", ""), query.get("subfolders") == "1", resolution
        )
    except UserError as error:
        return web.json_response({"pictures": [], "side": 0, "error": str(error)})
    return web.json_response(described)


def describe_folder(folder: str, subfolders: bool, resolution: int) -> dict[str, Any]:
    """Raises UserError where the folder has no pictures, or is outside of the input directory."""
    base = Path(folder_paths.get_input_directory()).resolve()
    paths = pictures_of(folder, subfolders)
    sizes = [size_of(path) for path in paths]
    side = side_to_train_at([size for size in sizes if size], resolution)
    copies = identical(paths)
    pictures = []
    for path, size in zip(paths, sizes, strict=True):
        described: dict[str, Any] = {"file": path.relative_to(base).as_posix(), "changed": path.stat().st_mtime_ns}
        described |= {"caption": caption_of(path), "warnings": [], "crop": None}
        if size is None:
            described["warnings"].append("No readable picture: training will stop. Remove it.")
        else:
            described |= {"width": size[0], "height": size[1], "crop": part_kept(size, bucket(size, side))}
            if min(size) < resolution:
                described["warnings"].append(f"{size[0]} x {size[1]}: below {resolution} pixels")
        if path in copies:
            described["warnings"].append(f"The same as {copies[path].name}: it counts twice")
        pictures.append(described)
    return {"pictures": pictures, "side": side, "error": ""}


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height, upright; None where the file cannot be read."""
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF's orientations 5 to 8 lie on their side
            return (picture.height, picture.width) if turned else picture.size
    except (*DAMAGED, Image.DecompressionBombError):
        return None


def part_kept(size: tuple[int, int], shape: tuple[int, int]) -> list[float]:
    """Left, top, width and height of what training sees, as parts of the picture's (width, height).

    shape: (height, width) of the bucket.
    """
    parts = [kept / length for kept, length in zip(shape[::-1], size, strict=True)]
    width, height = (part / max(parts) for part in parts)
    return [(1 - width) / 2, (1 - height) / 2, width, height]


def identical(paths: list[Path]) -> dict[Path, Path]:
    """Later copy -> the first file with the same bytes. Only files of one length are read."""
    lengths = {path: path.stat().st_size for path in paths}
    shared = Counter(lengths.values())
    first: dict[bytes, Path] = {}
    copies = {}
    for path in (p for p in paths if shared[lengths[p]] > 1):
        original = first.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
        if original is not path:
            copies[path] = original
    return copies


def picture_file(name: str) -> Path:
    """A picture of the input directory that the page names. Raises HTTPNotFound."""
    try:
        path = inside_input(name)
    except UserError as error:
        raise web.HTTPNotFound(text=str(error)) from None
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise web.HTTPNotFound(text=f"There is no picture '{name}' in ComfyUI's input directory.")
    return path


async def thumbnail(request: web.Request) -> web.Response:
    path = picture_file(request.query.get("file", ""))
    try:
        body = await asyncio.to_thread(scaled_down, path)
    except (*DAMAGED, Image.DecompressionBombError):
        raise web.HTTPNotFound(text=f"'{path.name}' cannot be read.") from None
    return web.Response(body=body, content_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


def scaled_down(path: Path) -> bytes:
    with Image.open(path) as file:
        file.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # a camera's JPEG is decoded at a fraction of its size
        picture = on_white(upright(file))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return data.getvalue()


async def write_caption(request: web.Request) -> web.Response:
    """Writes the text file beside a picture; an empty caption removes it."""
    asked = await request.json()
    file, text = caption_file(picture_file(asked["file"])), " ".join(asked["text"].split())[:LONGEST_CAPTION]
    if text:
        await asyncio.to_thread(write_atomically, file, text.encode())
    else:
        file.unlink(missing_ok=True)
    return web.json_response({"caption": text})
