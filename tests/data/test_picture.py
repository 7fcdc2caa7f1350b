"""A picture cut to its shape: round things stay round, and little is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ti_train.data.picture import Picture, bucket, crop
from ti_train.host import Size


@pytest.mark.parametrize(
    ("size", "box"),
    [((300, 100), (110, 10, 190, 90)), ((100, 300), (10, 110, 90, 190)), ((100, 100), (10, 10, 90, 90))],
)
def test_a_circle_stays_round_and_central_whatever_the_pictures_sides(size, box):
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse(box, fill="black")
    dark = crop(picture, (64, 64))[0][..., 0] < 128
    columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
    assert len(columns) == pytest.approx(64 * 0.8, abs=2)
    assert len(rows) == pytest.approx(len(columns), abs=1)
    assert columns.mean() == pytest.approx(31.5, abs=1)
    assert rows.mean() == pytest.approx(31.5, abs=1)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (640, 480), (970, 1000)])
def test_a_circle_stays_round_in_its_bucket_too(size):
    width, height = size
    radius = min(size) * 0.4
    picture = Image.new("RGB", size, "white")
    box = [width / 2 - radius, height / 2 - radius, width / 2 + radius, height / 2 + radius]
    ImageDraw.Draw(picture).ellipse(box, fill="black")
    dark = crop(picture, bucket(size, 128))[0][..., 0] < 128
    columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
    assert len(columns) == pytest.approx(len(rows), abs=1)
    assert columns.mean() == pytest.approx((dark.shape[1] - 1) / 2, abs=1)
    assert rows.mean() == pytest.approx((dark.shape[0] - 1) / 2, abs=1)


SIDES = st.sampled_from([64, 256, 512, 520, 768, 1024])


@given(st.integers(50, 5000), st.integers(50, 5000), SIDES)
def test_a_bucket_has_about_the_squares_pixels_and_the_nearest_proportions(width, height, side):
    rows, columns = bucket((width, height), side)
    assert 0.75 * side * side < rows * columns <= side * side
    assert 0.49 * side <= min(rows, columns)
    assert max(rows, columns) <= 2 * side
    assert (rows, columns) == (side, side) or (rows % 8, columns % 8) == (0, 0)
    assert bucket((height, width), side) == (columns, rows)


@given(st.integers(50, 5000), st.integers(50, 5000), st.sampled_from([64, 256, 320, 512, 768, 1024]))
def test_sides_are_multiples_of_what_the_model_needs(width, height, side):
    for unit in (16, 32):
        rows, columns = bucket((width, height), side, unit)
        assert (rows % unit, columns % unit) == (0, 0)
        assert rows * columns <= side * side


@given(st.floats(0.25, 4), SIDES)
def test_little_of_a_picture_is_cut_off(aspect, side):
    """A square cuts half of a picture that is twice as wide as high; a bucket a fifth at most, whatever the sides."""
    rows, columns = bucket((round(4000 * aspect), 4000), side)
    kept = math.exp(-abs(math.log(columns / rows / aspect)))
    assert kept > 0.8


@given(st.integers(1, 5000), SIDES)
def test_a_square_stays_a_square_of_the_very_side(length, side):
    assert bucket((length, length), side) == (side, side)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((4032, 3024), (448, 576)), ((3024, 4032), (576, 448)), ((1920, 1080), (384, 640)), ((3000, 500), (256, 1024))],
)
def test_a_cameras_proportions_at_512(size, shape):
    assert bucket(size, 512) == shape


def test_a_size_tells_where_a_picture_was_cut():
    """Stable Diffusion XL is told so: scaled to cover, then cut at the top left."""
    _, size = crop(Image.new("RGB", (1920, 1080)), (384, 640))
    assert size == Size(original=(1080, 1920), crop=(0, round((1920 * 384 / 1080 - 640) / 2)), target=(384, 640))


def test_a_mirrored_picture_keeps_all_else():
    picture = Picture.cropped("a", Image.linear_gradient("L").convert("RGB").rotate(90), (32, 32), "text", repeats=3)
    mirrored = picture.mirrored()
    assert np.array_equal(mirrored.pixels[:, ::-1], picture.pixels)
    assert (mirrored.name, mirrored.size, mirrored.caption, mirrored.repeats) == ("a", picture.size, "text", 3)
