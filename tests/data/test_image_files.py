"""Image files: each kind as a viewer shows it; what cannot be used is named and left out."""

from __future__ import annotations

import errno
import io
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, features

from ti_train.data import image_files
from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.data.image_files import read_thumbnail

RED, BLUE = (220, 30, 30), (30, 30, 220)


def read_one(path, resolution: int = 32) -> np.ndarray:
    (picture,) = read_pictures([path], resolution, [])
    return picture.pixels


def why_skipped(path, resolution: int = 32) -> str:
    warnings: list[str] = []
    assert list(read_pictures([path], resolution, warnings)) == []
    (warning,) = warnings
    return warning


def colour_at(pixels: np.ndarray, x: int, y: int) -> list[int]:
    return pixels[y, x].tolist()


# --- Thumbnails -----------------------------------------------------------------


def test_a_thumbnail_is_small_upright_and_on_white(tmp_path):
    picture = Image.new("RGBA", (400, 200), (*RED, 0))
    picture.paste((*BLUE, 255), (0, 0, 200, 200))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # upside down
    picture.save(tmp_path / "a.png", exif=exif)
    small, alpha = read_thumbnail(tmp_path / "a.png", 100)
    assert (small.mode, small.size) == ("RGB", (100, 50))
    assert small.getpixel((20, 25)) == (255, 255, 255)
    assert small.getpixel((80, 25)) == BLUE
    assert (alpha.getpixel((10, 10)), alpha.getpixel((390, 10))) == (0, 255)


def test_a_thumbnail_of_a_large_photo_is_decoded_small(tmp_path, monkeypatch):
    Image.new("RGB", (1600, 800), RED).save(tmp_path / "a.jpg", "JPEG")
    decoded = []
    shrink = Image.Image.thumbnail
    monkeypatch.setattr(Image.Image, "thumbnail", lambda image, size: (decoded.append(image.size), shrink(image, size)))
    small, alpha = read_thumbnail(tmp_path / "a.jpg", 100)
    assert (decoded, small.size, alpha) == ([(400, 200)], (100, 50), None)


def test_thumbnails_of_large_images_take_turns_and_others_do_not(tmp_path, monkeypatch):
    """A page asks for many at once, and each is decoded whole."""
    Image.new("RGBA", (40, 40), RED).save(tmp_path / "large.png")
    Image.new("RGBA", (4, 4), RED).save(tmp_path / "small.png")
    monkeypatch.setattr(image_files, "LARGE", 100)
    meeting = Barrier(2)  # two that are drawn at the same time meet here

    def meet(image: Image.Image, _) -> None:
        meeting.wait(timeout=30 if image.width < 10 else 0.5)

    monkeypatch.setattr(Image.Image, "thumbnail", meet)
    with ThreadPoolExecutor(2) as pool:
        drawn = [pool.submit(read_thumbnail, tmp_path / "small.png", 16) for _ in range(2)]
        assert [each.exception() for each in drawn] == [None, None]
        drawn = [pool.submit(read_thumbnail, tmp_path / "large.png", 16) for _ in range(2)]
        assert [type(each.exception()) for each in drawn] == [BrokenBarrierError] * 2


# --- Reading --------------------------------------------------------------------


def test_a_phones_upright_picture_is_upright(tmp_path):
    picture = Image.new("RGB", (64, 64), RED)
    picture.paste(BLUE, (0, 0, 32, 64))  # stored with its top to the left
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter clockwise
    picture.save(tmp_path / "phone.png", exif=exif)
    pixels = read_one(tmp_path / "phone.png")
    assert colour_at(pixels, 16, 4) == list(BLUE)
    assert colour_at(pixels, 16, 28) == list(RED)


def with_alpha() -> Image.Image:
    picture = Image.new("RGBA", (64, 64), (*RED, 255))
    picture.paste((*BLUE, 0), (0, 0, 32, 64))
    return picture


def with_transparent_index() -> Image.Image:
    picture = Image.new("P", (64, 64), 1)
    picture.putpalette([*BLUE, *RED])
    picture.paste(0, (0, 0, 32, 64))
    picture.info["transparency"] = 0
    return picture


@pytest.mark.parametrize("make", [with_alpha, with_transparent_index])
def test_what_is_transparent_becomes_white(tmp_path, make):
    make().save(tmp_path / "cutout.png")
    pixels = read_one(tmp_path / "cutout.png")
    assert colour_at(pixels, 4, 16) == [255, 255, 255]
    assert colour_at(pixels, 28, 16) == list(RED)


@pytest.mark.parametrize(
    ("mode", "colour", "ending", "seen"),
    [
        ("L", 100, "png", [100] * 3),
        ("LA", (100, 255), "png", [100] * 3),
        ("1", 1, "png", [255] * 3),
        ("I;16", 100 * 257, "png", [100] * 3),
        ("I;16", 100 * 257, "tiff", [100] * 3),
        ("CMYK", (0, 0, 0, 0), "jpg", [255] * 3),
        ("RGB", RED, "bmp", list(RED)),
        ("RGB", (255, 255, 255), "gif", [255] * 3),
        ("RGB", (255, 255, 255), "webp", [255] * 3),
        ("CMYK", (0, 255, 255, 0), "jpg", [255, 0, 0]),
        ("CMYK", (0, 255, 255, 0), "tiff", [255, 0, 0]),
        ("I;16B", 100 * 257, "tiff", [100] * 3),
        ("YCbCr", (100, 128, 128), "jpg", [100] * 3),
        ("P", 0, "png", [0] * 3),
    ],
)
def test_every_kind_of_picture_has_the_colour_that_a_viewer_shows(tmp_path, mode, colour, ending, seen):
    Image.new(mode, (40, 40), colour).save(tmp_path / f"flat.{ending}")
    assert colour_at(read_one(tmp_path / f"flat.{ending}"), 16, 16) == seen


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_reads_it(tmp_path):
    Image.new("RGB", (40, 40), RED).save(tmp_path / "flat.avif", quality=100)
    assert np.abs(read_one(tmp_path / "flat.avif")[16, 16].astype(int) - RED).max() <= 4


@pytest.mark.parametrize("ending", ["heic", "avif", "heif"])
def test_a_kind_that_pillow_has_no_decoder_for_is_told_by_its_name(tmp_path, ending):
    (tmp_path / f"phone.{ending}").write_bytes(b"\0\0\0\x18ftypabcd\0\0\0\0")
    why = why_skipped(tmp_path / f"phone.{ending}")
    assert f"cannot read {ending.upper()} files here. Save it as PNG or JPEG." in why


def test_floating_point_pixels_are_refused_rather_than_guessed(tmp_path):
    Image.new("F", (40, 40), 0.5).save(tmp_path / "a.tiff")
    assert "floating-point numbers without a defined white" in why_skipped(tmp_path / "a.tiff")


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_of_a_moving_picture_the_first_frame_is_used_and_told_once(tmp_path, ending):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black", "black")]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:])
    warnings: list[str] = []
    (picture,) = read_pictures([tmp_path / f"a.{ending}"], 32, warnings)
    assert colour_at(picture.pixels, 16, 16) == [255] * 3
    assert warnings == [f"a.{ending} has several frames; only the first one is used."]


def test_a_phones_picture_with_its_depth_is_no_moving_picture(tmp_path):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    warnings: list[str] = []
    (picture,) = read_pictures([tmp_path / "a.jpg"], 32, warnings)
    assert (colour_at(picture.pixels, 16, 16), warnings) == ([255] * 3, [])


def test_the_same_picture_twice_is_told_also_across_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40), RED).save(tmp_path / name / "x.png")
    Image.new("RGB", (40, 40), RED).save(tmp_path / "a" / "y.bmp")
    Image.new("RGB", (40, 40), BLUE).save(tmp_path / "a" / "z.png")
    warnings: list[str] = []
    paths = [path for name in ("a", "b") for path in find_pictures(tmp_path / name)]
    assert len(list(read_pictures(paths, 32, warnings))) == 4
    assert warnings == [
        "y.bmp is the same image as x.png, which therefore counts twice.",
        f"x.png is the same image as {tmp_path / 'a' / 'x.png'}, which therefore counts twice.",
    ]


def test_a_folder_of_links_is_a_folder_of_pictures_and_a_broken_one_is_told(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (40, 40), RED).save(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "links").mkdir()
    try:
        (tmp_path / "links" / "good.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    except OSError:
        pytest.skip("this system lets nobody make links")
    (tmp_path / "links" / "broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "links" / "folder.png").symlink_to(tmp_path / "elsewhere")
    warnings: list[str] = []
    read = list(read_pictures(find_pictures(tmp_path / "links"), 32, warnings))
    assert [picture.name for picture in read] == ["good.png"]
    assert warnings == ["Skipped broken.png: there is no file, or the link leads to none."]


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "a.png")

    monkeypatch.setattr(Image, "open", refuse)
    assert why_skipped(tmp_path / "a.png") == "Skipped a.png: it cannot be opened (Permission denied)."


# --- Skipping -------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels, and breaks off where they should begin."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100))


@pytest.mark.parametrize(
    ("pillows_limit", "why"),
    [
        (Image.MAX_IMAGE_PIXELS, "it is too large (Image size (3000000000 pixels)"),  # Pillow's own words
        (None, "60000 x 50000 pixels, more than the limit of 200 megapixels"),  # A1111 takes Pillow's limit away
    ],
)
def test_a_gigantic_picture_is_skipped_without_being_decoded(tmp_path, monkeypatch, pillows_limit, why):
    (tmp_path / "bomb.png").write_bytes(png_header(60_000, 50_000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the pixels were decoded"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("the pixels were decoded"))
    assert why in why_skipped(tmp_path / "bomb.png")


def test_a_picture_is_turned_upright_also_where_its_exif_cannot_be_written_again(tmp_path):
    """Its date is given as a fraction; Pillow reads that, and cannot write it."""
    turned = struct.pack("<HHIHH", ExifTags.Base.Orientation, 3, 1, 6, 0)
    date = struct.pack("<HHII", ExifTags.Base.DateTime, 5, 1, 38)
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + turned + date + struct.pack("<III", 0, 72, 1)
    sideways = Image.new("RGB", (64, 64))
    sideways.paste("white", (0, 0, 32, 64))
    sideways.save(tmp_path / "turned.png", exif=block)
    with Image.open(tmp_path / "turned.png") as file, pytest.raises(AttributeError):
        ImageOps.exif_transpose(file)
    pixels = read_one(tmp_path / "turned.png", 64)
    assert (pixels[:32].min(), pixels[32:].max()) == (255, 0)


def test_a_picture_far_smaller_than_the_training_size_is_skipped(tmp_path):
    Image.new("RGB", (64, 63)).save(tmp_path / "icon.png")
    assert "Skipped icon.png: it has 64 x 63 pixels, too few to enlarge to 512" in why_skipped(
        tmp_path / "icon.png", 512
    )
    assert read_one(tmp_path / "icon.png", 504).shape == (504, 504, 3)


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\n", b"GIF89a", png_header(64, 64)])
def test_a_file_that_is_no_picture_is_skipped_by_name_and_the_others_are_kept(pictures, tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    warnings: list[str] = []
    read = list(read_pictures(find_pictures(tmp_path), 32, warnings))
    assert [picture.name for picture in read] == ["good.png"]
    assert [warning.partition(":")[0] for warning in warnings] == ["Skipped bad.png"]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_a_picture_cut_off_anywhere_never_ends_the_run(tmp_path, kind):
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise).save(whole, kind, **({"exif": exif} if kind in ("png", "jpeg", "webp") else {}))
    length = len(whole.getvalue())
    for cut in sorted({*range(0, min(length, 200), 7), *range(0, length, length // 40 + 1)}):
        path = tmp_path / "cut.png"
        path.write_bytes(whole.getvalue()[:cut])
        warnings: list[str] = []
        assert len(list(read_pictures([path], 32, warnings))) + len(warnings) == 1


ISO = b"\0\0\0\x18ftyp%s\0\0\0\0" + b"\0" * 64


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (ISO % b"heic", r"it is HEIC, although its name ends in \.jpg, and Pillow [\d.]+ cannot read HEIC"),
        (ISO % b"mif1", "it is HEIC, although"),
        (ISO % b"mp42", r"it is a video, although its name ends in \.jpg"),
        (b"<!DOCTYPE html><html>", "it is a web page or other text"),
        (b"\xff\x0a", "it is JPEG XL"),
        (b"", "the file is empty"),
    ],
)
def test_what_is_called_an_image_but_is_none_is_told_by_its_content(tmp_path, content, why):
    (tmp_path / "a.jpg").write_bytes(content)
    warnings: list[str] = []
    assert list(read_pictures(find_pictures(tmp_path), 32, warnings)) == []
    assert re.match(rf"Skipped a\.jpg: {why}", warnings[0])
