"""HTTP routes for ComfyUI's page: training runs, embeddings, and the images of a folder in the input directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from server import PromptServer

from ...ti_train.data import captions
from ...ti_train.data.image_files import SUFFIXES
from ...ti_train.data.listing import Listing
from ...ti_train.data.removal import move_to_removed
from ...ti_train.embedding import step_in
from ...ti_train.errors import UserError
from ...ti_train.formats import put_preview, save_embedding
from ...ti_train.names import bare_name
from ...ti_train.other_sites import REFUSED, from_another_site
from ...ti_train.text import json_value, listed, printable
from ...ti_train.training.config import OPTIONS
from ..files import embeddings_folder, free_name
from ..training_images import folder_named, input_folder, inside_input
from . import embeddings
from .answers import Handler, kept, shared
from .clients import pages
from .folder_view import UNREADABLE, describe_folder, has_no_files, scaled_down
from .live import LiveRun, runs
from .records import Record, find, records

LONGEST_CAPTION = 10_000  # characters
SUMMARY = ("id", "name", "status", "step", "steps", "began", "best", "settings")  # of a past run
Answer = TypeVar("Answer")


def register() -> None:
    """Adds the routes to ComfyUI's server, if it runs."""
    server: Any = getattr(PromptServer, "instance", None)
    if server is None:
        return
    routes = server.routes

    def get(path: str, handler: Handler) -> None:
        routes.get(path)(shared(handler))

    def post(path: str, handler: Handler) -> None:
        routes.post(path)(of_this_site(handler))

    get("/ti_train/runs", list_runs)
    routes.get("/ti_train/runs/{run}")(one_run)
    routes.get("/ti_train/runs/{run}/previews/{number}")(preview)
    post("/ti_train/runs/{run}/previews/{number}/keep", keep_step)
    post("/ti_train/runs/{run}/stop", stop_and_keep)
    post("/ti_train/page", note_page)
    get("/ti_train/records", list_records)
    get("/ti_train/embeddings", list_embeddings)
    post("/ti_train/embeddings/rename", rename_embedding)
    post("/ti_train/embeddings/remove", remove_embedding)
    get("/ti_train/pictures", list_pictures)
    routes.get("/ti_train/thumbnail")(shared(thumbnail, waits=False))
    post("/ti_train/caption", write_caption)
    post("/ti_train/table", write_table)
    post("/ti_train/remove", remove_picture)


def of_this_site(handler: Handler) -> Handler:
    """A route that changes something, closed to pages of other sites. ComfyUI's own check is for loopback addresses."""

    @wraps(handler)
    async def route(request: web.Request) -> web.Response:
        if from_another_site(request.headers):
            raise web.HTTPForbidden(text=REFUSED)
        try:
            return await handler(request)
        except web.RequestPayloadError as error:  # it is not packed as its Content-Encoding says
            raise web.HTTPBadRequest(text=printable(f"What was sent cannot be read ({error}).")) from None
        finally:
            kept.clear()

    return route


async def list_runs(_: web.Request) -> web.Response:
    return web.json_response([run.snapshot() for run in list(runs)])


def asked_for(request: web.Request) -> LiveRun:
    run = next((run for run in list(runs) if run.id == request.match_info["run"]), None)
    if run is None:
        raise web.HTTPNotFound(text="This training run is no longer listed.")
    return run


async def sent(request: web.Request, **types: type) -> Mapping[str, Any]:
    """The JSON object that the page sent, with fields of these types. Raises HTTPBadRequest for any other."""
    return fields(decoded(await request.read()), types)


def decoded(text: str | bytes) -> Any:
    try:
        return json_value(text)
    except ValueError as error:
        raise web.HTTPBadRequest(text=printable(f"What was sent is not JSON ({error}).")) from None


def fields(asked: Any, types: Mapping[str, type]) -> Mapping[str, Any]:
    """Raises HTTPBadRequest unless it is an object, or a form, with fields of these types."""
    if not isinstance(asked, Mapping):
        raise web.HTTPBadRequest(text="What was sent is not an object.")
    if lacking := [f"'{name}'" for name, kind in types.items() if not isinstance(asked.get(name), kind)]:
        raise web.HTTPBadRequest(text=printable(f"What was sent has no {listed(lacking)} of the right type."))
    return asked


async def form_of(request: web.Request) -> Mapping[str, Any]:
    """Raises HTTPBadRequest for a form that cannot be read."""
    try:
        return await request.post()
    except (ValueError, LookupError) as error:  # no boundary, an unknown encoding
        raise web.HTTPBadRequest(text=printable(f"What was sent is not a form ({error}).")) from None


async def note_page(request: web.Request) -> web.Response:
    """Notes the client id of a page that shows runs by their events, and needs no progress text."""
    client = (await sent(request, client=str))["client"]
    pages.intersection_update(PromptServer.instance.sockets)
    if client in PromptServer.instance.sockets:
        pages.add(client)
    return web.json_response({})


async def list_records(_: web.Request) -> web.Response:
    """The past runs, newest first, without their curves and previews."""

    def summaries() -> list[dict[str, Any]]:
        return [{key: run.get(key) for key in SUMMARY} for record in records() if (run := record.read())]

    return web.json_response(await asyncio.to_thread(summaries))


def record_of(request: web.Request) -> Record:
    record = find(request.match_info["run"])
    if record is None:
        raise web.HTTPNotFound(text="This training run is no longer recorded.")
    return record


async def one_run(request: web.Request) -> web.Response:
    """A past run as it was last recorded: a snapshot."""
    return web.json_response(await asyncio.to_thread(record_of(request).read))


def preview_number(request: web.Request) -> int:
    number = request.match_info["number"]
    if not (number.isdecimal() and len(number) < 10):
        raise web.HTTPNotFound(text="There is no such preview.")
    return int(number)


async def preview(request: web.Request) -> web.Response:
    number, small = preview_number(request), request.query.get("small") == "1"
    try:
        picture = await asyncio.to_thread(record_of(request).preview, number, small)
    except UNREADABLE:
        picture = None
    if picture is None:
        raise web.HTTPNotFound(text="This preview is no longer kept.")
    return web.Response(body=picture, content_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


async def keep_step(request: web.Request) -> web.Response:
    """Saves the embedding that a preview shows, under a name of its own."""
    record, number = record_of(request), preview_number(request)

    def keep() -> dict[str, Any]:
        embedding, folder, run = record.embedding(number), embeddings_folder(), record.read()
        if embedding is None or not run:
            raise web.HTTPNotFound(text="The embedding of this preview is no longer kept.")
        step = step_in(embedding.provenance) or 0
        name = free_name(folder, f"{run['name']}-step{step}")
        file = folder / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_embedding(replace(embedding, name=bare_name(name)), file)
        put_preview(file, record.image(number))
        return {"name": name, "step": step}

    return web.json_response(await on_disk(keep))


async def on_disk(act: Callable[[], Answer]) -> Answer:
    """The answer of a function that changes files, which runs in a thread. Raises HTTPConflict for its errors."""
    try:
        return await asyncio.to_thread(act)
    except (UserError, OSError) as error:
        raise web.HTTPConflict(text=str(error)) from None


async def list_embeddings(_: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(embeddings.listed))


async def rename_embedding(request: web.Request) -> web.Response:
    asked = await sent(request, file=str, name=str)
    return web.json_response({"file": await on_disk(lambda: embeddings.rename(asked["file"], asked["name"]))})


async def remove_embedding(request: web.Request) -> web.Response:
    asked = await sent(request, file=str)
    return web.json_response({"to": await on_disk(lambda: embeddings.remove(asked["file"]))})


async def stop_and_keep(request: web.Request) -> web.Response:
    run = asked_for(request)
    run.stop.set()
    run.send("stopping", {})
    return web.json_response({})


async def list_pictures(request: web.Request) -> web.Response:
    """The images of a folder as training uses them; `error` explains why there are none."""
    query = request.query
    resolution = resolution_of(query.get("resolution") or "0")
    subfolders, square = query.get("subfolders") == "1", query.get("square") == "1"
    try:
        described = await asyncio.to_thread(describe_folder, query.get("folder", ""), subfolders, resolution, square)
    except UserError as error:
        why = "" if has_no_files(query.get("folder", "")) else str(error)  # the page says what to do
        return web.json_response({"pictures": [], "side": 0, "error": why})
    return web.json_response(described)


def resolution_of(written: str) -> int:
    """Pixels; 0: the model's own. Raises HTTPBadRequest for what Training Options do not take."""
    if not (written.isdecimal() and len(written) < 10):
        raise web.HTTPBadRequest(text=printable(f"resolution is '{written[:20]}'; it must be a number of pixels."))
    try:
        OPTIONS["resolution"].check(int(written))
    except UserError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    return int(written)


def picture_file(name: str) -> Path:
    """An image in the input directory, by the name that the page sent. Raises HTTPNotFound."""
    try:
        path = inside_input(name)
    except UserError as error:
        raise web.HTTPNotFound(text=str(error)) from None
    if path.suffix.lower() not in SUFFIXES or not os.path.isfile(path):  # False too for what no name can be
        raise web.HTTPNotFound(text=printable(f"There is no image '{name}' in ComfyUI's input directory."))
    return path


async def thumbnail(request: web.Request) -> web.Response:
    path = picture_file(request.query.get("file", ""))
    try:
        body = await asyncio.to_thread(scaled_down, path)
    except UNREADABLE:
        raise web.HTTPNotFound(text=printable(f"'{path.name}' cannot be read.")) from None
    return web.Response(body=body, content_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


async def write_caption(request: web.Request) -> web.Response:
    """Writes the caption file of an image; an empty caption removes it."""
    asked = await sent(request, file=str, text=str)
    picture, text = picture_file(asked["file"]), asked["text"].strip()[:LONGEST_CAPTION]
    return web.json_response({"caption": await on_disk(lambda: captions.write_caption(picture, text))})


async def write_table(request: web.Request) -> web.Response:
    """Writes the entries of a table of captions beside images: those given by path in the table, or the folder's."""
    asked = fields(await form_of(request), {"table": web.FileField, "images": str, "folder": str})
    table, images = asked["table"], fields(decoded(asked["images"]), {})
    given = {path: picture_file(file) for path, file in fields(images, dict.fromkeys(images, str)).items()}

    def write() -> list[str]:
        there = Listing.of(folder_named(asked["folder"])).images
        return captions.write_table(table.filename, table.file.read(), given or {path.name: path for path in there})

    return web.json_response({"remarks": await on_disk(write)})


async def remove_picture(request: web.Request) -> web.Response:
    """Moves an image to `removed/`, which is not trained on; returns its new path in the input directory."""
    path = picture_file((await sent(request, file=str))["file"])
    moved = await on_disk(lambda: move_to_removed(path))
    return web.json_response({"to": moved.relative_to(input_folder()).as_posix()})
