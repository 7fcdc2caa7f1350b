"""Loading a Stable Diffusion pipeline from a folder in diffusers' layout, or from a checkpoint file.

Files are loaded by diffusers' single-file loader. The configuration that it would download is in configs/; CLIP's
vocabulary is taken from the open_clip package.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError

from ...device import is_out_of_memory
from ...errors import UserError
from ..spelling import BYTES, END_OF_WORD
from .checkpoint_file import FAMILIES, WANTED, Checkpoint

PREDICTIONS = ("epsilon", "v_prediction")
ONE_ENCODER = ("unet", "text_encoder", "tokenizer", "vae", "scheduler")
PARTS = {
    "StableDiffusionPipeline": ONE_ENCODER,
    "StableDiffusionXLPipeline": (*ONE_ENCODER, "text_encoder_2", "tokenizer_2"),
}
FAILURES = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)  # that the libraries raise for damaged files
START, END = "<|startoftext|>", "<|endoftext|>"


def load_pipeline(path: Path, prediction: str | None = None) -> Any:
    """The pipeline of a folder or file. prediction: one of PREDICTIONS, overriding the model's. Raises UserError."""
    if path.is_file():
        return load_file(path, prediction)
    pipeline = load_folder(path)
    if prediction:
        change_scheduler(pipeline, prediction_type=prediction)
    kind = pipeline.scheduler.config.get("prediction_type")
    if kind not in PREDICTIONS or not hasattr(pipeline.scheduler, "alphas_cumprod"):
        raise UserError(
            f"The model's scheduler, {type(pipeline.scheduler).__name__}, predicts '{kind}'; "
            f"supported are {', '.join(PREDICTIONS)} with a table of noise levels."
        )
    return pipeline


def load_folder(folder: Path) -> Any:
    kind, variant = check_folder(folder), variant_of(folder)
    try:
        with quiet_libraries():
            import diffusers  # takes seconds, so only after the checks

            without = {"safety_checker": None, "requires_safety_checker": False}
            options = without if kind == "StableDiffusionPipeline" else {"add_watermarker": False}
            return getattr(diffusers, kind).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, variant=variant, **options
            )
    except FAILURES as error:
        raise unreadable(f"The model folder '{folder}'", error) from error


def check_folder(folder: Path) -> str:
    """The name of a folder's pipeline class. Raises UserError if it is not a Stable Diffusion folder."""
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise UserError(f"'{folder}' does not exist. This needs {WANTED}.")
    if not index.is_file():
        raise UserError(f"'{folder}' is not a model folder: it has no model_index.json. This needs {WANTED}.")
    try:
        kind = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name"))
    except (ValueError, AttributeError, OSError) as error:
        raise UserError(f"'{index}' cannot be read ({error}). Copy the model folder again.") from None
    if kind not in PARTS:
        raise UserError(f"'{folder}' is a {kind}; supported are {' and '.join(PARTS)} (Stable Diffusion 1, 2 and XL).")
    missing = [part for part in PARTS[kind] if not (folder / part).is_dir()]
    if missing:
        raise UserError(f"The model folder '{folder}' lacks {', '.join(missing)}. Copy the model folder again.")
    code = next(folder.rglob("*.py"), None)
    if code:  # diffusers 0.28 runs it without asking, if model_index.json says so
        raise UserError(
            f"The model folder '{folder}' has Python code in it ('{code.relative_to(folder)}'). Loading could run it. "
            "Remove it, or use a folder without code: Stable Diffusion 1, 2 and XL need none."
        )
    return kind


def variant_of(folder: Path) -> str | None:
    """fp16 if the folder has only half-precision weights. Raises UserError if they are pickles."""
    for part in (*sorted(folder.glob("text_encoder*")), folder / "unet", folder / "vae"):
        names = [file.name for file in part.glob("*.safetensors")]
        if not names and list(part.glob("*.bin")):
            raise UserError(
                f"The model folder '{folder}' has its {part.name} as a pickle (.bin), which can run code when it is "
                "loaded, so it is not loaded. Use the model's .safetensors files."
            )
        if names and all(".fp16." in name for name in names):
            return "fp16"
    return None


def load_file(path: Path, prediction: str | None) -> Any:
    """A pipeline from a checkpoint file in the original layout, without downloads. Raises UserError."""
    checkpoint = Checkpoint.read(path)
    prediction = prediction or checkpoint.prediction
    config = checkpoint.config(prediction)
    index = json.loads((config / "model_index.json").read_text(encoding="utf-8"))
    check_weights(checkpoint, config, index)
    parts: dict[str, Any] = {name: clip_tokenizer(config / name) for name in index if name.startswith("tokenizer")}
    try:
        with quiet_libraries():
            import diffusers

            pipeline = getattr(diffusers, index["_class_name"]).from_single_file(
                str(path), config=str(config), local_files_only=True, torch_dtype=checkpoint.dtype, **parts
            )
    except FAILURES as error:
        raise unreadable(f"The checkpoint '{path}'", error) from error
    changes = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if checkpoint.zero_terminal_snr else {}
    change_scheduler(pipeline, prediction_type=prediction, **changes)
    return pipeline


def check_weights(checkpoint: Checkpoint, config: Path, index: dict[str, Any]) -> None:
    """Raises UserError if diffusers would leave weights random, or ignore weights of the U-Net."""
    family = FAMILIES[checkpoint.kind]
    for part, prefix in family.prefixes.items():
        wanted = sum(parameter.numel() for parameter in skeleton(config / part, *index[part]).parameters())
        there = checkpoint.weights(prefix)
        if there < wanted or (part == "unet" and there > wanted):
            raise UserError(
                f"'{checkpoint.path}' looks like a variant of {family.name}: its {part} has {there:,} weights "
                f"instead of {wanted:,}. Supported are Stable Diffusion 1, 2 and XL in their original shapes."
            )


def skeleton(folder: Path, library: str, name: str) -> Any:
    """A part of a pipeline on the meta device, without weights. name: of its class; folder: with its configuration."""
    kind = getattr(import_module(library), name)
    with quiet_libraries(), torch.device("meta"):
        if library == "diffusers":
            return kind.from_config(kind.load_config(folder))
        return kind(kind.config_class.from_pretrained(folder))


def unreadable(what: str, error: Exception) -> Exception:
    """A UserError with the library's message, shortened to one line; out-of-memory errors are returned unchanged."""
    return (
        error
        if is_out_of_memory(error)
        else UserError(f"{what} cannot be loaded: {shorten(str(error), 300, placeholder=' ...')}")
    )


def change_scheduler(pipeline: Any, **changes: Any) -> None:
    scheduler = pipeline.scheduler
    pipeline.scheduler = type(scheduler).from_config(scheduler.config, **changes)


def clip_tokenizer(folder: Path) -> Any:
    """CLIP's tokenizer (Radford et al. 2021) from the merges in the open_clip package, with a folder's settings.

    The vocabulary has the order of OpenAI's simple_tokenizer.py. Raises UserError without open_clip.
    """
    from transformers import CLIPTokenizer

    package = find_spec("open_clip")
    if package is None or package.origin is None:
        raise UserError("A checkpoint file needs CLIP's vocabulary. Install it with: pip install open_clip_torch")
    with gzip.open(Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = [*BYTES, *(letter + END_OF_WORD for letter in BYTES)]
    words = [*letters, *(merge.replace(" ", "") for merge in merges), START, END]
    with TemporaryDirectory() as place:
        Path(place, "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
        Path(place, "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return CLIPTokenizer.from_pretrained(place, **settings)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Disables the progress bars and warnings of diffusers and transformers within the context."""
    import diffusers
    import transformers

    logs = [library.utils.logging for library in (diffusers, transformers)]
    were = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (level, bars) in zip(logs, were, strict=True):
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()
