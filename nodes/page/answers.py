"""Answers that are sent to all who ask for the same within a second, so that many clients cost what one does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from time import monotonic

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]
SECONDS = 1.0  # least time between two answers to the same question
kept: dict[str, tuple[float, asyncio.Task[web.Response]]] = {}  # by path and query, since when; oldest first


def kept_for_a_second(handler: Handler) -> Handler:
    """A route that reads. Who sends Cache-Control, as ComfyUI's page does, gets an answer of its own."""

    @wraps(handler)
    async def route(request: web.Request) -> web.Response:
        asked, now = request.path_qs, monotonic()
        for old in [path for path, (since, _) in kept.items() if now - since >= SECONDS]:
            del kept[old]
        if asked not in kept or "Cache-Control" in request.headers:
            kept[asked] = now, asyncio.create_task(answered(handler, request))
        answer = await asyncio.shield(kept[asked][1])  # others may wait for it if this client leaves
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)  # one is sent once only

    return route


async def answered(handler: Handler, request: web.Request) -> web.Response:
    """Also what the handler raises as an answer."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return web.Response(status=refusal.status, body=refusal.body, headers=refusal.headers)
