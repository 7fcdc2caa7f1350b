"""What becomes of prompts, against diffusers' own pipelines of each family."""

from __future__ import annotations

import pytest
import torch
from old_libraries import needs_pooling_at_the_end
from tiny_pipeline import WIDTHS

pytest.importorskip("diffusers")

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from ti_train.embedding import Embedding
from ti_train.errors import UserError
from ti_train.formats import save_embedding
from ti_train.host import SampleRequest, Size, Slot
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.prompts import parse, text_of

PIPELINES = {"sd1": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


@pytest.fixture(scope="module", params=WIDTHS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def host(family, pipelines):
    return DiffusersHost.load(pipelines(family=family), "cpu", "float32")


@pytest.fixture
def pipeline(family, pipelines):
    made = PIPELINES[family].from_pretrained(pipelines(family=family))
    made.set_progress_bar_config(disable=True)
    for part in made.components.values():
        for weight in part.parameters() if isinstance(part, torch.nn.Module) else ():
            weight.data = weight.data.clone()  # out of the mapped file, where odd addresses give other bits
    return made


@pytest.fixture(scope="module")
def sdxl(pipelines):
    return DiffusersHost.load(pipelines(family="sdxl"), "cpu", "float32")


def word(host, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(count, width, generator=generator) for name, width in host.widths.items()}


def encoded(host, prompts, words) -> list[torch.Tensor]:
    """[hidden states], for Stable Diffusion XL [hidden states, pooled output]."""
    cond = host.encode(prompts, words)
    added = cond.get("added_cond_kwargs")
    return [cond["encoder_hidden_states"], *([added["text_embeds"]] if added else [])]


def of_pipeline(pipeline, text: str) -> list[torch.Tensor]:
    embeds = pipeline.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    return [tensor for tensor in embeds if tensor is not None]


def test_encoders_have_their_usual_names(host, family):
    names = {"sd1": ("clip_l",), "sd2": ("clip_l",), "sdxl": ("clip_l", "clip_g")}[family]
    assert host.widths == dict(zip(names, WIDTHS[family], strict=True))


PROMPTS = [
    "",
    "a photo of a cat",
    "A  Photo,of: the (DOG)!",
    "Katzenfüße 猫 🐈",
    "cat's 1234",
    "dog " * 100,
    "a cat\n\tdog",
]


@pytest.mark.parametrize("text", PROMPTS, ids=lambda text: text[:12])
def test_a_prompt_without_words_is_the_pipelines(host, pipeline, text):
    ours, expected = encoded(host, [(text,)], {}), of_pipeline(pipeline, text)
    assert len(ours) == len(expected)
    assert all(map(torch.equal, ours, expected))


TYPED = [
    "<my-cat>",
    "<my-cat> on a table",
    "a photo of <my-cat>",
    "a photo of <my-cat>, the red <my-cat>",
    "<my-cat> and <my-dog>",
    "the <my-dog>, a <my-cat>-toy",
    "dog " * 60 + "<my-cat> " + "cat " * 40,
]


def load_word(pipeline, name: str, vectors: dict[str, torch.Tensor], folder) -> None:
    """As diffusers reads it: the file of one encoder, or for Stable Diffusion XL one call for each encoder."""
    if len(vectors) == 1:
        save_embedding(Embedding(name, vectors), folder / f"{name}.safetensors")
        pipeline.load_textual_inversion(folder, weight_name=f"{name}.safetensors", token=f"<{name}>")
        return
    parts = zip(("", "_2"), vectors.values(), strict=True)
    for ending, tensor in parts:
        pipeline.load_textual_inversion(
            {f"<{name}>": tensor},
            token=f"<{name}>",
            text_encoder=getattr(pipeline, f"text_encoder{ending}"),
            tokenizer=getattr(pipeline, f"tokenizer{ending}"),
        )


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: typed[:30])
def test_the_word_conditions_diffusers_as_it_did_the_training(family, host, pipeline, tmp_path, typed, count):
    """Read by diffusers' own loader, which grows the vocabulary's table."""
    needs_pooling_at_the_end(family)
    words = {"my-cat": word(host, count), "my-dog": word(host, 2, seed=1)}
    for name, vectors in words.items():
        load_word(pipeline, name, vectors, tmp_path)
    prompt = parse(typed, words)
    assert text_of(prompt) == typed
    ours, expected = encoded(host, [prompt], words), of_pipeline(pipeline, typed)
    assert len(ours) == len(expected)
    assert all(map(torch.equal, ours, expected))


def test_a_batch_is_its_prompts_one_by_one(host):
    words = {"a": word(host, 1), "b": word(host, 3, 1)}
    prompts = [parse(text, words) for text in ("<a> and <b>", "a photo of <b>", "a cat", "<a><a>")]
    together = encoded(host, prompts, words)
    apart = [torch.cat(tensors) for tensors in zip(*(encoded(host, [p], words) for p in prompts), strict=True)]
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(together, apart, strict=True))


def test_an_encoders_states_are_those_that_the_denoiser_reads(host):
    """A slot filled with a text's own rows is that text, up to the position behind it and from there on."""
    rows = {name: host.vocabulary(name).rows("cat dog") for name in host.widths}
    prompts = [("a photo of a ", Slot("*"), ", red"), ("no slot",)]
    found = host.conditioning(prompts, {"*": rows})
    states, *pooled = encoded(host, [("a photo of a cat dog, red",), ("no slot",)], {})
    assert torch.equal(torch.cat([torch.stack([t.states for t in part]) for part in found.values()], dim=-1), states)
    for name, (slotted, plain) in found.items():
        assert (slotted.after, plain.after) == (1 + len(host.vocabulary(name).tokenize("a photo of a cat dog")), 0)
    last = list(found.values())[-1]
    assert [t.pooled is None for t in last] == [not pooled] * 2
    assert not pooled or torch.equal(torch.stack([t.pooled for t in last]), pooled[0])


def test_an_encoders_states_are_differentiable_in_the_vectors(host):
    vectors = {name: v.requires_grad_() for name, v in word(host, 2).items()}
    with host.training():
        found = host.conditioning([("a photo of a ", Slot("*"))], {"*": vectors})
        sum(texts[0].states[texts[0].after :].pow(2).sum() for texts in found.values()).backward()
    assert all(v.grad.abs().min() > 0 for v in vectors.values())


def test_as_many_vectors_fit_as_the_context_has_tokens(host, family):
    hidden, *_ = encoded(host, [(Slot("*"),)], {"*": word(host, 75)})
    assert hidden.shape == (1, 77, sum(WIDTHS[family]))
    with pytest.raises(
        UserError, match=r"the embedding '\*' with 76 vector\(s\) ends at token 76, and the text encoder takes 75"
    ):
        host.encode([(Slot("*"),)], {"*": word(host, 76)})


def test_a_word_behind_a_long_text_does_not_fit(host):
    with pytest.raises(UserError, match="Use fewer vectors, or a shorter template or caption"):
        host.encode([("cat " * 75, Slot("*"))], {"*": word(host, 1)})


def test_vocabulary_words_are_spelt_as_people_write_them(host):
    for name, encoder in host.family.encoders.items():
        vocabulary = host.vocabulary(name)
        assert [vocabulary.spell(i) for i in vocabulary.tokenize("a photo of cat")] == ["a", "photo", "of", "cat"]
        table = encoder.model.get_input_embeddings().weight
        assert torch.equal(vocabulary.rows("cat"), table[vocabulary.tokenize("cat")])


# --- What Stable Diffusion XL has beside its text -------------------------------


def test_the_size_and_crop_of_each_picture_reach_the_unet(sdxl):
    """In the order of diffusers' `_get_add_time_ids`: original height, width, top, left, target height, width."""
    sizes = [Size((768, 1024), (0, 128), (512, 512)), Size((301, 200), (7, 0), (16, 24))]
    cond = sdxl.encode([("a cat",), ("a dog",)], {}, sizes)
    expected = [
        sdxl.pipeline._get_add_time_ids(s.original, s.crop, s.target, torch.float32, WIDTHS["sdxl"][1]) for s in sizes
    ]
    assert torch.equal(cond["added_cond_kwargs"]["time_ids"], torch.cat(expected))


def test_without_sizes_the_picture_is_one_that_the_model_draws_by_itself(sdxl):
    time_ids = sdxl.encode([("a cat",)], {})["added_cond_kwargs"]["time_ids"]
    assert time_ids.tolist() == [[16, 16, 0, 0, 16, 16]]


def test_the_pooled_output_stands_at_the_end_of_the_prompt_whatever_the_model_calls_its_end(sdxl):
    """The models as published name token 2 as the end, and transformers then looks for the highest id: were the word's
    own, as in a table that has grown, it would be pooled in the place of the prompt's end."""
    needs_pooling_at_the_end("sdxl")
    words, prompts = {"*": word(sdxl, 2)}, [("a photo of ", Slot("*"), " on a table")]
    model = sdxl.family.encoders["clip_g"].model
    _, right = encoded(sdxl, prompts, words)
    module = getattr(model, "text_model", model)
    usual, module.eos_token_id = module.eos_token_id, 2
    try:
        _, published = encoded(sdxl, prompts, words)
    finally:
        module.eos_token_id = usual
    assert torch.equal(published, right)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("negative", ["", "a dog"])
def test_an_empty_negative_prompt_is_what_the_model_wants_it_to_be(pipelines, zeros, negative):
    host = DiffusersHost.load(pipelines(family="sdxl"), "cpu", "float32")
    host.pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    host.family.empty_is_zero = zeros
    given = host.family.sampling(SampleRequest((("a cat",),), (0,), 16, 16, negative=(negative,)), {})
    expected = host.pipeline.encode_prompt("a cat", negative_prompt=negative or None, device="cpu")
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    for name, tensor in zip(names, expected, strict=True):
        assert torch.equal(given[name], tensor), name
