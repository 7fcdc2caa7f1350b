"""The paper's two similarities: cases with known answers, and a random CLIP against a computation of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from ti_train.errors import UserError
from ti_train.evaluation.clip import (
    Clip,
    ClipJudge,
    image_similarity,
    similarity_among,
    text_similarity,
    without_placeholder,
)

EAST, NORTH, UP = torch.eye(3)


def test_equal_features_are_alike_and_orthogonal_ones_are_not():
    assert image_similarity(EAST[None], EAST[None]) == 1
    assert image_similarity(EAST[None], torch.stack([NORTH, UP])) == 0


def test_the_image_similarity_is_the_mean_of_all_pairs():
    """Of six pairs two are equal."""
    assert image_similarity(torch.stack([EAST, NORTH]), torch.stack([EAST, NORTH, UP])) == pytest.approx(2 / 6)


def test_among_training_pictures_no_picture_is_compared_with_itself():
    assert similarity_among(torch.stack([EAST, NORTH, UP])) == 0
    assert similarity_among(torch.stack([EAST, EAST, NORTH])) == pytest.approx(1 / 3)
    assert similarity_among(EAST[None]) == 1


def test_the_text_is_compared_with_the_mean_of_the_samples():
    """The mean of cosines, 1/2, is not the cosine of the mean."""
    assert text_similarity(torch.stack([EAST, NORTH]), EAST) == pytest.approx(math.sqrt(1 / 2))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a photo of * on the moon", "a photo of on the moon"),
        ("an oil painting of *", "an oil painting of"),
        ("* beside a *", "beside a"),
    ],
)
def test_texts_are_compared_without_their_placeholder(prompt, text):
    assert without_placeholder(prompt) == text


# --- a CLIP with random weights ---------------------------------------------------


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def clip(clip_weights) -> Clip:
    return Clip.load("tiny-clip", str(clip_weights))


def test_it_computes_what_a_plain_computation_does(clip_weights, clip):
    """Resize, crop, normalise, encode, and cosines one at a time."""
    import open_clip

    pictures, samples, prompt = [picture(i) for i in range(3)], [picture(i, 40, 56) for i in (7, 8)], "a * backpack"
    model = open_clip.create_model("tiny-clip", pretrained=str(clip_weights)).eval()

    def encoded(image: Image.Image) -> np.ndarray:
        scale = 32 / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
        values = np.asarray(image.crop((left, top, left + 32, top + 32)), np.float32) / 255
        values = (values - (0.48145466, 0.4578275, 0.40821073)) / (0.26862954, 0.26130258, 0.27577711)
        with torch.no_grad():
            return model.encode_image(torch.from_numpy(values).float().permute(2, 0, 1)[None])[0].numpy()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    pairs = [cosine(encoded(sample), encoded(own)) for sample in samples for own in pictures]
    among = [cosine(encoded(pictures[i]), encoded(pictures[j])) for i in range(3) for j in range(3) if i != j]
    with torch.no_grad():
        text = model.encode_text(open_clip.tokenize(["a backpack"]))[0].numpy()
    mean = sum(encoded(sample) / np.linalg.norm(encoded(sample)) for sample in samples) / 2

    judge = ClipJudge(clip, pictures)
    assert judge.image_similarity(samples) == pytest.approx(sum(pairs) / 6, abs=1e-5)
    assert judge.similarity_of_pictures() == pytest.approx(sum(among) / 6, abs=1e-5)
    assert judge.text_similarity(samples, prompt) == pytest.approx(cosine(mean, text), abs=1e-5)


def test_a_picture_is_wholly_like_itself(clip):
    assert ClipJudge(clip, [picture(0)]).image_similarity([picture(0)] * 3) == pytest.approx(1, abs=1e-5)


def test_features_do_not_depend_on_how_many_are_encoded_at_once(clip):
    many = clip.features([picture(i) for i in range(18)])
    assert torch.allclose(many[17], clip.features([picture(17)])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "weights", "why"),
    [
        ("tiny-clip", "", "The evaluation needs CLIP weights: --clip-weights FILE. The paper uses"),
        (
            "ViT-B-32",
            "nowhere.pt",
            "'nowhere.pt' is neither a file nor a name of open_clip's weights for ViT-B-32 .*openai",
        ),
        ("no-such-clip", "w.pt", "open_clip has no model 'no-such-clip'"),
        ("tiny-clip", __file__, "cannot be loaded into tiny-clip"),
    ],
)
def test_without_trained_weights_there_is_no_score(clip_weights, model, weights, why):
    with pytest.raises(UserError, match=why):
        Clip.load(model, weights)


def test_weights_of_another_model_are_refused(clip_weights, tmp_path):
    torch.save({"visual.proj": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="Give the model of these weights \\(--clip-model"):
        Clip.load("tiny-clip", str(tmp_path / "other.pt"))
