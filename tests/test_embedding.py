"""Words as vectors: where they start, and whether they fit a model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_host import ENCODER

from ti_train.embedding import SINGLE, Embedding, from_text, mean_cosine, mean_norm, merge
from ti_train.errors import UserError
from ti_train.host import Vocabulary


@pytest.fixture
def vocabulary(host):
    return host.vocabulary(ENCODER)


def test_one_word_for_one_vector_is_its_row(host, vocabulary):
    vectors, remark = from_text(vocabulary, "cat", 1)
    assert torch.equal(vectors, host.text_encoder.get_input_embeddings().weight[host.tokenize("cat")])
    assert remark is None


@pytest.mark.parametrize(
    ("text", "count", "words", "remark"),
    [
        ("red cat", 2, "red cat", "'red cat' is 2 tokens of this model ('red', 'cat'): 2 vectors."),
        ("cat", 3, "cat cat cat", "'cat' is 1 token of this model ('cat'): repeated in 3 vectors."),
        ("red cat", 3, "red cat red", "'red cat' is 2 tokens of this model ('red', 'cat'): repeated in 3 vectors."),
    ],
)
def test_a_text_gives_a_vector_for_each_token_and_is_repeated_if_more_are_asked_for(
    vocabulary, text, count, words, remark
):
    vectors, said = from_text(vocabulary, text, count)
    assert torch.equal(vectors, vocabulary.rows(words))
    assert said == remark


@pytest.mark.parametrize(("count", "groups"), [(1, [[0, 1, 2]]), (2, [[0, 1], [2]])])
def test_a_longer_text_is_condensed_and_every_token_counts(vocabulary, count, groups):
    """Each vector has the direction of the mean of neighbouring rows, and their norm: a mean alone is shorter."""
    rows = vocabulary.rows("small red cat")
    vectors, said = from_text(vocabulary, "small red cat", count)
    for vector, group in zip(vectors, groups, strict=True):
        assert torch.cosine_similarity(vector, rows[group].mean(0), dim=0).item() == pytest.approx(1)
        assert vector.norm().item() == pytest.approx(rows[group].norm(dim=-1).mean().item())
    assert f"condensed into {count} vector" in said


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_rows_of_a_model_in_half_precision_are_scaled_in_fp32(vocabulary, dtype):
    """As of Gemma, whose encoder multiplies its rows."""
    stored = vocabulary.table.to(dtype)
    scaled = replace(vocabulary, table=stored, scale=2560**0.5)
    assert torch.equal(scaled.rows("small red cat"), scaled.scale * stored[scaled.tokenize("small red cat")].float())


def test_tokens_that_are_parts_of_a_letter_are_not_shown(vocabulary):
    """Cyrillic text in CLIP's vocabulary, whose entries are bytes."""
    bytewise = replace(vocabulary, tokenize=lambda _: [5, 6, 7], spell=lambda i: "Ð¾ÑĤ"[i - 5])
    assert from_text(bytewise, "кот", 3)[1] == "'кот' is 3 tokens of this model: 3 vectors."


def test_tokens_that_begin_with_a_space_are_shown_without_it(vocabulary):
    """A language model's, as they stand within a prompt."""
    spaced = replace(vocabulary, tokenize=lambda _: [5, 6], spell=lambda i: [" red", " cat"][i - 5])
    assert from_text(spaced, "red cat", 2)[1] == "'red cat' is 2 tokens of this model ('red', 'cat'): 2 vectors."


def test_start_vectors_are_a_copy_of_the_table(vocabulary):
    before = vocabulary.table.detach().clone()
    from_text(vocabulary, "cat", 2)[0].add_(1)
    assert torch.equal(vocabulary.table, before)


def test_a_text_without_a_known_word_is_refused(vocabulary):
    with pytest.raises(UserError, match="The initial text 'zebra' has no tokens"):
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
        ({"t5base": 768}, {"clip_l": 768}, r"width 768 \(t5base\), but the model's text encoder needs 768"),
        ({SINGLE: 768}, {"clip_l": 1024}, "width 768, but the model's text encoder needs 1024"),
        ({SINGLE: 768}, {"clip_l": 768, "clip_g": 1280}, "needs 768 \\(clip_l\\) \\+ 1280 \\(clip_g\\)"),
        ({"clip_l": 768, "clip_g": 1280}, {"clip_l": 768}, "768 \\(clip_l\\) \\+ 1280 \\(clip_g\\), but"),
        (
            {"clip_l": 768, "clip_h": 1024},
            {"clip_l": 768},
            "768 \\(clip_l\\) \\+ 1024 \\(clip_h\\), but",
        ),
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


def test_a_large_vocabulary_is_read_in_parts_with_the_same_result():
    table = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0)).half()
    large = Vocabulary(table, lambda text: [], str, scale=3.0)
    vector = torch.ones(8)
    similarity = torch.nn.functional.cosine_similarity(table.float(), vector[None])
    best = similarity.topk(3)
    found = large.nearest(vector, 3)
    assert [int(word) for word, _ in found] == best.indices.tolist()
    assert [s for _, s in found] == pytest.approx(best.values.tolist(), abs=1e-6)
    assert torch.allclose(large.norms, 3 * table.float().norm(dim=-1))


def test_nearest_words_come_best_first_and_a_row_is_nearest_to_itself(vocabulary):
    (word, similarity), *others = vocabulary.nearest(2 * vocabulary.rows("cat")[0], 4)
    assert (word, similarity) == ("cat", pytest.approx(1))
    assert [s for _, s in others] == sorted((s for _, s in others), reverse=True)
    assert all(s < 1 for _, s in others)


# --- Strength, norm and merging -------------------------------------------------

ONE = Embedding("one", {SINGLE: torch.tensor([[3.0, 4.0], [0.0, 2.0]])}, {"step": "7", "norms": "[5, 2]"})
OTHER = Embedding("other", {SINGLE: torch.tensor([[0.0, 1.0], [6.0, 8.0]])})


def test_strength_and_norm():
    assert ONE.scaled() is ONE
    assert ONE.scaled(strength=-0.5).vectors[SINGLE].tolist() == [[-1.5, -2.0], [0.0, -1.0]]
    assert ONE.scaled(norm=10).vectors[SINGLE].tolist() == [[6.0, 8.0], [0.0, 10.0]]
    scaled = ONE.scaled(strength=2, norm=10)
    assert scaled.vectors[SINGLE].tolist() == [[12.0, 16.0], [0.0, 20.0]]
    assert scaled.provenance == {"step": "7", "scaled": "norm 10, strength 2"}, "its old lengths are not its own"


def test_a_vector_of_zeros_has_no_direction_to_bring_to_a_norm():
    assert not Embedding("x", {SINGLE: torch.zeros(1, 4)}).scaled(norm=3).vectors[SINGLE].any()


def test_concatenation_weighs_and_keeps_the_order():
    merged = merge([ONE, OTHER, ONE], "concatenate", [1, 2, -1], "both")
    assert merged.vectors[SINGLE].tolist() == [[3, 4], [0, 2], [0, 2], [12, 16], [-3, -4], [0, -2]]
    assert merged.name == "both"
    assert json.loads(merged.provenance["merged"])["of"][1] == {"name": "other", "weight": 2}


def test_a_sum_is_weighted_place_by_place():
    assert merge([ONE, OTHER], "sum", [1, 0.5], "x").vectors[SINGLE].tolist() == [[3, 4.5], [3, 6]]


def test_interpolation_turns_from_one_direction_to_the_other():
    """Against the angle itself: a third of the way is a third of the angle, and of the lengths."""
    merged = merge([ONE, OTHER], "interpolate", [2, 1], "x").vectors[SINGLE]
    for row, a, b in zip(merged, ONE.vectors[SINGLE], OTHER.vectors[SINGLE], strict=True):
        angles = [torch.atan2(v[1], v[0]) for v in (a, row, b)]
        assert angles[1].item() == pytest.approx(((2 * angles[0] + angles[2]) / 3).item(), abs=1e-5)
        assert row.norm().item() == pytest.approx(((2 * a.norm() + b.norm()) / 3).item(), rel=1e-5)


@pytest.mark.parametrize(("weights", "which"), [((1, 0), ONE), ((0, 3), OTHER)])
def test_the_ends_of_an_interpolation_are_the_words(weights, which):
    assert torch.allclose(merge([ONE, OTHER], "interpolate", weights, "x").vectors[SINGLE], which.vectors[SINGLE])


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_an_interpolation_along_one_line_is_finite(factor):
    merged = merge([ONE, ONE.scaled(factor)], "interpolate", [1, 1], "x").vectors[SINGLE]
    assert merged.isfinite().all()
    if factor > 0:
        assert torch.allclose(merged, (1 + factor) / 2 * ONE.vectors[SINGLE])


def test_words_of_two_encoders_are_merged_in_both():
    words = [Embedding("x", {"clip_l": torch.ones(1, 2), "clip_g": i * torch.ones(1, 3)}) for i in (1, 2)]
    merged = merge(words, "sum", [1, 1], "x")
    assert {e: v.tolist() for e, v in merged.vectors.items()} == {"clip_l": [[2, 2]], "clip_g": [[3, 3, 3]]}


WIDE = Embedding("wide", {"clip_l": torch.ones(2, 3), "clip_g": torch.ones(2, 4)})
LONG = Embedding("long", {SINGLE: torch.ones(3, 2)})


@pytest.mark.parametrize(
    ("words", "how", "weights", "why"),
    [
        ([ONE], "sum", [1], r"Got 1 embedding\(s\) and 1 weight\(s\). Give two or more"),
        ([ONE, OTHER], "sum", [1], r"Got 2 embedding\(s\) and 1 weight\(s\)"),
        (
            [ONE, WIDE],
            "sum",
            [1, 1],
            r"'one' has vectors of width 2 and 'wide' of 3 \(clip_l\) \+ 4 \(clip_g\). Embeddings of different",
        ),
        ([ONE, LONG], "sum", [1, 1], "The embeddings have 2 and 3 vectors. .* use 'concatenate' instead"),
        ([ONE, LONG], "interpolate", [1, 1], "The embeddings have 2 and 3 vectors"),
        ([ONE, OTHER, ONE], "interpolate", [1, 1, 1], "'interpolate' needs exactly two embeddings"),
        ([ONE, OTHER], "interpolate", [2, -1], "with weights of 0 or more"),
        ([ONE, OTHER], "interpolate", [0, 0], "that are not both 0"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words, how, weights, why):
    with pytest.raises(UserError, match=why):
        merge(words, how, weights, "x")


WIDTHS = {"clip_l": 768, "clip_g": 1280, "t5xxl": 4096}


def test_a_file_with_some_of_a_models_encoders_is_used_for_these():
    vectors = {"clip_l": torch.ones(1, 768), "qwen3_4b": torch.ones(1, 2560)}
    used, remark = Embedding("my-cat", vectors).part_for(WIDTHS)
    assert set(used) == {"clip_l"}
    assert "used for clip_l only" in remark
    assert "no vectors for the model's clip_g + t5xxl" in remark
    assert "those for qwen3_4b" in remark


def test_a_file_with_all_of_them_is_used_without_a_word():
    vectors = {encoder: torch.ones(1, width) for encoder, width in WIDTHS.items()}
    assert Embedding("my-cat", vectors).part_for(WIDTHS) == (vectors, None)


def test_a_file_with_none_of_them_is_refused():
    with pytest.raises(UserError, match="width 2560"):
        Embedding("my-cat", {"qwen3_4b": torch.ones(1, 2560)}).part_for(WIDTHS)
