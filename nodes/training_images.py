"""Load Training Images: the images of a folder, with their captions and masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from ..ti_train.data.captions import CaptionReader
from ..ti_train.data.dataset import listing_with_images
from ..ti_train.data.image_files import DAMAGED, read_image, read_mask
from ..ti_train.data.listing import Listing, subfolders
from ..ti_train.errors import UserError
from ..ti_train.text import Remarks
from .files import digest
from .remarks import show
from .sockets import CATEGORY, searched
from .tensors import to_batch, to_mask
from .training_data import TrainingImage


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
            listings = listings_of(folder, subfolders)
        except UserError:
            return ""
        return digest(
            file
            for found in listings
            for file in (*found.images, *found.captions.values(), *found.masks.values(), *found.tables)
        )

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
        images: list[TrainingImage] = []
        remarks = Remarks()
        for listing in listings_of(folder, subfolders):
            remarks += listing.remarks(captions=True, masks=True)
            for path, caption in zip(listing.images, captions_of(listing, remarks), strict=True):
                image, mask = read_picture(path, listing.masks.get(path), alpha_as_mask, remarks)
                off = mask is not None and not use_masks
                images.append(TrainingImage.of(image, caption, None if off else mask, off))
        show(remarks)
        masks = [torch.ones(image.shape[:3]) if image.mask is None else image.mask for image in images]
        return io.NodeOutput(images, [image.caption for image in images], masks)


def sent_along(
    folder: str, subfolders: bool, alpha_as_mask: bool = False, use_masks: bool = True, **_: Any
) -> set[str]:
    """Which of "captions" and "masks" come with the images of Load Training Images with these inputs."""
    listings = listings_of(folder, subfolders)
    captions = any(caption for listing in listings for caption in captions_of(listing, Remarks()))
    masks = use_masks and (alpha_as_mask or any(listing.masks for listing in listings))
    return {kind for kind, there in (("captions", captions), ("masks", masks)) if there}


def input_folder() -> Path:
    """ComfyUI's input directory."""
    return Path(os.path.abspath(folder_paths.get_input_directory()))


def inside_input(name: str) -> Path:
    """A folder or file in ComfyUI's input directory. Raises UserError for one outside of it.

    Links are not resolved, as by ComfyUI itself: users link folders and images of other disks into it.
    """
    base = input_folder()
    path = Path(os.path.abspath(base / name.replace("\0", "").strip()))
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
    if not os.path.isdir(path):  # False too for what no name can be
        raise UserError(
            f"ComfyUI's input directory has no folder '{name}'. Drop 3 to 5 images on Load Training Images: the folder "
            "is made for them."
        )
    return path


def listings_of(folder: str, with_subfolders: bool) -> list[Listing]:
    """What to train on. Raises UserError for a folder outside of the input directory, and if there are no images."""
    path = folder_named(folder)
    folders = [path, *(subfolders(path) if with_subfolders else [])]
    try:
        found = [listing for listing in map(Listing.of, folders) if listing.images]
        return found or [listing_with_images(path)]
    except UserError as error:
        raise UserError(str(error).replace(str(path), folder)) from None  # the server's path helps nobody


def read_picture(
    path: Path, mask_file: Path | None, alpha_as_mask: bool, remarks: Remarks
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[1, H, W, 3] in 0..1, upright, and its mask, [1, H, W]. Raises UserError for a damaged file."""
    try:
        picture, alpha = read_image(path, 0, remarks)
        mask = read_mask(mask_file, remarks) if mask_file else alpha if alpha_as_mask else None
    except (UserError, *DAMAGED) as error:
        raise UserError(f"'{path}' cannot be used: {error} Repair it, or remove it from the folder.") from None
    if mask is not None and not mask.getbbox():
        raise UserError(
            f"The mask of '{path}' is all black, so nothing of the image is trained. Remove the mask or the image."
        )
    return to_batch([picture]), None if mask is None else to_mask(mask)


def captions_of(listing: Listing, remarks: Remarks) -> list[str]:
    """The caption of each image, empty without one; appends to `remarks` what cannot be read."""
    reader = CaptionReader(listing, remarks)
    return [reader.caption(path) or "" for path in listing.images]
