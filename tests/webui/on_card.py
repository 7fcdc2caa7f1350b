"""Starts a WebUI on a pretended CUDA device. usage: on_card.py GIB .../launch.py FLAGS..."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from devices.pretend_cuda import install, reason_against  # noqa: E402 - before the WebUI asks for a device

if __name__ == "__main__":
    if against := reason_against():
        sys.exit(against)
    install(gib=float(sys.argv[1]))
    sys.argv = sys.argv[2:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
