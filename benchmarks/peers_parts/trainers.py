"""The trainers: the command that each needs for the same work, and why it cannot do some of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .cases import INIT, ROOT, Case

NEVER = 10**6
WORD = "<word>"
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # the name that accelerate has for them
WRAPPER = ROOT / "benchmarks/quality_parts/run_diffusers.py"  # for a VAE without a posterior
CLIP_NAMES = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")


@dataclass(frozen=True)
class Trainer:
    """command: of a run that writes into a folder. lacking: why it cannot do this case, or an empty text."""

    name: str
    python: str
    folder: Path  # to start in
    command: Callable[[Case, Path], list[str]]
    lacking: Callable[[Case], str] = lambda _case: ""


def trainers(diffusers: Path | None, kohya: Path | None, kohya_python: str | None) -> Mapping[str, Trainer]:
    """Ours, and those whose source is there."""
    found = [Trainer("ti-train", sys.executable, ROOT, ours)]
    if diffusers:
        scripts = diffusers / "examples/textual_inversion"
        found.append(Trainer("diffusers", sys.executable, scripts, lambda case, out: theirs(scripts, case, out)))
    if kohya:
        python = kohya_python or sys.executable
        found.append(Trainer("kohya", python, kohya, lambda case, out: kohyas(kohya, case, out), only_true_shapes))
    return {trainer.name: trainer for trainer in found}


def only_true_shapes(case: Case) -> str:
    if not case.is_original_shape:
        return "its U-Net has the widths of Stable Diffusion 1 and XL built in"
    return "" if case.has_posterior else "it loads no such autoencoder"


def arguments(given: Mapping[str, object]) -> list[str]:
    """--name value; a switch where the value is True."""
    return [word for name, value in given.items() for word in (f"--{name}", *([] if value is True else [str(value)]))]


def ours(case: Case, out: Path) -> list[str]:
    """All as by default, so with the validations that belong to a run."""
    given = {
        "model": case.model, "images": case.images, "name": "word", "init": INIT, "out": out, "steps": case.steps,
        "batch-size": case.batch, "resolution": case.pixels, "dtype": case.dtype, "device": case.device,
    }  # fmt: skip
    return ["-m", "ti_train", "train", *arguments(given)]


def theirs(scripts: Path, case: Case, out: Path) -> list[str]:
    given = {
        "pretrained_model_name_or_path": case.model, "train_data_dir": case.images, "output_dir": out,
        "placeholder_token": WORD, "initializer_token": INIT, "learnable_property": "object",
        "resolution": case.pixels, "train_batch_size": case.batch, "max_train_steps": case.steps,
        "mixed_precision": PRECISIONS[case.dtype], "learning_rate": 5e-3, "lr_scheduler": "constant", "seed": 0,
        "save_steps": NEVER, "checkpointing_steps": NEVER,
    }  # fmt: skip
    script = scripts / ("textual_inversion_sdxl.py" if case.is_sdxl else "textual_inversion.py")
    return [*([] if case.has_posterior else [str(WRAPPER)]), str(script), *arguments(given)]


def kohyas(source: Path, case: Case, out: Path) -> list[str]:
    """With cached latents and PyTorch's attention, which it does not have by default and which make it faster."""
    images = out / "images"  # a folder in it says how often its images are repeated in an epoch
    shutil.copytree(case.images, images / f"{1 + case.steps * case.batch // 5}_object")
    for name, part in zip(CLIP_NAMES, ("tokenizer", "tokenizer_2"), strict=True):
        if (case.model / part).is_dir():
            shutil.copytree(case.model / part, out / "tokenizers" / name)
    given = {
        "pretrained_model_name_or_path": case.model, "train_data_dir": images, "output_dir": out, "output_name": "word",
        "tokenizer_cache_dir": out / "tokenizers", "token_string": WORD, "init_word": INIT, "use_object_template": True,
        "resolution": case.pixels, "train_batch_size": case.batch, "max_train_steps": case.steps,
        "mixed_precision": PRECISIONS[case.dtype], "learning_rate": 5e-3, "seed": 0, "save_model_as": "safetensors",
        "cache_latents": True, "sdpa": True, "max_data_loader_n_workers": 0,
    }  # fmt: skip
    script = source / ("sdxl_train_textual_inversion.py" if case.is_sdxl else "train_textual_inversion.py")
    return [str(script), *arguments(given)]
