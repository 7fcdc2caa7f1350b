"""What a folder of many pictures costs: the time to encode it, and a step's time and the memory afterwards.

python benchmarks/pictures.py [--counts 5 50 500]

Each count runs in a process of its own, on the embedded model, with square pictures of noise, so that every step is one
pass. The peak memory is the process's: libraries, model and encoding included.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures  # noqa: E402
from ti_train.events import Step  # noqa: E402
from ti_train.hosts.diffusers.host import DiffusersHost  # noqa: E402
from ti_train.training.config import TrainConfig  # noqa: E402
from ti_train.training.loop import train  # noqa: E402

SIDE = 1024  # pixels, as they come from a camera or a generator


def measure(count: int, steps: int) -> None:
    host = DiffusersHost.load(ROOT / "demo" / "model")
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            noise = Image.fromarray(draw.integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8))
            noise.resize((SIDE, SIDE)).save(Path(folder) / f"{i:03d}.jpg")
        began = time.perf_counter()
        dataset = encode_pictures(host, read_pictures(find_pictures(Path(folder)), host.resolution, []))
        encoding = time.perf_counter() - began
        config = TrainConfig(name="word", init="photo", steps=steps, batch_size=4, evaluate_every=steps)
        times = [e.seconds for e in train(host, dataset, config, Path(folder) / "out") if isinstance(e, Step)]
    step = statistics.median(later - earlier for earlier, later in pairwise(times[3:]))
    tensors = [t for p in dataset.pictures for t in (p.mean, p.log_variance, p.weights) if t is not None]
    kept = sum(t.numel() * t.element_size() for t in tensors) / count / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {count} | {encoding:.1f} s | {1000 * step:.0f} ms | {kept:.0f} KiB | {peak:.2f} GiB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 50, 500])
    parser.add_argument("--steps", type=int, default=60)
    a = parser.parse_args()
    if len(a.counts) == 1:
        measure(a.counts[0], a.steps)
        return
    print(f"torch {torch.__version__}\n| pictures | read and encoded in | a step | kept a picture | peak memory |")
    print("|---|---|---|---|---|", flush=True)
    for count in a.counts:
        subprocess.run([sys.executable, __file__, "--counts", str(count), "--steps", str(a.steps)], check=True)


if __name__ == "__main__":
    main()
