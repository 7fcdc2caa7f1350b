"""Measures beside the paper's: known answers in a space of three features, red, green and blue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ti_train.data.picture import Picture
from ti_train.errors import UserError
from ti_train.evaluation.measures import gallery, likeness, masked, part_of, retrieval
from ti_train.host import Size

RED, GREEN, BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def colours(pictures) -> torch.Tensor:
    """The mean colour as a vector of unit norm."""
    means = np.stack([np.asarray(picture, np.float64).reshape(-1, 3).mean(0) + 1e-9 for picture in pictures])
    return torch.nn.functional.normalize(torch.from_numpy(means), dim=-1)


def test_likeness_is_the_mean_over_all_pairs():
    measure = likeness("colour", colours, [plain(RED), plain(GREEN)])
    assert measure.of([plain(RED), plain(BLUE)]) == pytest.approx(1 / 4)
    assert measure.of_pictures == pytest.approx(0, abs=1e-6)


@pytest.fixture
def red_on_blue() -> Picture:
    """Red in the middle, which the mask shows; blue around it."""
    pixels, mask = np.full((8, 8, 3), BLUE, np.uint8), np.zeros((8, 8), np.uint8)
    pixels[2:6, 2:6], mask[2:6, 2:6] = RED, 255
    return Picture("a.png", pixels, Size((8, 8), (0, 0), (8, 8)), mask=mask)


def test_a_masks_parts_are_painted_in_the_mean_colour_elsewhere(red_on_blue):
    subject, background = (np.asarray(part_of(red_on_blue, shown)) for shown in (True, False))
    mean = (round(255 / 4), 0, round(255 * 3 / 4))
    assert tuple(subject[3, 3]) == RED
    assert tuple(subject[0, 0]) == mean
    assert tuple(background[0, 0]) == BLUE
    assert tuple(background[3, 3]) == mean


def test_a_sample_with_the_background_is_more_like_the_background(red_on_blue):
    subject, background = masked("colour", colours, [red_on_blue])
    assert subject.of([plain(RED)]) > background.of([plain(RED)])
    assert subject.of([plain(BLUE)]) < background.of([plain(BLUE)])
    assert background.of([plain(BLUE)]) > background.of([plain(RED)])


def test_without_masks_there_is_nothing_to_tell_apart(red_on_blue):
    unmasked = Picture("a.png", red_on_blue.pixels, red_on_blue.size)
    assert masked("colour", colours, [unmasked]) == []
    white = Picture("a.png", red_on_blue.pixels, red_on_blue.size, mask=np.full((8, 8), 255, np.uint8))
    assert masked("colour", colours, [white]) == [], "a mask that hides nothing is none"
    both, alone = (masked("colour", colours, pictures) for pictures in ([white, red_on_blue], [red_on_blue]))
    assert [measure.of_pictures for measure in both] == [measure.of_pictures for measure in alone]


def test_a_sample_is_found_at_the_rank_of_its_subjects_nearest_image():
    """Of the others, two are nearer to violet than blue is."""
    others = [plain((200, 0, 255)), plain((210, 0, 255)), plain(GREEN)]
    measure = retrieval("colour", colours, [plain(BLUE)], others)
    assert measure.of([plain(BLUE)]) == 1
    assert measure.of([plain((205, 0, 255))]) == pytest.approx(1 / 3)
    assert measure.of([plain(BLUE), plain((205, 0, 255))]) == pytest.approx(2 / 3)


@pytest.fixture
def own() -> list[Picture]:
    return [Picture("0.png", np.full((64, 64, 3), RED, np.uint8), Size((64, 64), (0, 0), (64, 64)))]


def test_a_gallery_leaves_out_the_training_images_wherever_they_are(tmp_path, own):
    """Its folders may be nested and empty."""
    for name, colour in (("mine", RED), ("pets/dogs", GREEN), ("pets/mixed", RED), ("third", BLUE)):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), colour).save(tmp_path / name / "0.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "third" / "1.png").write_bytes(b"no image")
    warnings: list[str] = []
    found = [picture.getpixel((0, 0)) for picture in gallery(tmp_path, own, 64, warnings)]
    assert found == [GREEN, BLUE]
    (warning,) = warnings
    assert "1.png" in warning


def test_a_gallery_without_others_is_refused(tmp_path, own):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="has no subfolders with images of other things"):
        gallery(tmp_path, own, 64, [])
