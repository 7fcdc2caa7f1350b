"""Pictures: found, read, cropped, encoded once, and shown in a fixed shuffled order."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageDraw, ImageOps
from tiny_host import TinyHost, dataset_of

from ti_train.dataset import Dataset, encode_pictures, find_pictures, read_pictures, seed_from, square
from ti_train.errors import UserError
from ti_train.hosts.base import Size

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


# --- Finding --------------------------------------------------------------------


def test_pictures_are_found_by_name_whatever_the_case_of_their_ending(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.webp", "notes.txt", "d.png.part"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"There is no folder .*none"):
        find_pictures(tmp_path / "none")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "cat.png").touch()
    with pytest.raises(UserError, match=r"There is no folder .*cat\.png"):
        find_pictures(tmp_path / "cat.png")


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="has no pictures"):
        find_pictures(tmp_path)


# --- Reading --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "box"),
    [((300, 100), (110, 10, 190, 90)), ((100, 300), (10, 110, 90, 190)), ((100, 100), (10, 10, 90, 90))],
)
def test_a_circle_stays_round_and_central_whatever_the_pictures_sides(tmp_path, size, box):
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse(box, fill="black")
    picture.save(tmp_path / "disc.png")
    dark = read_one(tmp_path / "disc.png", 64)[..., 0] < 128
    columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
    assert len(columns) == pytest.approx(64 * 0.8, abs=2)
    assert len(rows) == pytest.approx(len(columns), abs=1)
    assert columns.mean() == pytest.approx(31.5, abs=1)
    assert rows.mean() == pytest.approx(31.5, abs=1)


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
    ],
)
def test_every_kind_of_picture_has_the_colour_that_a_viewer_shows(tmp_path, mode, colour, ending, seen):
    Image.new(mode, (40, 40), colour).save(tmp_path / f"flat.{ending}")
    assert colour_at(read_one(tmp_path / f"flat.{ending}"), 16, 16) == seen


def test_captions_are_one_line_of_the_text_file_beside_a_picture(pictures, tmp_path):
    warnings: list[str] = []
    read = list(read_pictures(find_pictures(pictures), 32, warnings, captions=True))
    assert [(p.name, p.caption) for p in read] == [("blue.png", "blue dog"), ("green.png", ""), ("red.png", "red toy")]
    assert warnings == ["green.png has no caption (green.txt is missing): the template is used without one."]


@pytest.mark.parametrize(
    ("content", "caption"),
    [(b"a red\n  toy\n", "a red toy"), ("\ufeffrot".encode(), "rot"), ("猫".encode(), "猫"), (b"", "")],
)
def test_a_captions_bytes(tmp_path, content, caption):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    (picture,) = read_pictures([tmp_path / "a.png"], 32, [], captions=True)
    assert picture.caption == caption


def test_a_caption_that_is_no_utf8_is_named_and_left_out(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    warnings: list[str] = []
    (picture,) = read_pictures([tmp_path / "a.png"], 32, warnings, captions=True)
    assert picture.caption == ""
    assert "The caption a.txt cannot be read as UTF-8" in warnings[0]


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
    assert "Skipped icon.png: it has 64 x 63 pixels; enlarging it to 512" in why_skipped(tmp_path / "icon.png", 512)
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


def test_no_usable_picture_at_all_is_refused(host, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(UserError, match="None of the pictures can be used"):
        dataset_of(host, tmp_path)


# --- Encoding -------------------------------------------------------------------


@pytest.mark.parametrize("has_variance", [True, False])
def test_latents_are_the_vaes_own_for_every_picture(pictures, has_variance):
    host = TinyHost(has_variance=has_variance)
    dataset = dataset_of(host, pictures)
    for i, path in enumerate(find_pictures(pictures)):
        pixels = torch.from_numpy(square(Image.open(path).convert("RGB"), 32)[0].copy()).permute(2, 0, 1)
        expected = host.latents(pixels[None].float() / 127.5 - 1)
        assert torch.allclose(dataset.mean[i], expected.mean[0], atol=1e-6)
        if has_variance:
            assert torch.allclose(dataset.log_variance[i], expected.log_variance[0], atol=1e-6)
    assert (dataset.log_variance is not None) == has_variance


def test_the_vae_sees_every_picture_once(host, pictures):
    seen = []
    hook = host.vae.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    dataset = dataset_of(host, pictures)
    for position in range(9):
        dataset.draw(dataset.order(position, 2, 0), torch.Generator())
    hook.remove()
    assert sum(seen) == 3


def test_flip_adds_the_mirror_image_of_every_picture(host, tmp_path):
    picture = Image.new("RGB", (32, 32), RED)
    picture.paste(BLUE, (0, 0, 16, 32))
    picture.save(tmp_path / "a.png")
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    plain = dataset_of(host, tmp_path)
    (tmp_path / "b.png").unlink()
    mirrored = dataset_of(host, tmp_path, flip=True)
    assert len(mirrored) == 2
    assert mirrored.names == ("a.png", "a.png")
    assert torch.equal(mirrored.mean, plain.mean)


def test_flip_doubles_a_dataset_of_more_than_one_chunk_with_its_captions(host, tmp_path):
    for i in range(5):
        Image.new("RGB", (32, 32), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"number {i}", encoding="utf-8")
    dataset = dataset_of(host, tmp_path, flip=True, captions=True)
    assert sorted(dataset.names) == sorted(f"{i}.png" for i in range(5) for _ in range(2))
    assert all(caption == f"number {name[0]}" for name, caption in zip(dataset.names, dataset.captions, strict=True))


def test_the_fingerprint_tells_pictures_flips_and_captions_apart(host, pictures, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "other.png")
    (tmp_path / "other.txt").write_text("dog", encoding="utf-8")
    kinds = [
        dataset_of(host, pictures),
        dataset_of(host, pictures, flip=True),
        dataset_of(host, pictures, captions=True),
        dataset_of(host, tmp_path),
    ]
    assert len({dataset.fingerprint for dataset in kinds}) == len(kinds)
    assert dataset_of(host, pictures).fingerprint == kinds[0].fingerprint


# --- Drawing --------------------------------------------------------------------


def dataset_of_size(count: int, log_variance: float | None = None) -> Dataset:
    mean = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 4, 2, 2)
    variance = None if log_variance is None else torch.full(mean.shape, log_variance)
    size = Size((16, 16), (0, 0), (16, 16))
    weights = torch.ones(count, 1, 2, 2)
    return Dataset(mean, variance, weights, tuple(map(str, range(count))), (size,) * count, ("",) * count, "", 16)


@given(count=st.integers(1, 12), seed=st.integers(0, 2**32), first=st.integers(0, 100))
@settings(max_examples=50)
def test_every_round_shows_every_picture_once(count, seed, first):
    dataset = dataset_of_size(count)
    for number in range(first, first + 3):
        assert sorted(dataset.order(number * count, count, seed)) == list(range(count))


@given(position=st.integers(0, 50), count=st.integers(0, 20))
@settings(max_examples=50)
def test_the_order_follows_from_seed_and_position_alone(position, count):
    dataset = dataset_of_size(5)
    assert dataset.order(position, count, 3) == dataset.order(0, 70, 3)[position : position + count]


def test_rounds_and_seeds_differ():
    dataset = dataset_of_size(8)
    orders = [dataset.order(0, 8, 0), dataset.order(8, 8, 0), dataset.order(0, 8, 1)]
    assert len(set(map(tuple, orders))) == 3


def test_without_a_variance_a_draw_is_the_mean():
    dataset = dataset_of_size(5)
    assert torch.equal(dataset.draw([4, 1, 1], torch.Generator()), dataset.mean[[4, 1, 1]])


def test_a_draw_from_the_posterior_has_its_mean_and_deviation():
    deviation = 0.25
    dataset = dataset_of_size(3, 2 * float(np.log(deviation)))
    drawn = dataset.draw([2] * 4000, torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(2, abs=0.01)
    assert drawn.std().item() == pytest.approx(deviation, rel=0.02)


def test_seeds_come_from_all_their_parts():
    parts = [("step", 0, 1), ("step", 1, 0), ("round", 0, 1), ("step", 0, 11), ("step", 0)]
    assert len({seed_from(*p) for p in parts}) == len(parts)
    assert all(0 <= seed_from(*p) < 2**63 for p in parts)


def test_pictures_may_come_from_anywhere(host):
    """The WebUI's own code, or a node's tensor: an iterable of Picture is enough, and it is read once."""
    from ti_train.dataset import Picture

    pixels = np.zeros((32, 32, 3), np.uint8)
    assert (
        len(encode_pictures(host, (Picture.cropped(f"{i}", Image.fromarray(pixels), (32, 32)) for i in range(6)))) == 6
    )
