"""Words as vectors: where they start, and whether they fit a model."""

from __future__ import annotations

import pytest
import torch

from ti_train.embedding import SINGLE, Embedding, from_text, mean_cosine, mean_norm
from ti_train.errors import UserError


@pytest.fixture
def vocabulary(host):
    return host.vocabulary("tiny")


def test_one_word_for_one_vector_is_its_row(host, vocabulary):
    vectors, remark = from_text(vocabulary, "cat", 1)
    assert torch.equal(vectors, host.text_encoder.get_input_embeddings().weight[host.tokenize("cat")])
    assert remark is None


@pytest.mark.parametrize(
    ("text", "count", "words", "remark"),
    [
        ("red cat", 2, "red cat", None),
        ("small red cat", 1, "cat", "starting from 'cat'"),
        ("small red cat", 2, "red cat", "starting from 'red + cat'"),
        ("cat", 3, "cat cat cat", "it is repeated"),
        ("red cat", 3, "red cat red", "it is repeated"),
    ],
)
def test_a_phrase_keeps_its_last_words_or_is_repeated(vocabulary, text, count, words, remark):
    vectors, said = from_text(vocabulary, text, count)
    assert torch.equal(vectors, vocabulary.rows(words))
    assert said is None if remark is None else remark in said


def test_start_vectors_are_a_copy_of_the_table(vocabulary):
    before = vocabulary.table.detach().clone()
    from_text(vocabulary, "cat", 2)[0].add_(1)
    assert torch.equal(vocabulary.table, before)


def test_a_text_without_a_known_word_is_refused(vocabulary):
    with pytest.raises(UserError, match="finds no word in the initial text 'zebra'"):
        from_text(vocabulary, "zebra", 1)


def test_a_single_encoders_file_fits_any_name_of_the_same_width():
    vectors = torch.ones(2, 16)
    fitted = Embedding("cat", {SINGLE: vectors}).fitted_to({"clip_l": 16})
    assert fitted == {"clip_l": vectors}


def test_the_two_encoders_of_sdxl_come_in_the_models_order():
    vectors = {"clip_g": torch.ones(2, 1280), "clip_l": torch.ones(2, 768)}
    fitted = Embedding("cat", vectors).fitted_to({"clip_l": 768, "clip_g": 1280})
    assert list(fitted) == ["clip_l", "clip_g"]
    assert all(fitted[encoder] is vectors[encoder] for encoder in vectors)


def test_hosts_call_the_only_clip_by_names_of_their_own():
    vectors = torch.ones(2, 1024)
    assert Embedding("cat", {"clip_h": vectors}).fitted_to({"clip_l": 1024}) == {"clip_l": vectors}


@pytest.mark.parametrize(
    ("vectors", "widths", "sentence"),
    [
        ({"t5base": 768}, {"clip_l": 768}, r"width 768 \(t5base\), but the model's text encoder wants 768"),
        ({SINGLE: 768}, {"clip_l": 1024}, "width 768, but the model's text encoder wants 1024"),
        ({SINGLE: 768}, {"clip_l": 768, "clip_g": 1280}, "wants 768 \\(clip_l\\) \\+ 1280 \\(clip_g\\)"),
        ({"clip_l": 768, "clip_g": 1280}, {"clip_l": 768}, "768 \\(clip_l\\) \\+ 1280 \\(clip_g\\), but"),
    ],
)
def test_vectors_of_another_width_are_refused_with_both_widths(vectors, widths, sentence):
    embedding = Embedding("cat", {key: torch.ones(1, width) for key, width in vectors.items()})
    with pytest.raises(UserError, match=sentence):
        embedding.fitted_to(widths)


def test_norm_and_cosine_are_means_over_vectors_and_encoders():
    one = {"a": torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "b": torch.tensor([[0.0, 7.0]])}
    other = {"a": torch.tensor([[3.0, 4.0], [1.0, 0.0]]), "b": torch.tensor([[0.0, -1.0]])}
    assert mean_norm(one).item() == pytest.approx((3 + 7) / 2)
    assert mean_cosine(one, other).item() == pytest.approx((0.5 - 1) / 2)


def test_nearest_words_come_best_first_and_a_row_is_nearest_to_itself(vocabulary):
    (word, similarity), *others = vocabulary.nearest(2 * vocabulary.rows("cat")[0], 4)
    assert (word, similarity) == ("cat", pytest.approx(1))
    assert [s for _, s in others] == sorted((s for _, s in others), reverse=True)
    assert all(s < 1 for _, s in others)
