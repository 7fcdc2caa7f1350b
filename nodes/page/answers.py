"""Answers for clients that poll: who asks for the same within a second shares one, and waits for it in a training."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from time import monotonic

from aiohttp import web

from ...ti_train.polling import Turns
from .live import runs

Handler = Callable[[web.Request], Awaitable[web.Response]]
SECONDS = 1.0  # least time between two answers to the same question
REQUEST = 0.0013  # seconds of a processor for a request on a busy machine; see docs/reliability.md
SPARE = 10.0  # seconds whose turns may be taken at once
turns = Turns(-SPARE)
kept: dict[str, tuple[float, asyncio.Task[web.Response]]] = {}  # by path and query, since when; oldest first


def shared(handler: Handler, waits: bool = True) -> Handler:
    """A route that reads. Who sends Cache-Control, as ComfyUI's page does, gets an answer of its own, at once.

    waits: False for pictures, which a page's elements ask for, without that header: they take their turns at once.
    """

    @wraps(handler)
    async def route(request: web.Request) -> web.Response:
        fresh = "Cache-Control" in request.headers
        if not fresh and any(run.status == "running" for run in list(runs)):
            turn = turns.next(REQUEST)
            await asyncio.sleep(turn if waits else 0)
        asked, now = request.path_qs, monotonic()
        for old in [path for path, (since, _) in kept.items() if now - since >= SECONDS]:
            del kept[old]
        if fresh or asked not in kept:
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
