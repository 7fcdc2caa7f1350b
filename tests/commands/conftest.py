"""What the commands' tests share: two words as files, and the sentence that a mistake ends with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


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
