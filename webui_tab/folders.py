"""The folders of embeddings and training images. No name may lead outside of them, unless the server allows it.

Names with bytes of another encoding are not listed: no page and no answer can have them, and the WebUI would not start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modules import paths_internal, shared

from ..ti_train.data.listing import Listing, subfolders
from ..ti_train.errors import UserError
from ..ti_train.files import files_below
from ..ti_train.names import READABLE, check_name
from ..ti_train.text import is_whole
from ..ti_train.training.checkpoint import name_in

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


def picture_folder(name: str, write: bool = False) -> Path:
    """A folder of training images: by its name in pictures/, or a whole path that the server allows.

    write: whether files are to be written there. Raises UserError.
    """
    root = training() / PICTURES
    path = Path(os.path.abspath(root / name))
    whole = _allowed(path, write) if Path(name).is_absolute() else []
    for folder in [root, *whole]:
        found = _inside(path, folder)
        if found and (folder in whole or found != root.resolve()):
            return found
    raise UserError(
        f"The folder '{name}' is outside of '{root}'. Put a folder with your images there and give its name, or start "
        "the WebUI with --gradio-allowed-path. The location is set on the settings page of TI Train."
    )


def _inside(path: Path, folder: Path) -> Path | None:
    """Where an absolute path leads, if it is in a folder as it is written and as links lead; else None.

    What is not, as it is written, is not even looked at: on Windows a path can name another computer.
    """
    real = folder.resolve()
    if "\0" in str(path) or not any(path.is_relative_to(root) for root in (os.path.abspath(folder), real)):
        return None
    found = path.resolve()
    return found if found.is_relative_to(real) else None


def _allowed(folder: Path, write: bool) -> list[Path]:
    """Where whole paths may lead: anywhere on one's own computer, as in the WebUI's own tabs; else what was allowed."""
    options = shared.cmd_opts
    if not options.webui_is_non_local and not options.hide_ui_dir_config:
        return [Path(folder.anchor)]
    # its default in every WebUI: gradio serves its files to who knows their names, the tab would list them
    own = Path(paths_internal.data_path).resolve()
    return [] if write else [path for path in map(Path, options.gradio_allowed_path) if path.resolve() != own]


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Reports what fails in writing to a folder as UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"'{folder}' cannot be written to ({error.strerror or error}). Check its permissions and the free space."
        ) from None


def picture_folders() -> list[str]:
    """Names of the folders that hold images, or that cannot be read; subfolders as outer/inner."""
    root = training() / PICTURES
    names = {folder.relative_to(root).as_posix(): folder for folder in subfolders(root)}
    return [name for name, folder in names.items() if is_whole(name) and _may_hold_images(folder)]


def _may_hold_images(folder: Path) -> bool:
    try:
        return bool(Listing.of(folder).images)
    except UserError:  # who chooses it is told why
        return True


def embedding_file(name: str) -> Path:
    """The file of an embedding. Raises UserError for a name that cannot be used, unless it is there (see OldName)."""
    return embedding_path(check_name(name_in(embeddings(), name)))


def embedding_path(name: str) -> Path:
    return embeddings() / (name + SUFFIX)


def existing_embedding(file: str) -> Path:
    """A file by its path in the embeddings folder. Raises UserError for a path outside of it."""
    root = embeddings().resolve()
    path = Path(os.path.abspath(root / file))
    if not _inside(path, root):
        raise UserError(f"'{file}' is outside of the embeddings folder '{root}'. Give the name of a file in it.")
    return path


def embedding_files() -> list[Path]:
    """The files of the embeddings folder that may be embeddings; an image may be just a preview."""
    root = embeddings()
    files = (path for path in files_below(root) if path.suffix.lower() in READABLE and path.is_file())
    return sorted(path for path in files if is_whole(str(path.relative_to(root))))


def template_files() -> dict[str, Path]:
    """The WebUI's template files by name."""
    folder = Path(shared.cmd_opts.textual_inversion_templates_dir)
    return {path.stem: path for path in sorted(folder.glob("*.txt")) if is_whole(path.stem)} if folder.is_dir() else {}
