"""What the server sends to its clients: events to pages with this pack's scripts, and the host's text to others."""

from __future__ import annotations

from typing import Any

from server import PromptServer

pages: set[str] = set()  # the ids of clients that handle this pack's events


def send(event: str, data: dict[str, Any]) -> None:
    """To all clients; those without this pack's scripts ignore it."""
    server: Any = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_sync(f"ti_train.{event}", data)


def send_text(text: str, node: str) -> None:
    """Sends a node's progress text to the client whose prompt is executed, if it does not handle this pack's events.

    Pages do, and would show the text in whichever workflow is open, on its node of the same id. The text of a prompt
    without a client would go to all of them.
    """
    server: Any = getattr(PromptServer, "instance", None)
    client = server.client_id if server is not None else None
    if client is not None and client not in pages:
        server.send_progress_text(text, node, client)
