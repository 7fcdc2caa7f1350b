"""What only a GPU can show, in at most 25 minutes: one table, benchmarks/gpu.json, and an exit code.

python benchmarks/gpu.py [--comfyui PATH [--comfyui-python PYTHON]] [--webui PATH [--webui-python PYTHON]] [--quick]

Each part runs in a process of its own, so that a failure or a full memory ends nothing but its part. The exit code is 1
where a promise of the README does not hold, or a part does not come to its end.

Without a GPU, to see whether the benchmark itself works: `--device cpu`, and `--pretend GIB` for a pretended CUDA
device; both with narrow models, into gpu-simulated.json, and with more time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpu_parts.finding import MARK, PROMISES, Finding, Options

HERE = Path(__file__).resolve().parent
AT_MOST = 25 * 60  # seconds for all
GRACE = 30  # seconds for a part to stop its server when its time is over
PATIENCE = 4  # times as long where it is simulated
PARTS = {  # in this order; seconds that each may take, of what is left for all
    "card": 120,
    "demo": 180,
    "shapes": 270,
    "repeat": 150,
    "full_memory": 120,
    "gradient": 120,
    "waits": 120,
    "comfyui": 390,
    "webui": 240,
}


@dataclass(frozen=True)
class Row:
    """A finding of a part, or why the part found nothing more."""

    part: str
    finding: Finding
    failed: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", default="", help="the folder of a ComfyUI to train and sample in")
    parser.add_argument("--comfyui-python", default="", help="its Python (default: this one)")
    parser.add_argument("--webui", default="", help="the folder of an AUTOMATIC1111, reForge or Forge")
    parser.add_argument("--webui-python", default="", help="its Python (default: this one)")
    parser.add_argument("--quick", action="store_true", help="fewer steps: a first look")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps, xpu or cpu (default: %(default)s)")
    parser.add_argument("--pretend", type=float, default=0.0, help="GiB of a pretended CUDA device")
    parser.add_argument("--out", type=Path, help="the file of figures (default: gpu.json beside this script)")
    a = parser.parse_args()
    small = a.pretend > 0 or a.device == "cpu"
    out = a.out or HERE / ("gpu-simulated.json" if small else "gpu.json")
    began, at_most, rows = time.monotonic(), AT_MOST * (PATIENCE if small else 1), []
    with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        hosts = {name: getattr(a, name) for name in ("comfyui", "comfyui_python", "webui", "webui_python")}
        options = Options(a.device, scratch, a.quick, small, a.pretend, **hosts)
        for part in dict.fromkeys(["card", *a.only]):
            for row in found(part, options, began + at_most - time.monotonic()):
                print(line(row), flush=True)
                rows.append(row)
            if part == "card" and rows[-1].failed:
                return 2  # there is no such device
    kept = verdicts(rows)
    print("\n" + told(kept))
    figures = {"simulated": small, "seconds": round(time.monotonic() - began), "promises": kept}
    out.write_text(json.dumps(figures | {"rows": [asdict(row) for row in rows]}, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten: {out}")
    return int(False in kept.values() or any(row.failed for row in rows))


def found(part: str, options: Options, left: float) -> Iterator[Row]:
    """Runs a part. left: seconds that all have left."""
    if part in ("comfyui", "webui") and (options.pretend or not getattr(options, part)):
        why = "nothing is pretended in a server" if options.pretend else f"no --{part} was given"
        yield Row(part, Finding("left out", {"why": why}))
        return
    limit = min(PARTS[part] * (PATIENCE if options.small else 1), left)
    command = [sys.executable, "-m", "gpu_parts", part, json.dumps(asdict(options))]
    complaints = Path(options.scratch) / f"{part}.err"
    with complaints.open("wb") as errors:
        process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=errors, text=True)
    late = threading.Event()
    alarm = threading.Timer(max(limit, 0), end, (process, late))
    alarm.start()
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith(MARK):
            yield Row(part, Finding(**json.loads(text.removeprefix(MARK))))
    code = process.wait()
    alarm.cancel()
    if late.is_set():
        yield Row(part, Finding("failed", {"said": f"no end within {limit:.0f} s"}), failed=True)
    elif code:
        said = complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        yield Row(part, Finding("failed", {"said": said[-1] if said else f"exit code {code}"}), failed=True)


def end(process: subprocess.Popen[str], late: threading.Event) -> None:
    """Ends a part, with the server that it may have started."""
    late.set()
    if os.name == "nt":
        tree = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(tree, capture_output=True, check=False)
        return
    process.terminate()  # the part stops its server
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def verdicts(rows: list[Row]) -> dict[str, bool | None]:
    """Of each promise whether it held wherever it was checked; None where it was not."""
    checks = [row.finding.promises for row in rows]
    found_of = {key: [held[key] for held in checks if key in held] for key in PROMISES}
    return {key: all(held) if held else None for key, held in found_of.items()}


def line(row: Row) -> str:
    """A row of a Markdown table, to be pasted into a report."""
    figures = ", ".join(f"{name}: {number(value)}" for name, value in row.finding.figures.items())
    broken = [PROMISES[key] for key, held in row.finding.promises.items() if not held]
    marks = "".join(f' **does not hold: "{promise}"**' for promise in broken)
    return f"| {row.part} | {row.finding.case} | {figures}{marks} |".replace("\n", " ")


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def told(kept: dict[str, bool | None]) -> str:
    words = {True: "holds", False: "DOES NOT HOLD", None: "not checked"}
    return "Promises of the README:\n" + "\n".join(f'{words[held]}: "{PROMISES[key]}"' for key, held in kept.items())


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    sys.exit(main())
