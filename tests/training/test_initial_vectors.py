"""What a run starts from: text, or an embedding file of whatever layout."""

from __future__ import annotations

import pytest
import torch
from sample_files import samples, write_samples
from tiny_host import ENCODER, WIDTH, TinyHost

from ti_train.errors import UserError
from ti_train.training.initial_vectors import initial_vectors

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
