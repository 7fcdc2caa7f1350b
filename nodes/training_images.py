"""Load Training Images: the images of a folder, with their captions and masks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from PIL import Image

from ..ti_train.data.captions import caption_file, read_caption
from ..ti_train.data.dataset import find_pictures
from ..ti_train.data.image_files import DAMAGED, read_image, read_mask
from ..ti_train.data.masks import FOLDER as MASKS
from ..ti_train.data.masks import mask_file
from ..ti_train.data.removal import REMOVED
from ..ti_train.errors import UserError
from .files import digest
from .sockets import CATEGORY
from .tensors import to_batch, to_mask

log = logging.getLogger("ti_train")


class LoadTrainingImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_LoadTrainingImages",
            display_name="Load Training Images",
            category=CATEGORY,
            description="Loads all images of a folder in ComfyUI's input directory, each at its own size, rotated "
            "upright (EXIF).",
            inputs=[
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder in ComfyUI's input directory, such as my-cat. A caption is a text file beside "
                    "its image, with the same name.",
                ),
                io.Boolean.Input("subfolders", default=False, tooltip="Also load the images in its subfolders."),
                io.Boolean.Input(
                    "alpha_as_mask",
                    default=False,
                    optional=True,  # older workflows do not have it
                    tooltip="If an image has no mask file, do not train its transparent parts.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", is_output_list=True, tooltip="The images, as a list."),
                io.String.Output(
                    "captions",
                    display_name="captions",
                    is_output_list=True,
                    tooltip="The caption of each image; empty if it has no caption file.",
                ),
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    is_output_list=True,
                    tooltip="The mask of each image (NAME-mask.png beside it, or masks/NAME.png): white is trained. "
                    "All white if there is no mask.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str = "", subfolders: bool = False, **_: Any) -> str:
        try:
            pictures = pictures_of(folder, subfolders)
        except UserError:
            return ""
        beside = [file for p in pictures for file in (caption_file(p), mask_file(p)) if file and file.is_file()]
        return digest([*pictures, *beside])

    @classmethod
    def execute(cls, folder: str, subfolders: bool, alpha_as_mask: bool = False) -> io.NodeOutput:
        pictures = pictures_of(folder, subfolders)
        images, masks = zip(*(read_picture(p, alpha_as_mask) for p in pictures), strict=True)
        return io.NodeOutput(list(images), [caption_of(p) for p in pictures], list(masks))


def inside_input(name: str) -> Path:
    """A folder or file in ComfyUI's input directory. Raises UserError for one outside of it."""
    base = Path(folder_paths.get_input_directory()).resolve()
    path = (base / name.replace("\0", "").strip()).resolve()
    if path != base and base not in path.parents:
        raise UserError(f"The folder '{name}' is outside of ComfyUI's input directory. Put the images in '{base}'.")
    return path


def pictures_of(folder: str, subfolders: bool) -> list[Path]:
    """Raises UserError for a folder outside of the input directory, and for one without images."""
    path = inside_input(folder)
    if not subfolders:
        return find_pictures(path)
    found = []
    inside = (p for p in path.rglob("*") if p.is_dir() and not {REMOVED, MASKS} & {*p.relative_to(path).parts})
    for inner in [path, *sorted(inside)]:
        try:
            found += find_pictures(inner)
        except UserError:
            continue  # a folder may hold only subfolders; that there are no images at all is raised below
    return found or find_pictures(path)


def read_picture(path: Path, alpha_as_mask: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """[1, H, W, 3] in 0..1, upright, and its mask, [1, H, W]. Raises UserError for a damaged file."""
    file = mask_file(path)
    remarks: list[str] = []
    try:
        picture, alpha = read_image(path, 0, remarks)
        mask = read_mask(file) if file else alpha if alpha_as_mask else None
    except (UserError, *DAMAGED) as error:
        raise UserError(f"'{path}' cannot be used: {error} Repair it, or remove it from the folder.") from None
    for remark in remarks:
        log.warning(remark)
    if mask is not None and not mask.getbbox():
        raise UserError(
            f"The mask of '{path}' is all black, so nothing of the image is trained. Remove the mask or the image."
        )
    return to_batch([picture]), to_mask(mask or Image.new("L", picture.size, "white"))


def caption_of(picture: Path) -> str:
    file = caption_file(picture)
    if not file.is_file():
        return ""
    try:
        return read_caption(file)
    except UnicodeDecodeError as error:
        raise UserError(f"The caption '{file}' is not UTF-8 text ({error}). Save it as UTF-8.") from None
