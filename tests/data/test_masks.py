"""Masks: found beside their pictures, cropped with them, and the only part of a picture that is learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from tiny_host import TinyHost, dataset_of
from torch import Tensor

from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures, weights_of
from ti_train.data.listing import Listing
from ti_train.data.picture import Picture
from ti_train.errors import UserError
from ti_train.formats import load_embedding
from ti_train.prompts import Templates
from ti_train.training.loop import train
from ti_train.training.objective import denoising_loss
from ti_train.training.validation import ValidationBatch

RED = (220, 30, 30)
LEFT = (0, 0, 8, 32)  # the first column of the tiny model's four latents


def left_of(size: tuple[int, int] = (32, 32), colour: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(colour, (0, 0, size[0] // 4, size[1]))
    return mask


def read(folder, source: str = "files", resolution: int = 32) -> tuple[list[Picture], list[str]]:
    warnings: list[str] = []
    return list(read_pictures(find_pictures(folder), resolution, warnings, masks=source)), warnings


def learnt(host: TinyHost, pictures, config, folder) -> Tensor:
    for _ in train(host, encode_pictures(host, pictures), config, folder):
        pass
    return load_embedding(folder / f"{config.name}.safetensors").vectors["emb_params"]


@pytest.fixture
def run(settings):
    return settings(steps=3)


# --- Finding --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cat-mask.png", "cat-masklabel.png", "masks/cat.jpg", "masks/cat.png"])
def test_a_mask_is_found_by_its_pictures_name_and_is_no_picture_itself(tmp_path, name):
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (32, 32), RED).save(tmp_path / "cat.jpg")
    left_of().save(tmp_path / name)
    assert find_pictures(tmp_path) == [tmp_path / "cat.jpg"]
    assert Listing.of(tmp_path).masks == {tmp_path / "cat.jpg": tmp_path / name}
    ((picture,), warnings) = read(tmp_path)
    assert warnings == []
    if name.endswith(".png"):
        assert np.array_equal(picture.mask, np.asarray(left_of()))


def test_a_picture_that_is_only_called_so_is_a_picture(tmp_path):
    """A cat with a mask on."""
    Image.new("RGB", (32, 32)).save(tmp_path / "cat-mask.png")
    assert find_pictures(tmp_path) == [tmp_path / "cat-mask.png"]


def test_masks_are_no_pictures_where_they_are_not_used_either(tmp_path):
    for name, colour in (("a.png", 1), ("b.png", 2), ("b-mask.png", 3)):
        left_of(colour=colour).save(tmp_path / name)
    pictures, warnings = read(tmp_path, "none")
    assert [(p.name, p.mask) for p in pictures] == [("a.png", None), ("b.png", None)]
    assert warnings == []


# --- Reading --------------------------------------------------------------------


def test_an_alpha_channel_is_a_mask_only_where_it_is_asked_for(tmp_path):
    picture = Image.new("RGBA", (32, 32), (*RED, 0))
    picture.paste((*RED, 255), LEFT)
    picture.save(tmp_path / "cutout.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "opaque.png")
    for source in ("files", "none"):
        assert [p.mask for p in read(tmp_path, source)[0]] == [None, None]
    cutout, opaque = read(tmp_path, "alpha")[0]
    assert np.array_equal(cutout.mask, np.asarray(left_of()))
    assert opaque.mask is None


def test_a_mask_file_goes_before_the_alpha_channel(tmp_path):
    Image.new("RGBA", (32, 32), (*RED, 128)).save(tmp_path / "a.png")
    left_of().save(tmp_path / "a-mask.png")
    assert np.array_equal(read(tmp_path, "alpha")[0][0].mask, np.asarray(left_of()))


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "RGBA", "I;16"])
def test_a_mask_may_be_any_kind_of_picture(tmp_path, mode):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    sixteen_bits = Image.fromarray(np.asarray(left_of()).astype(np.uint16) * 257)
    mask = sixteen_bits if mode == "I;16" else left_of().convert(mode)
    mask.save(tmp_path / "a-mask.png")
    assert np.array_equal(read(tmp_path)[0][0].mask, np.asarray(left_of()))


@pytest.mark.parametrize("size", [(90, 40), (40, 90), (64, 64)])
@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_a_mask_is_cropped_as_its_picture_is_whatever_its_scale(tmp_path, size, scale):
    picture = Image.new("RGB", size, "black")
    ImageDraw.Draw(picture).rectangle([size[0] // 2, size[1] // 4, size[0] - 1, size[1] // 2], fill="white")
    picture.save(tmp_path / "a.png")
    mask = picture.convert("L").resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BOX)
    mask.save(tmp_path / "a-mask.png")
    ((read_one,), warnings) = read(tmp_path)
    assert warnings == []
    assert np.abs(read_one.mask.astype(int) - read_one.pixels[..., 0]).mean() < 8  # of 255: the edges' own blur


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (Image.new("L", (64, 48), 255), "the mask has 64 x 48 pixels, but the image 64 x 64"),
        (Image.new("L", (64, 64)), "the mask is black over the whole crop"),
        (None, "the mask is not a readable image, or it is damaged"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_named_and_its_picture_left_out(tmp_path, mask, why):
    """Learning the whole picture instead would teach the very thing that was masked."""
    for name in ("bad.png", "good.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    if mask:
        mask.save(tmp_path / "bad-mask.png")
    else:
        (tmp_path / "bad-mask.png").write_bytes(b"GIF89a")
    pictures, (warning,) = read(tmp_path)
    assert [p.name for p in pictures] == ["good.png"]
    assert warning.startswith("Skipped bad.png (mask bad-mask.png): " + why)


def test_a_mask_whose_white_is_cropped_away_leaves_nothing_to_learn():
    with pytest.raises(UserError, match="the mask is black over the whole crop"):
        Picture.cropped("a", Image.new("RGB", (128, 32)), (32, 32), mask=left_of((128, 32)))


def test_a_mask_of_one_pixel_more_or_less_is_rounding():
    for size in ((333, 250), (332, 250), (334, 250)):
        assert Picture.cropped("a", Image.new("RGB", (1000, 750)), (32, 32), mask=Image.new("L", size, 9)).mask.max()


# --- Weighing -------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 255), min_size=64, max_size=64).filter(any),
    st.sampled_from([(8, 8), (4, 4), (2, 4), (1, 1)]),
)
@examples(max_examples=50)
def test_weights_are_the_masks_mean_over_a_latent_against_its_mean_over_the_picture(values, shape):
    mask = np.array(values, np.uint8).reshape(8, 8)
    weights = weights_of(mask, shape)
    rows, columns = 8 // shape[0], 8 // shape[1]
    blocks = mask.reshape(shape[0], rows, shape[1], columns).mean((1, 3)) / mask.mean()
    assert weights.shape == (1, *shape)
    assert np.allclose(weights[0], blocks, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 255), st.sampled_from([(4, 4), (8, 6), (3, 5)]))
def test_a_mask_of_one_tone_weighs_nothing_at_all(tone, shape):
    mask = np.full((shape[0] * 8, shape[1] * 8), tone, np.uint8)
    assert torch.equal(weights_of(mask, shape), weights_of(None, shape))


def test_the_loss_is_the_weighted_mean_and_ones_leave_it_as_it_is():
    generator = torch.Generator().manual_seed(0)
    predicted, wanted = (torch.randn(3, 4, 5, 6, generator=generator) for _ in range(2))
    plain = (predicted - wanted).pow(2).flatten(1).mean(1)
    assert torch.equal(denoising_loss(predicted, wanted, torch.ones(3, 1, 5, 6)), plain)
    weights = torch.rand(3, 1, 5, 6, generator=generator)
    weights /= weights.mean((1, 2, 3), keepdim=True)
    expected = [np.average((predicted - wanted)[i].pow(2).mean(0).numpy(), weights=weights[i, 0]) for i in range(3)]
    assert torch.allclose(denoising_loss(predicted, wanted, weights), torch.tensor(expected, dtype=torch.float32))


def test_a_small_mask_does_not_mean_a_small_loss():
    error = torch.ones(1, 4, 4, 4)
    for mask in (left_of(), left_of(colour=1), None):
        weights = weights_of(None if mask is None else np.asarray(mask), (4, 4))[None]
        assert float(denoising_loss(error, torch.zeros(1, 4, 4, 4), weights)) == pytest.approx(1)


# --- Learning -------------------------------------------------------------------


def before(background: str, mask: Image.Image | None) -> Picture:
    """A red stripe before a background two latents away, further than the tiny model sees."""
    image = Image.new("RGB", (32, 32), RED)
    image.paste(background, (24, 0, 32, 32))
    return Picture.cropped("a", image, (32, 32), mask=mask)


def test_a_background_that_changes_moves_neither_the_losses_nor_the_word(run, tmp_path):
    host, config = TinyHost(), run
    words, validation_losses = [], []
    for mask in (left_of(), None):
        for background in ("black", "yellow"):
            picture = before(background, mask)
            dataset = encode_pictures(host, [picture])
            batch = ValidationBatch.draw(host, dataset, Templates.load("object"), config)
            toy = {"*": {"clip_tiny": host.vocabulary("clip_tiny").rows("toy")}}
            validation_losses.append(batch.loss(host, toy))
            words.append(learnt(host, [picture], config, tmp_path / f"{background}-{mask is None}"))
    assert torch.equal(words[0], words[1])
    assert validation_losses[0] == validation_losses[1]
    assert not torch.equal(words[2], words[3])
    assert validation_losses[2] != validation_losses[3]


def test_a_white_mask_learns_the_very_word_of_none(run, tmp_path):
    host, config = TinyHost(), run
    white, none = (
        learnt(host, [before("blue", mask)], config, tmp_path / str(mask is None))
        for mask in (Image.new("L", (32, 32), 255), None)
    )
    assert torch.equal(white, none)


def test_a_mirrored_picture_has_a_mirrored_mask():
    dataset = encode_pictures(TinyHost(), [before("blue", left_of())], flip=True)
    assert torch.equal(dataset.pictures[1].weights, dataset.pictures[0].weights.flip(-1))


def test_the_fingerprint_tells_masks_apart(tmp_path):
    host = TinyHost()
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    without = dataset_of(host, tmp_path)
    left_of().save(tmp_path / "a-mask.png")
    fingerprints = {without.fingerprint, dataset_of(host, tmp_path).fingerprint}
    left_of(colour=100).save(tmp_path / "a-mask.png")
    assert len(fingerprints | {dataset_of(host, tmp_path).fingerprint}) == 3


def test_a_mask_that_looks_like_a_training_image_is_reported(tmp_path):
    """A cat that wears a mask may be called so."""
    for name, colour in (("cat", "grey"), ("cat-mask", "orange"), ("dog", "grey"), ("dog-mask", "white")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    warnings: list[str] = []
    assert len(list(read_pictures(find_pictures(tmp_path), 32, warnings))) == 2
    (said,) = [warning for warning in warnings if "mask" in warning]
    assert said.startswith("cat-mask.png is used as a mask, but it has colours.")
