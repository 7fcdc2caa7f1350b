"""Turning an embedding towards its initial vectors: the formula of TEA, and the vectors' way through files."""

from __future__ import annotations

import base64
import json
import math

import pytest
import torch
from tiny_host import ENCODER, WIDTH

from ti_train.editability import INITIAL, LONGEST, editable, initial_of, merge_with_initial, recorded
from ti_train.embedding import SINGLE, Embedding
from ti_train.errors import UserError
from ti_train.formats import ENDINGS, load_embedding, read_embedding, write_embedding


def embedding(vectors, initial=None, **header) -> Embedding:
    return Embedding("cat", vectors, (recorded(initial) if initial else {}) | header)


def drawn(count: int, seed: int, **widths: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {encoder: torch.randn(count, width, generator=generator).half().float() for encoder, width in widths.items()}


TRAINED, INIT = drawn(2, 0, clip_l=768, clip_g=1280), drawn(2, 1, clip_l=768, clip_g=1280)


@pytest.mark.parametrize("strength", [0.1, 0.2, 0.4, 0.9])
def test_each_vector_turns_by_a_share_of_the_angle_and_its_norm_goes_on_ahead(strength):
    """Against the definition: the rotation in the plane of the two vectors."""
    turned = editable(embedding(TRAINED, INIT), strength).vectors
    for encoder, rows in TRAINED.items():
        for v, c, found in zip(rows.double(), INIT[encoder].double(), turned[encoder].double(), strict=True):
            angle = math.acos(float(v @ c / v.norm() / c.norm()))
            across = c - (c @ v) / (v @ v) * v
            expected = math.cos(strength * angle) * v / v.norm() + math.sin(strength * angle) * across / across.norm()
            share = min(1, 2.5 * strength)
            norm = (1 - share) * v.norm() + share * c.norm()
            assert torch.allclose(found, norm * expected, atol=1e-5)


def test_the_ends_are_the_trained_and_the_initial_vectors():
    trained = embedding(TRAINED, INIT)
    assert editable(trained, 0) is trained
    assert all(torch.allclose(v, INIT[e], atol=1e-4) for e, v in editable(trained, 1).vectors.items())


def test_a_resumed_run_records_its_initial_vectors_in_the_same_order():
    assert [*INIT] != sorted(INIT)
    assert recorded(dict(sorted(INIT.items()))) == recorded(INIT)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_it_is_a_share(strength):
    with pytest.raises(UserError, match="it must be from 0"):
        editable(embedding(TRAINED, INIT), strength)


def test_the_header_says_what_was_done_and_no_longer_what_is_not_true():
    header = editable(embedding(TRAINED, INIT, norms="{}", cosine_to_init="0.3", step="9"), 0.2).provenance
    assert header["editability"] == "0.2"
    assert header["step"] == "9"
    assert not {"norms", "cosine_to_init"} & {*header}


@pytest.mark.parametrize("layout", ENDINGS)
@pytest.mark.parametrize("widths", [{"clip_l": 768}, {"clip_l": 768, "clip_g": 1280}], ids=["one", "two"])
def test_the_initial_vectors_travel_in_every_layout_with_a_header(tmp_path, layout, widths):
    vectors, initial = drawn(2, 0, **widths), drawn(2, 1, **widths)
    paths = write_embedding(embedding(vectors, initial), tmp_path / f"cat{ENDINGS[layout]}", layout)
    found = read_embedding(paths[0], *paths[1:]).embedding
    read = initial_of(found)
    if layout == "a1111" and len(widths) > 1:
        assert read is None, "A1111 accepts nothing but the two tensors"
    else:
        assert all(torch.equal(a, b) for a, b in zip(read.values(), initial.values(), strict=True))
        assert [v.shape for v in read.values()] == [v.shape for v in found.vectors.values()]


def test_a_run_records_its_initial_vectors(host, dataset, settings, tmp_path):
    from ti_train.events import Done
    from ti_train.training.loop import train

    *_, done = train(host, dataset, settings(init="red toy", steps=2), tmp_path)
    assert isinstance(done, Done)
    read = initial_of(load_embedding(done.path))[SINGLE]
    assert torch.allclose(read, host.vocabulary(ENCODER).rows("red toy"), rtol=1e-3)


def test_too_many_vectors_are_not_recorded():
    assert len(recorded(drawn(75, 0, clip_l=768, clip_g=1280))[INITIAL]) < LONGEST
    assert recorded(drawn(75, 0, llama=4096)) == {}


BYTES = base64.b64encode(bytes(8)).decode()


@pytest.mark.parametrize(
    "entry",
    ["", "no JSON", "[]", "1", "null", "{}", '{"clip_l": 1}', '{"clip_l": "?"}', '{"clip_l": "AAA="}',
     json.dumps({"clip_l": BYTES}), json.dumps({"t5": BYTES, "clip_l": BYTES})],
)  # fmt: skip
def test_a_damaged_entry_counts_as_none(entry):
    found = Embedding("cat", {SINGLE: torch.ones(1, 768)}, {INITIAL: entry})
    assert initial_of(found) is None
    with pytest.raises(UserError, match="does not record its initial vectors"):
        editable(found, 0.2)


def test_values_that_are_no_numbers_count_as_none():
    entry = recorded({SINGLE: torch.full((1, 768), float("nan"))})
    assert initial_of(Embedding("cat", {SINGLE: torch.ones(1, 768)}, entry)) is None


def test_with_a_model_the_recorded_text_of_an_older_file_is_enough(host):
    vocabulary = host.vocabulary(ENCODER)
    old = Embedding("cat", {SINGLE: torch.ones(1, WIDTH)}, {"init": "toy"})
    with pytest.raises(UserError, match="from its initial text 'toy'"):
        editable(old, 1)
    assert torch.allclose(editable(old, 1, {ENCODER: vocabulary}).vectors[SINGLE], vocabulary.rows("toy"), atol=1e-5)


@pytest.mark.parametrize("how", ["concatenate", "sum", "interpolate"])
def test_a_merged_embedding_turns_towards_its_parts_initial_vectors(how):
    one, two = embedding(TRAINED, INIT), embedding(INIT, TRAINED)
    whole = merge_with_initial([one, two], how, [1, 1], "both")
    mirrored = merge_with_initial([two, one], how, [1, 1], "both")
    read = initial_of(whole)
    assert all(torch.allclose(read[e], v, atol=2e-3) for e, v in mirrored.vectors.items())
    without = merge_with_initial([one, Embedding("old", INIT)], how, [1, 1], "both")
    assert INITIAL not in without.provenance
