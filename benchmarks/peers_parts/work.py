"""Counts the floating-point operations of a step, and measures the most that the device reaches.

python -m benchmarks.peers_parts.work MODEL PIXELS BATCH DTYPE SCRATCH
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu_parts.accelerator import matmul_rate  # noqa: E402
from gpu_parts.runs import noise_pictures, step_flops  # noqa: E402

from ti_train.data.dataset import encode_pictures  # noqa: E402
from ti_train.hosts.diffusers.host import DiffusersHost  # noqa: E402


def main(model: Path, pixels: int, batch: int, dtype: str, scratch: Path) -> None:
    """Prints TFLOP of a step of ours and TFLOP/s of large matrix products, as JSON."""
    host = DiffusersHost.load(model, "auto", dtype)
    dataset = encode_pictures(host, noise_pictures(pixels))
    flops = step_flops(host, dataset, scratch, batch_size=batch)
    print(json.dumps([flops / 1e12, matmul_rate(host.device, host.dtype, 8192) / 1e12]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
