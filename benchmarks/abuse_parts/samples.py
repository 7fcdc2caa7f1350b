"""Valid files of every kind that a user hands over, to be mutated."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image
from safetensors.torch import save
from sample_files import samples, torch_saved

from ti_train.embedding import Embedding
from ti_train.events import Step
from ti_train.training.checkpoint import RunFiles
from ti_train.training.keeping import Course
from ti_train.training.state import State
from ti_train.training.step_log import StepLog

ENCODINGS = (
    *("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
    *("cp1252", "shift_jis", "gb18030"),
)
ENDINGS = {
    **{".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".gif": "GIF"},
    **{".bmp": "BMP", ".tiff": "TIFF", ".avif": "AVIF"},
}
SHADES = Image.linear_gradient("L").resize((48, 40))
IDENTITY = {"seed": 0, "learning_rate": 5e-3, "model": "abc", "pictures": "xyz"}
VECTORS = torch.arange(8, dtype=torch.float32).view(2, 4) / 8


class MakesAFile:
    """A program in a pickle that leaves a file called 'evil' where it is run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("evil", "w")


def embeddings() -> list[tuple[str, bytes]]:
    """Of every layout, as the tools that own them write them; the last two have a program in them."""
    found = [(f"x.{sample.ending}", sample.data) for sample in samples().values()]
    evil = {"string_to_param": {"*": torch.ones(1, 4)}, "step": MakesAFile()}
    return [*found, ("x.pt", torch_saved(evil)), ("x.pt", torch_saved(evil, legacy=True))]


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


def image(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    SHADES.convert(mode).save(file, kind, **options)
    return file.getvalue()


def images() -> list[tuple[str, bytes]]:
    """Of every kind that this Pillow can write, as (ending, data): colours, depths, frames, EXIF, compressions."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.ImageDescription] = 6, "a toy"
    frames = {"save_all": True, "append_images": [SHADES.convert("RGB").rotate(90)]}
    kinds: list[tuple[str, str, str, dict[str, Any]]] = [
        *((ending, kind, "RGB", {}) for ending, kind in ENDINGS.items()),
        *((ending, ENDINGS[ending], "RGB", {"exif": exif}) for ending in (".png", ".jpg", ".webp", ".tiff", ".avif")),
        *((ending, ENDINGS[ending], "RGB", frames) for ending in (".png", ".gif", ".webp", ".tiff", ".avif")),
        *((".tiff", "TIFF", "RGB", {"compression": f"tiff_{each}"}) for each in ("lzw", "adobe_deflate")),
        *((".tiff", "TIFF", "RGB", {"compression": each}) for each in ("jpeg", "packbits", "zstd")),
        (".tiff", "TIFF", "1", {"compression": "group4"}),
        (".jpg", "MPO", "RGB", frames),
        (".jpg", "JPEG", "CMYK", {}),
        (".webp", "WEBP", "RGBA", {"lossless": True}),
        (".png", "PNG", "I;16", {}),
        (".png", "PNG", "P", {"transparency": 3}),
        (".png", "PNG", "LA", {}),
        (".gif", "GIF", "P", {"transparency": 3, **frames}),
        (".bmp", "BMP", "P", {}),
        (".tiff", "TIFF", "F", {}),
        (".tiff", "TIFF", "I;16", {}),
    ]
    found = []
    for ending, *how, options in kinds:
        with suppress(KeyError, OSError, ValueError, RuntimeError):  # what this Pillow cannot write
            found.append((ending, image(*how, **options)))
    return found


def texts(text: str) -> list[bytes]:
    """In every encoding; what it lacks is a question mark."""
    return [text.encode(encoding, "replace") for encoding in ENCODINGS]


def tables() -> list[tuple[str, bytes]]:
    """Of captions."""
    rows = [{"file_name": "a.png", "text": "a toy"}, {"file_name": "b.png", "text": "naïve 😀"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    found = [("metadata.jsonl", lines.encode(encoding)) for encoding in ("utf-8", "utf-8-sig", "utf-16-be", "utf-32")]
    found += [("metadata.jsonl", "\n".join(map(json.dumps, rows)).encode())]
    found += [("metadata.csv", b'file_name,text\na.png,"a red, toy"\nb.png,x\n')]
    found += [("metadata.csv", table) for table in texts("file_name;text\r\na.png;naïve 猫\r\n")]
    return found


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
