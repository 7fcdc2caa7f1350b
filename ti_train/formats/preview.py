"""An embedding's picture: NAME.preview.png beside its file, and a thumbnail in its header.

ComfyUI's model library and the extra networks of the WebUIs show NAME.preview.png. NAME.png would do too, but the
WebUIs look into it for an embedding.
"""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..files import write_atomically
from .modelspec import PREFIX, THUMBNAIL
from .renaming import with_metadata

SIDE, THUMBNAIL_SIDE = 512, 256  # pixels; the specification recommends the latter
OURS = ("ti-train", "preview")  # text chunk of the pictures that may be replaced
PICTURES = ("png", "jpg", "jpeg", "webp", "gif")
log = logging.getLogger("ti_train")


def put_preview(file: Path, image: Image.Image | None) -> None:
    """Gives an embedding's safetensors file a picture, unless the user has put one beside it. Logs write errors.

    None: there is none of these vectors, and that of earlier ones is removed.
    """
    try:
        _put(file, image)
    except OSError as error:  # the embedding matters more than its picture
        log.warning("Could not write the picture of '%s' (%s).", file, error.strerror or error)


def preview_beside(file: Path) -> Path:
    return file.with_name(f"{file.stem}.preview.png")


def _put(file: Path, image: Image.Image | None) -> None:
    picture = preview_beside(file)
    if image is None:
        if _ours(picture):
            picture.unlink()
        return
    write_atomically(file, _with_thumbnail(file.read_bytes(), image))
    beside = [file.with_name(f"{file.stem}{part}.{kind}") for part in ("", ".preview") for kind in PICTURES]
    if any(path.exists() for path in beside if path != picture or not _ours(picture)):
        return
    marks, written = PngInfo(), io.BytesIO()
    marks.add_text(*OURS)
    scaled(image).save(written, "PNG", pnginfo=marks)
    write_atomically(picture, written.getvalue())


def _ours(picture: Path) -> bool:
    try:
        with Image.open(picture) as image:
            return image.info.get(OURS[0]) == OURS[1]
    except (OSError, UnidentifiedImageError):
        return False


def scaled(image: Image.Image, side: int = SIDE) -> Image.Image:
    """A copy of at most this size."""
    copy = image.convert("RGB")
    copy.thumbnail((side, side))
    return copy


def _with_thumbnail(data: bytes, image: Image.Image) -> bytes:
    """The file with the picture in its header; its tensors stay bit for bit. Unchanged without ModelSpec's keys."""
    jpeg = io.BytesIO()
    scaled(image, THUMBNAIL_SIDE).save(jpeg, "JPEG", quality=80)
    thumbnail = {THUMBNAIL: "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()}

    def add(metadata: dict[str, str]) -> dict[str, str]:
        return metadata | thumbnail if any(key.startswith(PREFIX) for key in metadata) else metadata

    return with_metadata(data, add)
