"""HTTP routes for ComfyUI's page: training runs, and the images of a folder in the input directory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web
from server import PromptServer

from ...ti_train.data import captions
from ...ti_train.data.image_files import SUFFIXES
from ...ti_train.data.removal import move_to_removed
from ...ti_train.errors import UserError
from ..training_images import inside_input
from .folder_view import UNREADABLE, describe_folder, scaled_down
from .live import LiveRun, runs

USUAL_SIDE = 512  # pixels: Stable Diffusion 1's, if Training Options give none
LONGEST_CAPTION = 10_000  # characters


def register() -> None:
    """Adds the routes to ComfyUI's server, if it runs."""
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
    routes.post("/ti_train/remove")(remove_picture)


async def list_runs(_: web.Request) -> web.Response:
    return web.json_response([run.snapshot() for run in runs])


def asked_for(request: web.Request) -> LiveRun:
    run = next((run for run in runs if run.id == request.match_info["run"]), None)
    if run is None:
        raise web.HTTPNotFound(text="This training run is no longer listed.")
    return run


async def preview(request: web.Request) -> web.Response:
    number = request.match_info["number"]
    picture = asked_for(request).picture(int(number)) if number.isdecimal() else None
    if picture is None:
        raise web.HTTPNotFound(text="This preview is no longer kept.")
    return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


async def stop_and_keep(request: web.Request) -> web.Response:
    run = asked_for(request)
    run.stop.set()
    run.send("stopping", {})
    return web.json_response({})


async def list_pictures(request: web.Request) -> web.Response:
    """The images of a folder as training uses them; `error` explains why there are none."""
    query = request.query
    resolution = int(query.get("resolution") or 0) or USUAL_SIDE
    subfolders, square = query.get("subfolders") == "1", query.get("square") == "1"
    try:
        described = await asyncio.to_thread(describe_folder, query.get("folder", ""), subfolders, resolution, square)
    except UserError as error:
        return web.json_response({"pictures": [], "side": 0, "error": str(error)})
    return web.json_response(described)


def picture_file(name: str) -> Path:
    """An image in the input directory, by the name that the page sent. Raises HTTPNotFound."""
    try:
        path = inside_input(name)
    except UserError as error:
        raise web.HTTPNotFound(text=str(error)) from None
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise web.HTTPNotFound(text=f"There is no image '{name}' in ComfyUI's input directory.")
    return path


async def thumbnail(request: web.Request) -> web.Response:
    path = picture_file(request.query.get("file", ""))
    try:
        body = await asyncio.to_thread(scaled_down, path)
    except UNREADABLE:
        raise web.HTTPNotFound(text=f"'{path.name}' cannot be read.") from None
    return web.Response(body=body, content_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


async def write_caption(request: web.Request) -> web.Response:
    """Writes the caption file of an image; an empty caption removes it."""
    asked = await request.json()
    text = asked["text"].strip()[:LONGEST_CAPTION]
    caption = await asyncio.to_thread(captions.write_caption, picture_file(asked["file"]), text)
    return web.json_response({"caption": caption})


async def remove_picture(request: web.Request) -> web.Response:
    """Moves an image to `removed/`, which is not trained on; returns its new path in the input directory."""
    path = picture_file((await request.json())["file"])
    try:
        moved = await asyncio.to_thread(move_to_removed, path)
    except OSError as error:
        raise web.HTTPConflict(text=f"'{path.name}' cannot be moved: {error}") from None
    return web.json_response({"to": moved.relative_to(Path(folder_paths.get_input_directory()).resolve()).as_posix()})
