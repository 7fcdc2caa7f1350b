"""Runs one part of gpu.py: `python -m gpu_parts PART OPTIONS` prints its findings as they come, one a line."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from .finding import MARK, Options

ROOT = Path(__file__).resolve().parents[2]


def main(part: str, given: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # as an exception, so that a server is stopped
    options = Options(**json.loads(given))
    sys.path.insert(0, str(ROOT))
    if options.pretend:  # before anything asks whether there is a CUDA device
        sys.path.insert(0, str(ROOT / "tests"))
        from devices.pretend_cuda import install

        install(gib=options.pretend)
    for finding in import_module(f"{__package__}.{part}").measure(options):
        print(MARK + json.dumps(asdict(finding)), flush=True)


main(*sys.argv[1:])
