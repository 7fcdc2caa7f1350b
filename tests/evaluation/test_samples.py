"""Samples as files: what is there is not made again, and what was made with other settings is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_host import TinyHost

from ti_train.errors import UserError
from ti_train.evaluation.samples import Sampling, folder_of, read, sample_missing
from ti_train.host import SampleRequest
from ti_train.host import Sampling as HostSampling

SMALL = {"side": 32, "number": 6, "steps": 2, "batch_size": 2}
TEXT = "a photo of a red toy"


class CountingHost(TinyHost):
    """Remembers the seeds that it sampled, and is interrupted at one of its batches."""

    def __init__(self, interrupted_at: int = 0) -> None:
        super().__init__()
        self.sampled: list[int] = []
        self.batches, self.interrupted_at = 0, interrupted_at

    def sample(self, request, words):
        self.batches += 1
        if self.batches == self.interrupted_at:
            raise KeyboardInterrupt
        self.sampled += request.seeds
        return super().sample(request, words)


def fill(host: TinyHost, folder, text: str = TEXT, **settings) -> int:
    return sum(sample_missing(host, (text,), {}, text, Sampling(**(SMALL | settings)), folder))


def test_each_seed_has_a_file_of_what_the_host_samples_with_it(tmp_path):
    assert fill(TinyHost(), tmp_path) == 6
    files = Sampling(**SMALL).files(tmp_path, TEXT)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert files[5].name.startswith("a-photo-of-a-red-toy-")
    assert files[5].name.endswith("-0005.png")
    (expected,) = TinyHost().sample(SampleRequest(((TEXT,),), (5,), 32, 32, 2), {})
    difference = np.abs(np.asarray(Image.open(files[5]), int) - np.asarray(expected, int))
    assert difference.max() <= 1, "but for the rounding of sums in another batch"


@pytest.mark.parametrize("interrupted_at", [1, 2, 3])
def test_after_an_interruption_only_what_is_missing_is_sampled(tmp_path, interrupted_at):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    fill(TinyHost(), whole)
    first, second = CountingHost(interrupted_at), CountingHost()
    with pytest.raises(KeyboardInterrupt):
        fill(first, broken)
    fill(second, broken)
    assert first.sampled + second.sampled == [0, 1, 2, 3, 4, 5]
    assert {p.name: p.read_bytes() for p in broken.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}


def test_a_larger_number_adds_to_what_is_there(tmp_path):
    fill(TinyHost(), tmp_path)
    host = CountingHost()
    assert fill(host, tmp_path, number=9) == 3
    assert host.sampled == [6, 7, 8]


def test_prompts_that_a_file_name_cannot_tell_apart_have_files_of_their_own(tmp_path):
    assert fill(TinyHost(), tmp_path, "a red, toy") == fill(TinyHost(), tmp_path, "a red toy") == 6
    assert len(list(tmp_path.iterdir())) == 12


def test_read_pictures_are_in_memory(tmp_path):
    fill(TinyHost(), tmp_path)
    pictures = read(Sampling(**SMALL).files(tmp_path, TEXT))
    for file in tmp_path.iterdir():
        file.unlink()
    assert [np.asarray(p).shape for p in pictures] == [(32, 32, 3)] * 6


def test_other_settings_than_those_of_the_samples_there_are_told(tmp_path):
    made = Sampling(**SMALL).settings(TinyHost(), "word-1")
    assert folder_of(tmp_path / "my-cat", made) == folder_of(tmp_path / "my-cat", dict(made))
    with pytest.raises(
        UserError, match=r"made with other settings: steps 2, now 50; guidance 5\.0, now 7\.5\. Use the same settings"
    ):
        folder_of(tmp_path / "my-cat", made | {"steps": 50, "guidance": 7.5})
    with pytest.raises(UserError, match="word word-1, now word-2"):
        folder_of(tmp_path / "my-cat", Sampling(**SMALL).settings(TinyHost(), "word-2"))
    other = TinyHost("v", seed=1)
    other.settings = "clip skip 2"
    with pytest.raises(UserError, match="model tiny-0, now tiny-1; settings , now clip skip 2; prediction eps, now v"):
        folder_of(tmp_path / "my-cat", Sampling(**SMALL).settings(other, "word-1"))


def test_what_an_earlier_version_did_not_record_of_samples_is_recorded_when_they_are_used(tmp_path):
    host = TinyHost()
    made = Sampling(**SMALL).settings(host, "word-1")
    recorded = {name: value for name, value in made.items() if name not in ("settings", "prediction")}
    (tmp_path / "settings.json").write_text(json.dumps(recorded))
    folder_of(tmp_path, made)
    host.settings = "clip skip 2"
    with pytest.raises(UserError, match="settings , now clip skip 2"):
        folder_of(tmp_path, Sampling(**SMALL).settings(host, "word-1"))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"number": 0}, "--number is 0; it must be at least 1"),
        ({"steps": -1}, "--steps is -1; it must be at least 1"),
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ({"side": 30}, "--resolution is 30; it must be a multiple of 8"),
    ],
)
def test_numbers_that_cannot_be(wrong, why):
    with pytest.raises(UserError, match=why):
        Sampling(**(SMALL | wrong))


def test_images_are_sampled_with_what_suits_the_models_family():
    class OfAFamily(TinyHost):
        sampling = HostSampling(4, 1.0, "euler_ancestral", "simple")

    request = Sampling(16, 2, 3, 2.5).request(OfAFamily(), (("a toy",),), (7,))
    assert (request.sampler, request.scheduler) == ("euler_ancestral", "simple")
    assert (request.steps, request.guidance, request.width, request.seeds) == (3, 2.5, 16, (7,))
