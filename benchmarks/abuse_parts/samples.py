"""Valid files of every kind that a user hands over, to be mutated."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from sample_files import samples

from ti_train.embedding import Embedding
from ti_train.events import Step
from ti_train.training.checkpoint import RunFiles
from ti_train.training.keeping import Course
from ti_train.training.state import State
from ti_train.training.step_log import StepLog

IMAGES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32")
IDENTITY = {"seed": 0, "learning_rate": 5e-3, "model": "abc", "pictures": "xyz"}
VECTORS = torch.arange(8, dtype=torch.float32).view(2, 4) / 8


def embeddings() -> list[tuple[str, bytes]]:
    """Of every layout, as the tools that own them write them."""
    return [(f"x.{sample.ending}", sample.data) for sample in samples().values()]


def checkpoint() -> bytes:
    """The header of a small Stable Diffusion 1, with the names that tell what it is."""
    unet, text = "model.diffusion_model.", "cond_stage_model.transformer.text_model."
    shapes = {
        unet + "input_blocks.0.0.weight": (4, 4, 1, 1),
        unet + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (1, 768),
        "first_stage_model.encoder.conv_in.weight": (1, 3, 1, 1),
        text + "embeddings.token_embedding.weight": (2, 768),
    }
    return bytes(save({name: torch.zeros(shape) for name, shape in shapes.items()}, {"modelspec.title": "x"}))


def image(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((48, 40)).convert(mode).save(file, kind)
    return file.getvalue()


def texts(text: str) -> list[bytes]:
    return [text.encode(encoding) for encoding in ENCODINGS]


def jsonl() -> bytes:
    rows = [{"file_name": "a.png", "text": "a toy"}, {"file_name": "b.png", "text": "naïve 😀"}]
    return "\n".join(map(json.dumps, rows)).encode()


def tables() -> list[bytes]:
    return [b'file_name,text\na.png,"a red, toy"\nb.png,x\n', "file_name;text\r\na.png;rot\r\n".encode("utf-16")]


def state(folder: Path) -> bytes:
    optimizer = {"0.exp_avg": VECTORS / 3, "0.step": torch.tensor(7.0)}
    vectors = {"clip_l": VECTORS}
    course = Course().after(0, [1.0, 2.0, 3.0], vectors).after(7, [0.5, 1.0, 2.0], vectors)
    run = State(7, 1.5, vectors, {"clip_l": VECTORS * 2}, optimizer, course=course)
    files = RunFiles(folder / "of a run", "cat", IDENTITY)
    files.save(run, Embedding("cat", vectors))
    return taken(files.state)


def log(folder: Path) -> bytes:
    written: dict[str, Any] = {"learning_rate": 0.005, "norm": 0.4, "cosine": 0.9, "seconds": 1.0}
    table = StepLog(folder / "of a run" / "x.csv")
    for number in range(3):
        table.add(Step(number, 0.5, 0.25, **written))
    table.close()
    return taken(folder / "of a run" / "x.csv")


def taken(file: Path) -> bytes:
    """The content of a file, whose folder is removed."""
    data = file.read_bytes()
    for path in file.parent.iterdir():
        path.unlink()
    file.parent.rmdir()
    return data
