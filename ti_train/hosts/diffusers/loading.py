"""Loading a Stable Diffusion pipeline from a folder in diffusers' layout, or from a checkpoint file.

Weights are looked up one by one (original_layout.py, model_folder.py), in modules made by the configurations in
configs/ or in the folder. CLIP's vocabulary for a file is taken from the open_clip package.
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
from ...host import Digest
from ..spelling import BYTES, END_OF_WORD
from .checkpoint_file import FAMILIES, Checkpoint
from .model_folder import ModelFolder, folder_sources
from .original_layout import Source, sources
from .tensor_files import Placement, Stored, fill

PREDICTIONS = ("epsilon", "v_prediction")
WEIGHTED = ("unet", "text_encoder", "text_encoder_2", "vae")  # in the order of a model's fingerprint
FAILURES = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)  # that the libraries raise for damaged files
MOST_NAMED = 3
START, END = "<|startoftext|>", "<|endoftext|>"


def load_pipeline(path: Path, prediction: str | None, placement: Placement) -> tuple[Any, str]:
    """The pipeline of a folder or file, and the fingerprint of its weights as they are stored, before they are cast.

    prediction: one of PREDICTIONS, overriding the model's. Raises UserError.
    """
    if path.is_file():
        return load_file(path, prediction, placement)
    pipeline, fingerprint = load_folder(path, placement)
    if prediction:
        change_scheduler(pipeline, prediction_type=prediction)
    kind = pipeline.scheduler.config.get("prediction_type")
    if kind not in PREDICTIONS or not hasattr(pipeline.scheduler, "alphas_cumprod"):
        raise UserError(
            f"The model's scheduler, {type(pipeline.scheduler).__name__}, predicts '{kind}'; "
            f"supported are {', '.join(PREDICTIONS)} with a table of noise levels."
        )
    return pipeline, fingerprint


def load_folder(path: Path, placement: Placement) -> tuple[Any, str]:
    folder, what = ModelFolder.read(path), f"The model folder '{path}'"
    try:
        modules = {part: skeleton(path / part, *folder.classes[part]) for part in WEIGHTED if part in folder.classes}
        stored = {part: Stored.of(folder.weight_files(part)) for part in modules}
        found = {part: folder_sources(modules[part], stored[part].shapes) for part in modules}
        for part, module in modules.items():
            if wrong := faults(module, found[part], stored[part].shapes):
                raise UserError(
                    f"{what} does not fit together: by its config.json, its {part} {' and '.join(wrong)}. "
                    "Copy the model folder again."
                )
        fingerprint = fill_all(modules, found, stored, placement)
        return assembled(folder.kind, path, modules), fingerprint
    except FAILURES as error:
        raise unreadable(what, error) from error


def load_file(path: Path, prediction: str | None, placement: Placement) -> tuple[Any, str]:
    """A pipeline from a checkpoint file, without downloads. Raises UserError."""
    checkpoint = Checkpoint.read(path)
    prediction = prediction or checkpoint.prediction
    config = checkpoint.config(prediction)
    index = json.loads((config / "model_index.json").read_text(encoding="utf-8"))
    names = FAMILIES[checkpoint.kind].parts
    modules = {part: skeleton(config / part, *index[part]) for part in WEIGHTED if part in names}
    found = find_weights(checkpoint, modules)
    tokenizers = {name: clip_tokenizer(config / name) for name in index if name.startswith("tokenizer")}
    try:
        fingerprint = fill_all(modules, found, dict.fromkeys(modules, checkpoint.stored), placement)
        pipeline = assembled(index["_class_name"], config, modules | tokenizers)
    except FAILURES as error:
        raise unreadable(f"The checkpoint '{path}'", error) from error
    changes = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if checkpoint.zero_terminal_snr else {}
    change_scheduler(pipeline, prediction_type=prediction, **changes)
    return pipeline, fingerprint


def fill_all(
    modules: Mapping[str, Any], found: Mapping[str, Mapping[str, Source]], stored: Mapping[str, Stored],
    placement: Placement,
) -> str:  # fmt: skip
    """Fills all parts with their weights; the fingerprint of these as they are stored."""
    digest = Digest()
    for part, module in modules.items():
        fill(module, part, found[part], stored[part], placement, digest)
    return digest.text()


def assembled(kind: str, folder: Path, parts: Mapping[str, Any]) -> Any:
    """A pipeline of these parts and, from a folder, all others."""
    with quiet_libraries():
        import diffusers

        return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, **parts, **options_of(kind))


def options_of(kind: str) -> dict[str, Any]:
    """Of a pipeline class: without what only checks or marks images."""
    if kind == "StableDiffusionPipeline":
        return {"safety_checker": None, "requires_safety_checker": False}
    return {"add_watermarker": False}


def find_weights(checkpoint: Checkpoint, modules: Mapping[str, Any]) -> dict[str, dict[str, Source]]:
    """Part -> key of a weight -> its place. Raises UserError with names if weights are missing, odd or too many."""
    family, found = FAMILIES[checkpoint.kind], {}
    for part, module in modules.items():
        found[part] = sources(part, dict(module.named_parameters()), checkpoint.shapes)
        wrong = faults(module, found[part], checkpoint.shapes)
        names, prefix = {source.name for source in found[part].values()}, family.prefixes[part]
        more = [name for name in checkpoint.shapes if part == "unet" and name.startswith(prefix) and name not in names]
        wrong += [f"has {examples(more)} too many"] if more else []
        if wrong:
            raise UserError(
                f"'{checkpoint.path}' looks like a variant of {family.name}, or was renamed or cut: its {part} "
                f"{' and '.join(wrong)}. Supported are Stable Diffusion 1, 2 and XL in their original shapes."
            )
    return found


def faults(module: Any, found: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What is wrong with the stored weights of a module, continuing its name."""
    wanted = {key: tuple(parameter.shape) for key, parameter in module.named_parameters()}
    missing = sorted({source.name for source in found.values()} - shapes.keys())
    odd = [
        source.name
        for key, source in found.items()
        if source.name in shapes and not fits(source.shape(shapes[source.name]), wanted[key])
    ]
    lacks = [f"lacks {examples(missing)}"] if missing else []
    return lacks + ([f"has {examples(odd)} of another shape"] if odd else [])


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
