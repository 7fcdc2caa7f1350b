"""Remarks of nodes without a panel of their own: in the log, and as the host's text on the node."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from comfy_execution.utils import get_executing_context
from server import PromptServer

log = logging.getLogger("ti_train")


def show(remarks: Sequence[str]) -> None:
    """Shows remarks on the node that is being executed."""
    for remark in remarks:
        log.warning(remark)
    server: Any = getattr(PromptServer, "instance", None)
    executing = get_executing_context()
    if remarks and server is not None and executing:
        server.send_progress_text("\n".join(remarks), executing.node_id, server.client_id)
