"""Draws a model of a family's true shape with random weights, float32, as a folder in diffusers' layout.

python -m benchmarks.peers_parts.true_models FAMILY FOLDER
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu_parts.random_models import PARTS, PIPELINES, drawn  # noqa: E402

from ti_train.hosts.diffusers.checkpoint_file import CONFIGS  # noqa: E402
from ti_train.hosts.diffusers.loading import clip_tokenizer, options_of  # noqa: E402


def write(family: str, folder: Path) -> None:
    """With CLIP's own vocabulary, from the package open_clip."""
    import diffusers

    torch.manual_seed(0)
    kind, source, cpu = PIPELINES[family], CONFIGS / family, torch.device("cpu")
    parts: dict[str, Any] = {
        part: drawn(source / part, getattr(import_module(library), name), {}, cpu, torch.float32)
        for part, (library, name) in PARTS[family].items()
    }
    parts |= {place.name: clip_tokenizer(place) for place in sorted(source.glob("tokenizer*"))}
    parts["scheduler"] = diffusers.DDIMScheduler.from_pretrained(source / "scheduler")
    without = options_of(kind) | ({"feature_extractor": None} if family == "sd15" else {})
    getattr(diffusers, kind)(**parts, **without).save_pretrained(folder)
    for place in folder.glob("tokenizer*"):
        write_vocabulary(place)


def write_vocabulary(folder: Path) -> None:
    """Beside tokenizer.json the two older files, which original models have and transformers 4 reads."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
