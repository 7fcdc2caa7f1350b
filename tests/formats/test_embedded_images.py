"""Embeddings in pictures: A1111's chunk and its panels, and pictures that are made to harm."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample_files import a1111_json, card, panels

from ti_train.drawing.card import draw_card
from ti_train.embedding import SINGLE, Embedding
from ti_train.errors import UserError
from ti_train.formats import load_embedding, write_embedding
from ti_train.formats.embedded_images import CHUNK, from_json, read_picture, to_json

VECTORS = torch.randn(2, 16)


@settings(max_examples=30)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_json_keeps_every_fp32_value_to_the_bit(values):
    rows = torch.tensor([values])
    assert from_json(to_json({"v": rows}))["v"].numpy().tobytes() == rows.numpy().tobytes()


def test_a_card_shows_the_word_and_holds_it_in_a1111s_chunk(tmp_path):
    word = Embedding("my-cat", {SINGLE: VECTORS}, {"step": "7", "sd_checkpoint_name": "model-a"})
    write_embedding(word, tmp_path / "my-cat.png", "png")
    picture = Image.open(tmp_path / "my-cat.png")
    data = json.loads(base64.b64decode(picture.text[CHUNK]))
    assert (data["name"], data["step"], data["sd_checkpoint_name"]) == ("my-cat", 7, "model-a")
    assert torch.equal(torch.tensor(data["string_to_param"]["*"]["TORCHTENSOR"]), VECTORS)
    other = draw_card("another", [], [VECTORS])
    assert picture.size == other.size
    assert picture.tobytes() != other.tobytes(), "the word stands on it"


@pytest.mark.parametrize("name", ["я-кот", "猫", "a very long name " * 6])
def test_a_card_can_be_drawn_for_any_name(tmp_path, name):
    write_embedding(Embedding(name, {SINGLE: VECTORS}), tmp_path / "x.png", "png")
    assert load_embedding(tmp_path / "x.png").name == name


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_panels_outlast_the_chunk(kind):
    _, content, _ = read_picture(panels(zlib.compress(a1111_json(VECTORS)), kind))
    assert torch.equal(content["string_to_param"]["*"], VECTORS)


def pixels_of(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def plain() -> bytes:
    return pixels_of(Image.linear_gradient("L").convert("RGB"), "PNG")


def black() -> bytes:
    return pixels_of(Image.new("RGB", (8, 8)), "PNG")


def panels_saved_with_loss() -> bytes:
    picture = Image.open(io.BytesIO(panels(zlib.compress(a1111_json(VECTORS)))))
    return pixels_of(picture, "WEBP", quality=80)


def panels_that_unpack_to_much() -> bytes:
    return panels(zlib.compress(bytes(2**26), 9), height=128)


def larger_than_any_card() -> bytes:
    return pixels_of(Image.new("1", (4096, 4096)), "PNG")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claims_to_be_huge() -> bytes:
    """100000 x 100000 pixels, and nothing of them there."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def a_chunk_that_unpacks_to_much() -> bytes:
    packed = b"sd-ti-embedding\0\0" + zlib.compress(b"A" * 2**26, 9)
    start = black()
    return start[:33] + chunk(b"zTXt", packed) + start[33:]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (plain, "is an image without an embedding"),
        (black, "is an image without an embedding"),
        (panels_saved_with_loss, "is an image without an embedding"),
        (panels_that_unpack_to_much, "unpacks to more than 32 MiB"),
        (larger_than_any_card, "has 4096 x 4096 pixels, more than any embedding needs"),
        (claims_to_be_huge, "is not a readable embedding|pixels, more than any"),
        (a_chunk_that_unpacks_to_much, "is not a readable embedding"),
        (lambda: card(b"not json"), "is not a readable embedding"),
        (lambda: card(b"[" * 100_000), "is not a readable embedding"),
        (
            lambda: card(b'{"string_to_param": {"*": {"TORCHTENSOR": [[1, 2], [3]]}}}'),
            "is not a readable embedding",
        ),
        (lambda: card(b'{"string_to_param": {"*": {"TORCHTENSOR": [["a"]]}}}'), "is not a readable embedding"),
        (lambda: card(b'{"string_to_param": {"*": {"TORCHTENSOR": [[NaN]]}}}'), "NaN or infinite values"),
        (lambda: card(b'{"string_to_param": {"*": {"TORCHTENSOR": [[1e300]]}}}'), "NaN or infinite values"),
        (lambda: card(b'{"string_to_param": {"*": [1]}}'), "holds no tensor"),
        (lambda: card(a1111_json(VECTORS))[:-200], "is not a readable embedding"),
    ],
)
def test_a_picture_without_a_word_or_made_to_harm_is_refused(tmp_path, make, why):
    (tmp_path / "x.png").write_bytes(make())
    with pytest.raises(UserError, match=f"^'x.png' .*({why})"):
        load_embedding(tmp_path / "x.png")
