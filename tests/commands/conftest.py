"""What the commands' tests share: short trainings, two words as files, and the sentence that a mistake ends with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_host import at_forward, raising

from ti_train.__main__ import main


@pytest.fixture
def train(pipeline_folder, pictures, tmp_path):
    """Runs `train` with a few quick steps, and what is given, into tmp_path; returns the exit code."""

    def train(
        *more: str, model: Path = pipeline_folder, images: Path = pictures, name: str = "my-toy", out: Path = tmp_path
    ) -> int:
        given = ["--model", model, "--images", images, "--name", name, "--init", "toy", "--out", out]
        quick = ["--steps", "3", "--batch-size", "2", "--device", "cpu", "--dtype", "float32"]
        return main(["train", *map(str, given), *quick, *more])

    return train


@pytest.fixture
def interrupted(train, capsys, monkeypatch):
    """Runs `train` with a Ctrl-C in a forward pass of its steps, counted from 1; returns what stands on stderr."""
    from ti_train.hosts.diffusers.host import DiffusersHost

    def interrupted(forward: int, *more: str, **places: Path | str) -> str:
        load = DiffusersHost.load
        with ExitStack() as hooks, monkeypatch.context() as patches:

            def loaded(*arguments):
                host = load(*arguments)
                hooks.enter_context(at_forward(host.unet, [forward], raising(KeyboardInterrupt())))
                return host

            patches.setattr(DiffusersHost, "load", loaded)
            capsys.readouterr()
            assert train(*more, **places) == 130
            return capsys.readouterr().err

    return interrupted


@pytest.fixture
def the_sentence(capsys) -> Callable[[], str]:
    """The last line on stderr, for people; what is not used of the images may come before it."""

    def the_sentence() -> str:
        *_, line = capsys.readouterr().err.splitlines()
        assert line.startswith("ti_train: ")
        return line

    return the_sentence


@pytest.fixture
def words(tmp_path) -> list[Path]:
    """Two learnt words as files, of one and of two vectors."""
    paths = [tmp_path / "my-cat.safetensors", tmp_path / "my-dog.safetensors"]
    for seed, path in enumerate(paths):
        vectors = 0.3 * torch.randn(seed + 1, 32, generator=torch.Generator().manual_seed(seed))
        save_file({"emb_params": vectors}, path)
    return paths
