"""What a run starts from: text, or an embedding file of whatever layout."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from sample_files import samples, write_samples
from tiny_host import ENCODER, WIDTH, TinyHost

from ti_train.editability import initial_of
from ti_train.embedding import Embedding
from ti_train.errors import UserError
from ti_train.events import Step, Warning
from ti_train.formats import save_embedding
from ti_train.prompts import PLACEHOLDER, Templates
from ti_train.training.initial_vectors import initial_vectors
from ti_train.training.loop import train
from ti_train.training.validation import ValidationBatch

SAMPLES = {
    name: sample
    for name, sample in samples().items()
    if [v.shape[-1] for v in sample.vectors.values()] == [WIDTH] and "emb_params" in sample.vectors
}


@pytest.mark.parametrize("layout", SAMPLES)
def test_a_run_goes_on_from_a_file_of_any_layout(host, settings, tmp_path, layout):
    file, (vectors,) = write_samples(tmp_path)[layout], SAMPLES[layout].vectors.values()
    initial, remarks = initial_vectors(host, settings(init=str(file), num_vectors=len(vectors)))
    assert torch.equal(initial[ENCODER], vectors)
    assert remarks == []


@pytest.mark.parametrize("layout", SAMPLES)
def test_its_vectors_must_be_as_many_as_the_words(host, settings, tmp_path, layout):
    file, count = write_samples(tmp_path)[layout], len(SAMPLES[layout].vectors["emb_params"])
    with pytest.raises(UserError, match=rf"has {count} vector\(s\), but num_vectors is 3. Set num_vectors to {count}."):
        initial_vectors(host, settings(init=str(file), num_vectors=3))


@pytest.mark.parametrize("init", ["none.safetensors", "none.pt", "none.BIN", "folder/none.png", "none.webp"])
def test_a_file_that_is_not_there_is_no_phrase(host, settings, init):
    with pytest.raises(UserError, match=f"The embedding file '{init}'"):
        initial_vectors(host, settings(init=init))


@pytest.mark.parametrize(("text", "count"), [("toy", 1), ("red toy", 2), ("a photo of the red toy", 4)])
def test_by_default_there_is_a_vector_for_each_token_of_the_text_up_to_four(host, settings, text, count):
    initial, _ = initial_vectors(host, settings(init=text))
    assert initial[ENCODER].shape == (count, WIDTH)
    assert initial_vectors(host, settings(init=text, num_vectors=1))[0][ENCODER].shape == (1, WIDTH), "if none is given"


def test_a_phrase_may_have_a_dot(host, settings):
    assert torch.equal(
        initial_vectors(host, settings(init="toy."))[0][ENCODER], TinyHost().vocabulary(ENCODER).rows("toy")
    )


def test_a_name_of_the_vocabulary_matters_only_where_prompts_use_the_bare_name(host, settings):
    (remark,) = initial_vectors(host, settings(name="dog"))[1]
    assert "choose a name such as my-dog" in remark.lower()
    host.bare_names = False  # as in ComfyUI, where prompts say embedding:dog
    assert initial_vectors(host, settings(name="dog"))[1] == []


# --- how they are made --------------------------------------------------------


def test_condensed_vectors_are_nearer_to_the_text_and_the_run_says_by_how_much(host, settings):
    given = {"init": "a blue toy", "num_vectors": 2}
    mean, _ = initial_vectors(host, settings(**given))
    found, remarks = initial_vectors(host, settings(**given, initial_vectors="condensed"))
    assert found[ENCODER].shape == mean[ENCODER].shape
    assert not torch.equal(found[ENCODER], mean[ENCODER])
    assert "of the mean's squared distance" in remarks[-1]


def test_a_text_that_needs_no_condensing_is_its_tokens(host, settings):
    plain, _ = initial_vectors(host, settings(init="blue toy"))
    found, remarks = initial_vectors(host, settings(init="blue toy", initial_vectors="condensed"))
    assert torch.equal(found[ENCODER], plain[ENCODER])
    assert not any("distance" in remark for remark in remarks)


@pytest.mark.parametrize(("count", "expected"), [(2, [0, 1]), (4, [0, 1, 1, 1])])
def test_cross_initialization_is_the_encoders_output_at_the_texts_tokens(host, settings, count, expected):
    """Against transformers' own encoder, called with the ids."""
    ids = torch.tensor([[0, *host.tokenize("blue toy"), 1]])
    with torch.no_grad():
        states = host.text_encoder(ids)[0][0, 1:3]
    found, _ = initial_vectors(host, settings(init="blue toy", num_vectors=count, initial_vectors="cross"))
    assert torch.allclose(found[ENCODER], states[expected], atol=1e-5)
    (one,) = initial_vectors(host, settings(init="blue toy", num_vectors=1, initial_vectors="cross"))[0][ENCODER]
    assert torch.allclose(one / one.norm(), states.mean(0) / states.mean(0).norm(), atol=1e-5)


def test_cross_initialization_is_refused_for_other_encoders(host, settings, monkeypatch):
    monkeypatch.setattr(host, "widths", {"t5xxl": WIDTH})
    with pytest.raises(UserError, match="need CLIP text encoders: this model has t5xxl"):
        initial_vectors(host, settings(init="blue toy", initial_vectors="cross"))


def test_of_an_initial_file_for_several_encoders_what_fits_is_used_and_told(host, settings, tmp_path):
    file, rows = tmp_path / "both.safetensors", torch.ones(1, WIDTH)
    save_embedding(Embedding("both", {"clip_l": rows, "clip_g": torch.ones(1, 4)}), file)
    host.widths = {"clip_l": WIDTH}
    host.vocabulary = lambda _, own=host.vocabulary: own(ENCODER)
    vectors, remarks = initial_vectors(host, settings(init=str(file)))
    assert vectors["clip_l"].equal(rows)
    assert any("'both' is used for clip_l only" in remark for remark in remarks)


def test_an_initial_file_without_vectors_for_an_encoder_is_refused(host, settings, tmp_path):
    file = tmp_path / "half.safetensors"
    save_file({"clip_l": torch.ones(1, WIDTH)}, file)
    host.widths = {"clip_l": WIDTH, "clip_g": 4}
    host.vocabulary = lambda _, own=host.vocabulary: own(ENCODER)
    with pytest.raises(UserError, match="no vectors for the model's clip_g\\. Train from a text, or"):
        initial_vectors(host, settings(init=str(file)))


# --- a choice -----------------------------------------------------------------


def test_of_several_texts_that_with_the_lowest_validation_loss_is_used(host, dataset, settings, tmp_path):
    events = list(train(host, dataset, settings(init=" dog|red | toy|dog", steps=1), tmp_path))
    (said,) = [e.message for e in events if isinstance(e, Warning) and "lowest validation loss" in e.message]
    losses = {text: float(loss) for text, loss in re.findall(r"(\w+) (\d\.\d+)", said)}
    best = min(losses, key=losses.get)
    assert {*losses} == {"dog", "red", "toy"}
    assert said.startswith(f"The initial text is '{best}'")
    vectors = {PLACEHOLDER: {ENCODER: host.vocabulary(ENCODER).rows(best)}}
    batch = ValidationBatch.draw(host, dataset, Templates.load("object"), settings())
    each = torch.cat([part.losses(host, vectors).detach() for part in batch.micro_batches])
    assert losses[best] == pytest.approx(float(each.prod() ** (1 / len(each))), rel=1e-3), "their geometric mean"
    header = events[-1].embedding.provenance
    assert header["init"] == best
    assert json.loads(header["config"])["init"] == best
    assert torch.allclose(initial_of(events[-1].embedding)["clip_tiny"], host.vocabulary(ENCODER).rows(best), rtol=1e-3)


def test_a_resumed_run_keeps_the_choice(host, dataset, settings, tmp_path):
    config = settings(init="dog | red | toy", steps=4)
    whole = list(train(host, dataset, config, tmp_path / "whole"))[-1]
    run = train(host, dataset, config, tmp_path / "parts")
    next(event for event in run if isinstance(event, Step) and event.step == 2)
    run.close()
    resumed = list(train(host, dataset, config, tmp_path / "parts", resume=True))[-1]
    assert resumed.embedding.provenance["init"] == whole.embedding.provenance["init"]
    assert torch.equal(resumed.embedding.vectors[ENCODER], whole.embedding.vectors[ENCODER])
