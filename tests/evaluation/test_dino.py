"""DINOv2's features: a random model of true architecture against transformers' own preprocessing and output."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_dino import write_dino

from ti_train.errors import UserError
from ti_train.evaluation.dino import Dino

with_dino = pytest.mark.skipif(not hasattr(transformers, "Dinov2Model"), reason="this transformers has no DINOv2")


def picture(seed: int, width: int = 300, height: int = 200) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not hasattr(transformers, "Dinov2Model"):
        pytest.skip("this transformers has no DINOv2")
    return write_dino(tmp_path_factory.mktemp("dino"))


@pytest.mark.parametrize(
    ("pictures", "nearly"),
    [([picture(0), picture(1, 200, 260)], 2e-3), ([Image.new("RGB", (300, 200), "orange")], 1e-5)],
    ids=["scaled", "without anything to scale"],
)
def test_it_computes_what_transformers_does(folder, pictures, nearly):
    from transformers import BitImageProcessor, Dinov2Model

    prepare = BitImageProcessor(  # as in facebook/dinov2-base
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=Image.Resampling.BICUBIC,
    )
    model = Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        tokens = [model(**prepare(one, return_tensors="pt")).last_hidden_state[0, 0] for one in pictures]
    wanted = torch.stack([token / token.norm() for token in tokens])
    assert torch.allclose(Dino.load(folder).features(pictures), wanted, atol=nearly)


def test_more_pictures_than_one_pass_takes_give_the_same_features(folder):
    dino, pictures = Dino.load(folder), [picture(seed) for seed in range(18)]
    assert torch.allclose(dino.features(pictures)[17], dino.features(pictures[17:])[0], atol=1e-5)


def test_a_version_without_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    with pytest.raises(UserError, match=r"DINOv2 needs transformers 4\.32 or newer"):
        Dino.load(tmp_path)


@with_dino
def test_a_folder_without_a_model_says_what_is_wanted(tmp_path):
    with pytest.raises(UserError, match=r"no config.json. DINOv2-base is facebook/dinov2-base"):
        Dino.load(tmp_path)


@with_dino
def test_a_folder_with_another_model_is_refused(tmp_path):
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded|is no DINOv2 model"):
        Dino.load(tmp_path)
