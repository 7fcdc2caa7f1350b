"""Learns every concept of a folder with the same settings, for scoring.

python benchmarks/concepts.py --model MODEL --concepts FOLDER --out WORDS [--steps N] [--lr X] [--batch-size B] ...

FOLDER holds one folder a concept: its pictures, and concept.json with "init_word" or "init". Prints, for each, the
seconds of learning and the noise-free loss before and after.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures
from ti_train.events import Step
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.training.config import PRESETS, TrainConfig
from ti_train.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--concepts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of concepts (default: all)")
    parser.add_argument("--preset", default="Balanced", choices=PRESETS)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--dtype", default="auto")
    a = parser.parse_args()
    host = DiffusersHost.load(a.model, dtype=a.dtype)
    total = time.perf_counter()
    for folder in sorted(path.parent for path in a.concepts.glob("*/concept.json")):
        if a.only and folder.name not in a.only:
            continue
        truth = json.loads((folder / "concept.json").read_text())
        config = TrainConfig.from_preset(
            a.preset,
            name=folder.name,
            init=truth.get("init_word") or truth["init"],
            templates=truth.get("kind", "object"),
            steps=a.steps,
            learning_rate=a.lr,
            batch_size=a.batch_size,
            resolution=a.resolution,
            seed=a.seed,
        )
        pictures = read_pictures(find_pictures(folder), config.resolution or host.resolution, [])
        steps = [e for e in train(host, encode_pictures(host, pictures), config, a.out) if isinstance(e, Step)]
        print(
            f"{folder.name:16s} {config.steps} x {config.effective_batch} passes, {steps[-1].seconds:6.1f} s, "
            f"validation loss {steps[0].validation_loss:.4f} -> {steps[-1].validation_loss:.4f}, "
            f"norm {steps[-1].norm:.2f}, "
            f"cosine to the initial word {steps[-1].cosine:.2f}",
            flush=True,
        )
    print(f"all, with saving and measuring: {time.perf_counter() - total:.1f} s, {host.device} {host.dtype}")


if __name__ == "__main__":
    main()
