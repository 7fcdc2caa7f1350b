"""Remarks on nodes without a panel of their own, also on those that encode prompts: in the log and on the node."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from comfy_execution.utils import get_executing_context

from ..ti_train.text import Remarks
from .page.clients import send, send_text

log = logging.getLogger("ti_train")
shown: dict[tuple[str, str], list[str]] = {}  # (prompt, node) -> its remarks, of the prompt that is executed


def show(remarks: Sequence[str]) -> None:
    """Shows remarks on the node that is being executed, each once in the run of a prompt."""
    executing = get_executing_context()
    place = (executing.prompt_id, executing.node_id) if executing else None
    before = shown.get(place, []) if place else []
    new = [remark for remark in Remarks(dict.fromkeys(remarks)) if remark not in before]
    for remark in new:
        log.warning(remark)
    if place is None or not new:
        return
    prompt, node = place
    for ended in [other for other in shown if other[0] != prompt]:
        del shown[ended]
    shown[place] = [*before, *new]
    send("remarks", {"prompt_id": prompt, "node": node, "remarks": shown[place]})
    send_text("\n".join(shown[place]), node)
