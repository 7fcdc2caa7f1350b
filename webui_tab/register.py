"""What the WebUI is given: the API."""

from __future__ import annotations


def register() -> None: ...
