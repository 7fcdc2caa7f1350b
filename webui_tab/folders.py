"""Where words and pictures lie, and that no name leads out of there."""

from __future__ import annotations

from pathlib import Path

from modules import paths_internal, shared

from ..ti_train.data.image_files import SUFFIXES
from ..ti_train.errors import UserError
from ..ti_train.files import check_name
from ..ti_train.formats import READABLE

PICTURES, RUNS = "pictures", "runs"
WORD_SUFFIX = ".safetensors"


def embeddings() -> Path:
    """The WebUI's embeddings folder."""
    return Path(shared.cmd_opts.embeddings_dir)


def training() -> Path:
    """The folder that holds pictures/ and runs/, as the settings say."""
    return Path(shared.opts.ti_train_folder or Path(paths_internal.data_path) / "ti-train")


def run_folder(name: str) -> Path:
    """Where the loss table and the previews of a word go."""
    return training() / RUNS / name


def picture_folder(name: str) -> Path:
    """A folder of training pictures by its name. Raises UserError for a name that leads elsewhere."""
    root = (training() / PICTURES).resolve()
    folder = (root / name).resolve()
    if folder == root or not folder.is_relative_to(root):
        raise UserError(
            f"The folder '{name}' is outside of '{root}'. Put a folder with your pictures there and give its name; "
            "the settings page of TI Train can move that place."
        )
    return folder


def picture_folders() -> list[str]:
    """The names of the folders that hold pictures, those within others as outer/inner."""
    root = training() / PICTURES
    found = {path.parent for path in root.rglob("*") if path.suffix.lower() in SUFFIXES}
    return sorted(str(folder.relative_to(root)) for folder in found if folder != root)


def word_file(name: str) -> Path:
    """A word's file. Raises UserError for a name that no file can have."""
    check_name(name)
    return embeddings() / (name + WORD_SUFFIX)


def word_files() -> list[Path]:
    """The files of the embeddings folder that may be words; a picture may be no more than one."""
    return sorted(path for path in embeddings().rglob("*") if path.suffix.lower() in READABLE and path.is_file())


def template_files() -> dict[str, Path]:
    """The WebUI's own template files by name."""
    folder = Path(shared.cmd_opts.textual_inversion_templates_dir)
    return {path.stem: path for path in sorted(folder.glob("*.txt"))} if folder.is_dir() else {}
