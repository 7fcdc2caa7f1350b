"""The folders of embeddings and training images. No name may lead outside of them."""

from __future__ import annotations

from pathlib import Path

from modules import paths_internal, shared

from ..ti_train.data.listing import Listing, subfolders
from ..ti_train.errors import UserError
from ..ti_train.files import check_name
from ..ti_train.formats import READABLE

PICTURES, RUNS = "pictures", "runs"
SUFFIX = ".safetensors"


def embeddings() -> Path:
    """The WebUI's embeddings folder."""
    return Path(shared.cmd_opts.embeddings_dir)


def training() -> Path:
    """The folder that holds pictures/ and runs/, from the settings."""
    return Path(shared.opts.ti_train_folder or Path(paths_internal.data_path) / "ti-train")


def run_folder(name: str) -> Path:
    """The folder for the loss table and the previews of a run."""
    return training() / RUNS / name


def picture_folder(name: str) -> Path:
    """A folder of training images by its name. Raises UserError for a path outside of pictures/."""
    root = (training() / PICTURES).resolve()
    folder = (root / name).resolve()
    if folder == root or not folder.is_relative_to(root):
        raise UserError(
            f"The folder '{name}' is outside of '{root}'. Put a folder with your images there and give its name. "
            "The location is set on the settings page of TI Train."
        )
    return folder


def picture_folders() -> list[str]:
    """Names of the folders that hold images; subfolders as outer/inner."""
    root = training() / PICTURES
    return [str(folder.relative_to(root)) for folder in subfolders(root) if Listing.of(folder).images]


def embedding_file(name: str) -> Path:
    """The file of an embedding. Raises UserError for an invalid file name."""
    check_name(name)
    return embeddings() / (name + SUFFIX)


def embedding_files() -> list[Path]:
    """The files of the embeddings folder that may be embeddings; an image may be just a preview."""
    return sorted(path for path in embeddings().rglob("*") if path.suffix.lower() in READABLE and path.is_file())


def template_files() -> dict[str, Path]:
    """The WebUI's template files by name."""
    folder = Path(shared.cmd_opts.textual_inversion_templates_dir)
    return {path.stem: path for path in sorted(folder.glob("*.txt"))} if folder.is_dir() else {}
