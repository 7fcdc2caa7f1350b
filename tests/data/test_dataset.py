"""The training set: found in folders, encoded once, and shown in a fixed shuffled order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_host import TinyHost, dataset_of

from ti_train.data.dataset import (
    Dataset,
    Encoded,
    encode_pictures,
    find_pictures,
    read_pictures,
    weights_of,
    with_repeats,
)
from ti_train.data.picture import Picture
from ti_train.errors import UserError
from ti_train.host import Size
from ti_train.seeds import seed_from
from ti_train.training.micro_batches import draw_latents

RED, BLUE = (220, 30, 30), (30, 30, 220)


# --- Finding --------------------------------------------------------------------


def test_a_folder_is_repeated_by_a_number_behind_it_and_never_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("2024_holiday", "odd:2"):
        (tmp_path / name).mkdir()
    given = ["2024_holiday", "odd:2", "odd:2:4", "cats:3", "C:\\cats:3", "dogs:0", ":5"]
    paths = ["2024_holiday", "odd:2", "odd:2", "cats", "C:\\cats", "dogs:0", ":5"]
    repeats = [1, 4, 4, 3, 3, 1, 1]
    assert with_repeats(given) == dict(zip(map(Path, paths), repeats, strict=True))


def test_zeros_before_a_number_of_repeats_do_not_count():
    assert with_repeats(["cats:000000003", "dogs:0"]) == {Path("cats"): 3, Path("dogs:0"): 1}


@pytest.mark.parametrize("times", ["10001", "99999999", "9" * 5000])
def test_more_repeats_than_fit_into_memory_are_refused(times):
    """Each is an entry of a list: a server would end for want of memory."""
    with pytest.raises(UserError, match=r"'cats' is to be repeated .* 10000 are possible"):
        with_repeats([f"cats:{times}"])


def test_pictures_are_found_by_name_whatever_the_case_of_their_ending(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.webp", "notes.txt", "d.png.part"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"The folder .*none"):
        find_pictures(tmp_path / "none")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "cat.png").touch()
    with pytest.raises(UserError, match=r"The folder .*cat\.png"):
        find_pictures(tmp_path / "cat.png")


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="has no images"):
        find_pictures(tmp_path)


def test_no_usable_picture_at_all_is_refused(host, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    warnings: list[str] = []
    read = read_pictures(find_pictures(tmp_path), 32, warnings)
    with pytest.raises(UserError, match=r"None of the images can be used[^$]*\nSkipped bad\.png: the file is empty\."):
        encode_pictures(host, read, skipped=warnings)


def test_a_vae_that_answers_nothing_finite_is_told_with_its_image(host, pictures):
    host.vae.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"The VAE encodes blue\.png to values that are not finite"):
        dataset_of(host, pictures)


# --- Encoding -------------------------------------------------------------------


@pytest.mark.parametrize("has_variance", [True, False])
def test_latents_are_the_vaes_own_for_every_picture(pictures, has_variance):
    host = TinyHost(has_variance=has_variance)
    dataset = dataset_of(host, pictures)
    for i, path in enumerate(find_pictures(pictures)):
        picture = Picture.cropped(path.name, Image.open(path).convert("RGB"), (32, 32))
        expected, encoded = host.latents(torch.from_numpy(picture.pixels.copy())[None]), dataset.pictures[i]
        assert torch.allclose(encoded.mean, expected.mean[0], atol=1e-6)
        if has_variance:
            assert torch.allclose(encoded.log_variance, expected.log_variance[0], atol=1e-6)
        assert (encoded.log_variance is not None) == has_variance


def test_the_vae_sees_every_picture_once(host, pictures):
    seen = []
    hook = host.vae.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    dataset = dataset_of(host, pictures)
    for position in range(9):
        draw_latents(dataset.take(position, 2, 0), torch.Generator())
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
    assert [picture.name for picture in mirrored.pictures] == ["a.png", "a.png"]
    assert all(torch.equal(m.mean, p.mean) for m, p in zip(mirrored.pictures, plain.pictures, strict=True))


def test_flip_doubles_a_dataset_of_more_than_one_chunk_with_its_captions(host, tmp_path):
    for i in range(5):
        Image.new("RGB", (32, 32), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"number {i}", encoding="utf-8")
    dataset = dataset_of(host, tmp_path, flip=True, captions=True)
    assert sorted(p.name for p in dataset.pictures) == sorted(f"{i}.png" for i in range(5) for _ in range(2))
    assert all(picture.caption == f"number {picture.name[0]}" for picture in dataset.pictures)


@pytest.mark.parametrize("flip", [False, True])
def test_the_vae_encodes_one_picture_at_a_time_and_a_group_before_its_mirrored_copies(host, tmp_path, flip):
    for i in range(5):
        Image.new("RGB", (32, 32), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
    latents, batches = host.latents, []
    host.latents = lambda pictures: batches.append(len(pictures)) or latents(pictures)
    dataset = dataset_of(host, tmp_path, flip=flip)
    assert set(batches) == {1}
    order = "0123" * 2 + "44" if flip else "01234"
    assert [picture.name for picture in dataset.pictures] == [f"{number}.png" for number in order]


def test_the_fingerprint_tells_pictures_flips_and_captions_apart(host, pictures, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "other.png")
    (tmp_path / "other.txt").write_text("dog", encoding="utf-8")
    kinds = [
        dataset_of(host, pictures),
        dataset_of(host, pictures, flip=True),
        dataset_of(host, pictures, captions=True),
        dataset_of(host, tmp_path),
        encode_pictures(host, read_pictures(find_pictures(pictures), 32, [], repeats={pictures: 2})),
        encode_pictures(host, read_pictures(find_pictures(pictures), 40, [])),
    ]
    assert len({dataset.fingerprint for dataset in kinds}) == len(kinds)
    assert dataset_of(host, pictures).fingerprint == kinds[0].fingerprint


# --- Drawing --------------------------------------------------------------------


def dataset_of_size(count: int, log_variance: float | None = None, repeats: tuple[int, ...] | None = None) -> Dataset:
    """Picture i has latents that are i everywhere."""
    variance = None if log_variance is None else torch.full((4, 2, 2), log_variance)
    size, weights = Size((16, 16), (0, 0), (16, 16)), torch.ones(1, 2, 2)
    pictures = (
        Encoded(str(i), i, torch.full((4, 2, 2), float(i)), variance, weights, size, "", times)
        for i, times in enumerate(repeats or (1,) * count)
    )
    return Dataset(tuple(pictures), "")


def names(dataset: Dataset, position: int, count: int, seed: int = 0) -> list[str]:
    return [picture.name for picture in dataset.take(position, count, seed)]


@given(count=st.integers(1, 12), seed=st.integers(0, 2**32), first=st.integers(0, 100))
@settings(max_examples=50)
def test_every_round_shows_every_picture_once(count, seed, first):
    dataset = dataset_of_size(count)
    for number in range(first, first + 3):
        assert sorted(map(int, names(dataset, number * count, count, seed))) == list(range(count))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple), st.integers(0, 20))
@settings(max_examples=50)
def test_a_round_shows_a_picture_as_often_as_it_is_repeated(repeats, number):
    dataset, size = dataset_of_size(len(repeats), repeats=repeats), sum(repeats)
    counted = Counter(names(dataset, number * size, size))
    assert tuple(counted[str(i)] for i in range(len(repeats))) == repeats


@given(position=st.integers(0, 50), count=st.integers(0, 20))
@settings(max_examples=50)
def test_the_order_follows_from_seed_and_position_alone(position, count):
    dataset = dataset_of_size(5)
    assert names(dataset, position, count, 3) == names(dataset, 0, 70, 3)[position : position + count]


def test_rounds_and_seeds_differ():
    dataset = dataset_of_size(8)
    orders = [names(dataset, 0, 8), names(dataset, 8, 8), names(dataset, 0, 8, seed=1)]
    assert len(set(map(tuple, orders))) == 3


def test_without_a_variance_a_draw_is_the_mean():
    pictures = dataset_of_size(5).pictures
    drawn = draw_latents([pictures[4], pictures[1], pictures[1]], torch.Generator())
    assert [latent.unique().tolist() for latent in drawn] == [[4], [1], [1]]


def test_a_draw_from_the_posterior_has_its_mean_and_deviation():
    deviation = 0.25
    pictures = dataset_of_size(3, 2 * float(np.log(deviation))).pictures
    drawn = torch.stack(draw_latents([pictures[2]] * 4000, torch.Generator().manual_seed(0)))
    assert drawn.mean().item() == pytest.approx(2, abs=0.01)
    assert drawn.std().item() == pytest.approx(deviation, rel=0.02)


def test_seeds_come_from_all_their_parts():
    parts = [("step", 0, 1), ("step", 1, 0), ("round", 0, 1), ("step", 0, 11), ("step", 0)]
    assert len({seed_from(*p) for p in parts}) == len(parts)
    assert all(0 <= seed_from(*p) < 2**63 for p in parts)


def test_pictures_may_come_from_anywhere(host):
    """The WebUI's own code, or a node's tensor: an iterable of Picture is enough, and it is read once."""
    black = Image.new("RGB", (32, 32))
    assert len(encode_pictures(host, (Picture.cropped(str(i), black, (32, 32)) for i in range(6)))) == 6


def test_the_resolution_is_that_of_a_square_with_as_many_pixels(host):
    image = Image.new("RGB", (64, 64))
    for shapes, resolution in (([(40, 40)], 40), ([(32, 32), (24, 40)], 32), ([(24, 40)], 32)):
        dataset = encode_pictures(host, [Picture.cropped("a", image, shape) for shape in shapes])
        assert dataset.resolution == resolution


def test_weights_of_a_mask_are_in_fp32():
    assert weights_of(np.array([[0, 255], [51, 102]], np.uint8), (2, 2)).dtype == torch.float32
