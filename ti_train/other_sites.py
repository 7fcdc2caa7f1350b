"""Which requests a browser sends to a server for a page of another site."""

from __future__ import annotations

from collections.abc import Mapping

REFUSED = "This request is from a page of another site. Use the server's own page, or send it as application/json."


def from_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site may have sent a request without the server's leave. headers: of any letter case.

    A browser sends a form, text, or a body of no type without asking the server first; JSON, or with ComfyUI's header,
    only if the server has allowed it (CORS). What is no browser, such as a script, names no origin.
    """
    origin, kind = headers.get("Origin"), headers.get("Content-Type", "").partition(";")[0]
    foreign = origin is not None and origin.rpartition("/")[2].lower() != headers.get("Host", "").lower()
    asked_first = kind.strip().lower() == "application/json" or "Comfy-User" in headers
    return (foreign or headers.get("Sec-Fetch-Site") == "cross-site") and not asked_first
