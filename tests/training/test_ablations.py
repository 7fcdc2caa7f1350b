"""The paper's ablations (Gal et al. 2022, section 5): vectors that join in, words of single pictures, the pull home."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_host import ENCODER, WIDTH, dataset_of

from ti_train.embedding import squared_distance
from ti_train.errors import UserError
from ti_train.events import Checkpoint, Step
from ti_train.formats import load_embedding
from ti_train.host import Slot
from ti_train.prompts import Templates, beside, text_of
from ti_train.training.config import TrainConfig
from ti_train.training.loop import train
from ti_train.training.prompt_sampling import embeddings_for, longest_prompt, per_image_token

PROGRESSIVE = {"num_vectors": 3, "progressive_every": 2}
ONCE = {"evaluate_every": 100}  # one measurement of the validation loss: the last step is kept
PER_IMAGE = {"per_image_words": 0.5}
COARSE = {"coarse_weight": 10.0}


def learnt(host, dataset, config, folder, resume: bool = False) -> torch.Tensor:
    for _ in train(host, dataset, config, folder, resume):
        pass
    return load_embedding(folder / "my-toy.safetensors").vectors["emb_params"]


def stopped_after(step: int, host, dataset, config, folder) -> dict[str, torch.Tensor]:
    """What the state's file then holds."""
    with closing(train(host, dataset, config, folder)) as events:
        next(event for event in events if isinstance(event, Step) and event.step == step)
    return load_file(folder / "my-toy.resume")


def initial(host) -> torch.Tensor:
    return host.vocabulary(ENCODER).rows("toy")


# --- Each of them ---------------------------------------------------------------


@pytest.mark.parametrize("ablation", [PROGRESSIVE, PER_IMAGE, COARSE, PROGRESSIVE | PER_IMAGE | COARSE])
@pytest.mark.parametrize("step", [1, 4])
def test_stopped_and_resumed_equals_uninterrupted(host, dataset, settings, tmp_path, ablation, step):
    config = settings(**ablation)
    expected = learnt(host, dataset, config, tmp_path / "whole")
    stopped_after(step, host, dataset, config, tmp_path / "parts")
    assert torch.equal(learnt(host, dataset, config, tmp_path / "parts", resume=True), expected)
    plain = learnt(host, dataset, settings(num_vectors=config.num_vectors), tmp_path / "plain")
    assert not torch.equal(expected, plain)


@pytest.mark.parametrize("ablation", [PROGRESSIVE, PER_IMAGE, COARSE])
def test_a_run_is_not_resumed_with_another_ablation(host, dataset, settings, tmp_path, ablation):
    stopped_after(2, host, dataset, settings(num_vectors=ablation.get("num_vectors", 1)), tmp_path)
    with pytest.raises(UserError, match=f"{list(ablation)[-1]} was 0"):
        learnt(host, dataset, settings(**ablation), tmp_path, resume=True)


# --- Vectors that join in -------------------------------------------------------


@given(st.integers(1, 5), st.integers(0, 50), st.integers(0, 300))
def test_a_vector_joins_in_at_every_such_step(num_vectors, every, step):
    """As the paper's repository counts: the second from step 2000, the third from step 4000."""
    config = TrainConfig("a", "b", num_vectors=num_vectors, progressive_every=every, steps=1000)
    expected = num_vectors if every == 0 else sum(1 for i in range(num_vectors) if i * every <= step)
    assert config.vectors_at(step) == expected


def test_too_few_steps_for_all_vectors_are_refused():
    TrainConfig("a", "b", num_vectors=3, progressive_every=50, steps=100)
    with pytest.raises(UserError, match="99 steps use only 2 of the 3 vectors"):
        TrainConfig("a", "b", num_vectors=3, progressive_every=50, steps=99)


def test_a_vector_stays_at_its_start_until_it_joins_in_and_only_those_in_use_are_written(
    host, dataset, settings, tmp_path
):
    for step, count in ((1, 1), (2, 2), (3, 2), (4, 3)):
        state = stopped_after(step, host, dataset, settings(**PROGRESSIVE, **ONCE), tmp_path / str(step))
        moved = (state[f"vectors.{ENCODER}"] - initial(host)).abs().amax(dim=1) > 0
        assert moved.tolist() == [i < count for i in range(3)]
        written = load_embedding(tmp_path / str(step) / "my-toy.safetensors")
        assert torch.equal(written.vectors["emb_params"], state[f"vectors.{ENCODER}"][:count])
    assert learnt(host, dataset, settings(**PROGRESSIVE, **ONCE), tmp_path / "end").shape == (3, WIDTH)


def test_a_prompt_holds_as_many_vectors_as_have_joined_in(host, dataset, settings, tmp_path, monkeypatch):
    counts, encode = [], host.encode

    def listening(prompts, words, *rest):
        counts.extend([len(words["*"][ENCODER])] * torch.is_grad_enabled())
        return encode(prompts, words, *rest)

    monkeypatch.setattr(host, "encode", listening)
    learnt(host, dataset, settings(**PROGRESSIVE), tmp_path)
    assert counts == [1, 2, 2, 3, 3, 3]


# --- Words of single pictures ---------------------------------------------------


def test_a_prompt_names_its_pictures_own_word_as_often_as_is_said(host, dataset, settings, tmp_path, monkeypatch):
    asked, encode = [], host.encode

    def listening(prompts, words, *rest):
        asked.extend((torch.is_grad_enabled(), prompt) for prompt in prompts)
        return encode(prompts, words, *rest)

    monkeypatch.setattr(host, "encode", listening)
    learnt(host, dataset, settings(steps=100, per_image_words=0.25, evaluate_every=10), tmp_path)
    trained = [prompt for gradient, prompt in asked if gradient]
    beside_own = [prompt for prompt in trained if len([p for p in prompt if isinstance(p, Slot)]) == 2]
    assert len(beside_own) / len(trained) == pytest.approx(0.25, abs=0.08)
    assert {prompt[-1].name for prompt in beside_own} == {"picture-0", "picture-1", "picture-2"}
    assert all(prompt[-3:-1] == (Slot("*"), " with ") for prompt in beside_own)
    measured = [prompt for gradient, prompt in asked if not gradient][1:]  # the first is the check that all fits
    assert all([p for p in prompt if isinstance(p, Slot)] == [Slot("*")] for prompt in measured)


def test_own_words_learn_and_are_not_written(host, dataset, settings, tmp_path):
    early, late = (stopped_after(s, host, dataset, settings(**PER_IMAGE), tmp_path / str(s)) for s in (1, 5))
    per_image = f"own.{ENCODER}"
    assert early[per_image].shape == (3, WIDTH)
    assert ((late[per_image] - early[per_image]).abs().amax(dim=1) > 0).all()
    assert learnt(host, dataset, settings(**PER_IMAGE), tmp_path / "end").shape == (1, WIDTH)


def test_own_words_begin_as_long_as_words_are_and_apart_from_each_other(host, dataset, settings, tmp_path):
    config = settings(learning_rate=0.0, **PER_IMAGE)
    per_image = stopped_after(1, host, dataset, config, tmp_path)[f"own.{ENCODER}"]
    median = host.vocabulary(ENCODER).norms.median()
    assert torch.allclose(per_image.norm(dim=1), median.expand(3))
    assert (torch.cosine_similarity(per_image[0], per_image[1], dim=0)) < 0.9
    other = stopped_after(1, host, dataset, settings(seed=1, learning_rate=0.0, **PER_IMAGE), tmp_path / "b")
    assert not torch.equal(other[f"own.{ENCODER}"], per_image)


def test_a_mirrored_picture_shares_its_originals_word(host, pictures):
    dataset = dataset_of(host, pictures, flip=True)
    per_image = {ENCODER: torch.arange(3.0)[:, None].expand(3, WIDTH)}
    words = embeddings_for(dataset.pictures, {}, per_image)
    for picture in dataset.pictures:
        number = ["blue.png", "green.png", "red.png"].index(picture.name)
        assert words[per_image_token(picture)][ENCODER].unique().tolist() == [number]
        assert words[per_image_token(picture)][ENCODER].shape == (1, WIDTH)


def test_the_own_word_stands_behind_the_word_and_before_the_caption():
    prompt = Templates.load("captions").prompts("on a table")[0]
    assert text_of(beside(prompt, "picture-7")) == "a photo of a * with <picture-7>, on a table"


def test_the_prompt_that_is_checked_has_the_own_word_too(dataset, settings):
    longest = longest_prompt(dataset, Templates.load("object"), settings(**PER_IMAGE), len)
    assert [p for p in longest if isinstance(p, Slot)] == [Slot("*"), Slot("picture-0")]


# --- The pull home --------------------------------------------------------------


def test_the_heavier_the_pull_the_nearer_the_word_stays(host, dataset, settings, tmp_path):
    """The losses of the steps are the model's own all the same."""
    distances = []
    for weight in (0.0, 1.0, 100.0):
        end = learnt(host, dataset, settings(steps=30, coarse_weight=weight), tmp_path / str(weight))
        distances.append(float((end - initial(host)).norm()))
    assert distances[0] > 1.2 * distances[1] > 1.5 * distances[2]


def test_the_pulls_gradient_is_twice_the_weighted_distance(host, dataset, settings, tmp_path):
    """Two runs whose first step is the same; the second's gradient differs by the pull."""
    moments = {}
    for weight in (0.0, 3.0):
        config = settings(coarse_weight=weight, gradient_clip=0, learning_rate="0.01:1,1e-30")
        moments[weight] = [
            stopped_after(s, host, dataset, config, tmp_path / f"{weight}{s}")["optimizer.0.exp_avg"] for s in (1, 2)
        ]
        vectors = load_embedding(tmp_path / f"{weight}1" / "my-toy.safetensors").vectors["emb_params"]
    assert torch.equal(moments[0.0][0], moments[3.0][0]), "at its start nothing pulls"
    pull = 10 * (moments[3.0][1] - moments[0.0][1])
    assert torch.allclose(pull, 2 * 3.0 * (vectors - initial(host)), rtol=1e-3, atol=1e-5)


def test_the_distance_is_the_mean_over_vectors_and_encoders():
    one = {"l": torch.zeros(2, 3), "g": torch.zeros(2, 5)}
    other = {"l": torch.ones(2, 3), "g": torch.stack([torch.zeros(5), 2 * torch.ones(5)])}
    assert float(squared_distance(one, other)) == pytest.approx((3 + (0 + 20) / 2) / 2)


def test_a_checkpoint_of_a_growing_word_is_a_whole_word(host, dataset, settings, tmp_path):
    config = settings(checkpoint_every=1, **PROGRESSIVE, **ONCE)
    sizes = [
        load_embedding(event.path).num_vectors
        for event in train(host, dataset, config, tmp_path)
        if isinstance(event, Checkpoint)
    ]
    assert sizes == [1, 2, 2, 3, 3]
