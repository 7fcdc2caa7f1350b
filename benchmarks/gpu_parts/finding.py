"""What a part of gpu.py is told and what it finds, and the promises of the README that it checks."""

from __future__ import annotations

from dataclasses import dataclass, field

ROUNDING = 1  # of 255, by which two pictures of one model may differ anyway
MARK = "finding: "  # begins the lines of a part's output that gpu.py reads

PROMISES = {  # in the README's own words
    "learns": "trains the embedding `teal-heart`",
    "unchanged": "The model stays as it is",
    "resumes": "the same command with `--resume` continues it",
    "deterministic": "`--deterministic` asks PyTorch for kernels that do not",
    "comfyui": "for `embedding:my-cat` in any prompt afterwards",
    "webui": "Afterwards the name works in the next prompt",
    "checkpointing": "gradient checkpointing needs less",
    "memory": "A run that fills the GPU's memory continues in smaller parts",
}


@dataclass(frozen=True)
class Options:
    """small: narrow models and few pixels, to try the benchmark itself without a card."""

    device: str
    scratch: str  # a folder that is deleted in the end
    quick: bool = False  # fewer steps
    small: bool = False
    pretend: float = 0.0  # GiB of a pretended CUDA device (tests/devices); 0: none
    comfyui: str = ""
    comfyui_python: str = ""
    webui: str = ""
    webui_python: str = ""


@dataclass(frozen=True)
class Finding:
    """A row of the table. figures: what was measured, with its unit; promises: of PROMISES, and whether each held."""

    case: str
    figures: dict[str, str | float]
    promises: dict[str, bool] = field(default_factory=dict)
