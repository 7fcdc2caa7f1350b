"""Loading a Stable Diffusion pipeline from a folder in diffusers' layout, or from a checkpoint file.

The weights of a file are looked up one by one (original_layout.py), in modules of the configurations in configs/;
CLIP's vocabulary is taken from the open_clip package.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
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
from ...text import json_value
from ..spelling import BYTES, END_OF_WORD
from .checkpoint_file import FAMILIES, WANTED, Checkpoint
from .original_layout import Source, loaded, sources

PREDICTIONS = ("epsilon", "v_prediction")
ONE_ENCODER = ("unet", "text_encoder", "tokenizer", "vae", "scheduler")
PARTS = {
    "StableDiffusionPipeline": ONE_ENCODER,
    "StableDiffusionXLPipeline": (*ONE_ENCODER, "text_encoder_2", "tokenizer_2"),
}
FAILURES = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)  # that the libraries raise for damaged files
MOST_NAMED = 3
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

            return getattr(diffusers, kind).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, variant=variant, **options_of(kind)
            )
    except FAILURES as error:
        raise unreadable(f"The model folder '{folder}'", error) from error


def options_of(kind: str) -> dict[str, Any]:
    """Of a pipeline class: without what only checks or marks images."""
    if kind == "StableDiffusionPipeline":
        return {"safety_checker": None, "requires_safety_checker": False}
    return {"add_watermarker": False}


def check_folder(folder: Path) -> str:
    """The name of a folder's pipeline class. Raises UserError if it is not a Stable Diffusion folder."""
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise UserError(f"'{folder}' does not exist. This needs {WANTED}.")
    if not index.is_file():
        raise UserError(f"'{folder}' is not a model folder: it has no model_index.json. This needs {WANTED}.")
    try:
        kind = str(json_value(index.read_bytes()).get("_class_name"))
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
    """A pipeline from a checkpoint file, without downloads. Raises UserError."""
    checkpoint = Checkpoint.read(path)
    prediction = prediction or checkpoint.prediction
    config = checkpoint.config(prediction)
    index = json.loads((config / "model_index.json").read_text(encoding="utf-8"))
    modules = {part: skeleton(config / part, *index[part]) for part in FAMILIES[checkpoint.kind].parts}
    places = find_weights(checkpoint, modules)
    parts: dict[str, Any] = {name: clip_tokenizer(config / name) for name in index if name.startswith("tokenizer")}
    dtype = checkpoint.dtype or torch.float32
    try:
        for part, sources in places.items():
            stored = checkpoint.tensors({source.name for source in sources.values()})
            weights = {key: source.read(stored[source.name]) for key, source in sources.items()}
            parts[part] = loaded(modules[part], weights, dtype)
        with quiet_libraries():
            import diffusers

            options = options_of(index["_class_name"])
            pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(
                config, local_files_only=True, **parts, **options
            )
    except FAILURES as error:
        raise unreadable(f"The checkpoint '{path}'", error) from error
    changes = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if checkpoint.zero_terminal_snr else {}
    change_scheduler(pipeline, prediction_type=prediction, **changes)
    return pipeline


def find_weights(checkpoint: Checkpoint, modules: Mapping[str, Any]) -> dict[str, dict[str, Source]]:
    """Part -> key of a weight -> its place. Raises UserError with names if weights are missing, odd or too many."""
    family, found = FAMILIES[checkpoint.kind], {}
    for part, prefix in family.prefixes.items():
        wanted = {key: tuple(parameter.shape) for key, parameter in modules[part].named_parameters()}
        found[part] = sources(part, wanted, checkpoint.shapes)
        names = {source.name for source in found[part].values()}
        missing = [name for name in names if name not in checkpoint.shapes]
        more = [name for name in checkpoint.shapes if part == "unet" and name.startswith(prefix) and name not in names]
        odd = [
            source.name
            for key, source in found[part].items()
            if source.name not in missing and not fits(source.shape(checkpoint.shapes[source.name]), wanted[key])
        ]
        wrong = [f"lacks {examples(missing)}"] if missing else []
        wrong += [f"has {examples(more)} too many"] if more else []
        wrong += [f"has {examples(odd)} of another shape"] if odd else []
        if wrong:
            raise UserError(
                f"'{checkpoint.path}' looks like a variant of {family.name}, or was renamed or cut: its {part} "
                f"{' and '.join(wrong)}. Supported are Stable Diffusion 1, 2 and XL in their original shapes."
            )
    return found


def fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a tensor has the shape; a linear layer may be stored as a convolution of one pixel."""
    return shape in (wanted, (*wanted, 1, 1))


def examples(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "")
    return f"{len(names)} tensor(s) ({shown})"


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
