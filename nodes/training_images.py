"""Load Training Images: the images of a folder, with their captions and masks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from ..ti_train.data.captions import caption_file, read_caption
from ..ti_train.data.dataset import find_pictures
from ..ti_train.data.image_files import DAMAGED, read_image, read_mask
from ..ti_train.data.masks import FOLDER as MASKS
from ..ti_train.data.masks import mask_file
from ..ti_train.errors import UserError
from .files import digest
from .sockets import CATEGORY, searched
from .tensors import to_batch, to_mask
from .training_data import TrainingImage

log = logging.getLogger("ti_train")
REMOVED = "removed"  # the subfolder for images that the user removed in the page; never loaded


class LoadTrainingImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_LoadTrainingImages",
            display_name="Load Training Images",
            category=CATEGORY,
            description="Loads all images of a folder in ComfyUI's input directory, each at its own size, rotated "
            "upright (EXIF), with its caption and mask.",
            **searched("textual inversion", "training data", "dataset", "load image folder", "load images"),
            inputs=[
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="A folder in ComfyUI's input directory, such as my-cat. Empty: images that you drop here "
                    "go to a new folder. A caption is a text file beside its image, with the same name.",
                ),
                io.Boolean.Input("subfolders", default=False, tooltip="Also load the images in its subfolders."),
                io.Boolean.Input(
                    "alpha_as_mask",
                    default=False,
                    optional=True,  # older workflows do not have it
                    tooltip="If an image has no mask file, do not train its transparent parts.",
                ),
                io.Boolean.Input(
                    "use_masks",
                    default=True,
                    optional=True,
                    tooltip="Train only the white part of an image's mask. Off: the whole image.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images",
                    display_name="images",
                    is_output_list=True,
                    tooltip="The images, as a list. To Train Embedding they bring their captions and masks along.",
                ),
                io.String.Output(
                    "captions",
                    display_name="captions",
                    is_output_list=True,
                    tooltip="The caption of each image, for other nodes; empty if it has no caption file.",
                ),
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    is_output_list=True,
                    tooltip="The mask of each image, for other nodes (NAME-mask.png beside it, or masks/NAME.png): "
                    "white is trained. All white if there is no mask.",
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
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Whether there is such a folder, before anything runs. folder: None if another node gives it."""
        try:
            return folder is None or bool(folder_named(folder))
        except UserError as error:
            return str(error)

    @classmethod
    def execute(
        cls, folder: str, subfolders: bool, alpha_as_mask: bool = False, use_masks: bool = True
    ) -> io.NodeOutput:
        read = [read_picture(path, alpha_as_mask) for path in pictures_of(folder, subfolders)]
        images = [
            TrainingImage.of(image, caption, mask if use_masks else None, mask is not None and not use_masks)
            for image, caption, mask in read
        ]
        masks = [torch.ones(image.shape[:3]) if image.mask is None else image.mask for image in images]
        return io.NodeOutput(images, [image.caption for image in images], masks)


def inside_input(name: str) -> Path:
    """A folder or file in ComfyUI's input directory. Raises UserError for one outside of it."""
    base = Path(folder_paths.get_input_directory()).resolve()
    path = (base / name.replace("\0", "").strip()).resolve()
    if path != base and base not in path.parents:
        raise UserError(f"The folder '{name}' is outside of ComfyUI's input directory. Put the images into that.")
    return path


def folder_named(name: str) -> Path:
    """Raises UserError for no name, for a folder outside of the input directory, and for one that is not there."""
    if not name.strip():
        raise UserError(
            "Load Training Images has no images yet. Drop 3 to 5 on it: a folder is made for them. Or enter the folder "
            "of your images in ComfyUI's input directory (. is that directory itself)."
        )
    path = inside_input(name)
    if not path.is_dir():
        raise UserError(
            f"ComfyUI's input directory has no folder '{name}'. Drop 3 to 5 images on Load Training Images: the folder "
            "is made for them."
        )
    return path


def pictures_of(folder: str, subfolders: bool) -> list[Path]:
    """Raises UserError for a folder outside of the input directory, and for one without images."""
    path = folder_named(folder)
    try:
        return listed(path, subfolders)
    except UserError as error:
        raise UserError(str(error).replace(str(path), folder)) from None  # the server's path says nothing to its users


def listed(path: Path, subfolders: bool) -> list[Path]:
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


def read_picture(path: Path, alpha_as_mask: bool) -> tuple[torch.Tensor, str, torch.Tensor | None]:
    """[1, H, W, 3] in 0..1, upright; its caption; its mask, [1, H, W]. Raises UserError for a damaged file."""
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
    return to_batch([picture]), caption_of(path), None if mask is None else to_mask(mask)


def caption_of(picture: Path) -> str:
    file = caption_file(picture)
    if not file.is_file():
        return ""
    try:
        return read_caption(file)
    except UnicodeDecodeError as error:
        raise UserError(f"The caption '{file}' is not UTF-8 text ({error}). Save it as UTF-8.") from None
