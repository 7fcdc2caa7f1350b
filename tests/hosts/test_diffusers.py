"""The diffusers host against diffusers itself, on a small Stable Diffusion folder with real modules."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import closing
from itertools import chain

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_host import at_forward, dataset_of, not_a_number, raising

pytest.importorskip("diffusers")

from diffusers import StableDiffusionPipeline

from ti_train.embedding import Embedding
from ti_train.errors import UserError
from ti_train.formats import load_embedding, save_embedding
from ti_train.hosts.base import SampleRequest, Slot
from ti_train.hosts.diffusers import DiffusersHost, check_folder, pick_device, pick_dtype
from ti_train.loop import Step, Warning, train
from ti_train.objective import add_noise, denoising_loss, target
from ti_train.prompts import parse, text_of

ENCODER = "clip_l"
KINDS = {"eps": {}, "v": {"prediction": "v_prediction"}, "small VAE": {"small_vae": True}}


@pytest.fixture(scope="module", params=KINDS)
def any_host(request, pipelines):
    return DiffusersHost.load(pipelines(**KINDS[request.param]), "cpu", "float32")


@pytest.fixture(scope="module")
def host(pipeline_folder):
    return DiffusersHost.load(pipeline_folder, "cpu", "float32")


@pytest.fixture
def pipeline(pipeline_folder):
    made = StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)
    made.set_progress_bar_config(disable=True)
    return made


def vectors_of(count: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


def weights_of(host) -> str:
    digest = hashlib.sha256()
    for tensor in chain.from_iterable(m.state_dict().values() for m in (host.unet, host.text_encoder, host.vae)):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def flags_of(host) -> list:
    modules = (host.unet, host.text_encoder, host.vae)
    parameters = chain.from_iterable(module.parameters() for module in modules)
    parts = chain.from_iterable(module.modules() for module in modules)
    state = [(p.training, getattr(p, "gradient_checkpointing", None), len(p._forward_hooks)) for p in parts]
    return [(p.requires_grad, p.grad is None) for p in parameters] + state


# --- Prompts, against the pipeline's own ----------------------------------------

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
    expected, empty = pipeline.encode_prompt(text, "cpu", 1, True)
    assert torch.equal(host.encode([(text,)], {}), expected)
    assert torch.equal(host.encode([("",)], {}), empty)


TYPED = [
    "<my-cat>",
    "<my-cat> on a table",
    "a photo of <my-cat>",
    "a photo of <my-cat>, the red <my-cat>",
    "<my-cat> and <my-dog>",
    "the <my-dog>, a <my-cat>-toy",
    "dog " * 60 + "<my-cat> " + "cat " * 40,
]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: typed[:30])
def test_the_saved_word_conditions_diffusers_as_it_did_the_training(host, pipeline, tmp_path, typed, count):
    """Through the file: written here, read by diffusers' own loader."""
    words = {"my-cat": {ENCODER: vectors_of(count)}, "my-dog": {ENCODER: vectors_of(2, seed=1)}}
    for name, vectors in words.items():
        save_embedding(Embedding(name, vectors), tmp_path / f"{name}.safetensors")
        pipeline.load_textual_inversion(tmp_path, weight_name=f"{name}.safetensors", token=f"<{name}>")
    expected, _ = pipeline.encode_prompt(typed, "cpu", 1, False)
    prompt = parse(typed, words)
    assert text_of(prompt) == typed
    assert torch.allclose(host.encode([prompt], words), expected, atol=1e-6, rtol=0)


def test_a_batch_is_its_prompts_one_by_one(host):
    words = {"a": {ENCODER: vectors_of(1)}, "b": {ENCODER: vectors_of(3, 1)}}
    prompts = [parse(text, words) for text in ("<a> and <b>", "a photo of <b>", "a cat", "<a><a>")]
    together = host.encode(prompts, words)
    apart = torch.cat([host.encode([prompt], words) for prompt in prompts])
    assert torch.allclose(together, apart, atol=1e-6)


def test_as_many_vectors_fit_as_the_context_has_tokens(host):
    assert host.encode([(Slot("*"),)], {"*": {ENCODER: vectors_of(75)}}).shape == (1, 77, 32)
    with pytest.raises(
        UserError, match=r"76 vector\(s\) the word '\*' ends at token 76, and the text encoder takes 75"
    ):
        host.encode([(Slot("*"),)], {"*": {ENCODER: vectors_of(76)}})


def test_a_word_behind_a_long_text_does_not_fit(host):
    with pytest.raises(UserError, match="Use fewer vectors, or a shorter template or caption"):
        host.encode([("cat " * 75, Slot("*"))], {"*": {ENCODER: vectors_of(1)}})


def test_vocabulary_words_are_spelt_as_people_write_them(host):
    vocabulary = host.vocabulary(ENCODER)
    assert [vocabulary.spell(i) for i in vocabulary.tokenize("a photo of cat")] == ["a", "photo", "of", "cat"]
    assert torch.equal(
        vocabulary.rows("cat"), host.text_encoder.get_input_embeddings().weight[vocabulary.tokenize("cat")]
    )


# --- Noise and answers, against the scheduler and the U-Net ---------------------


def test_the_network_is_asked_as_diffusers_own_training_asks_it(any_host):
    """With its DDPMScheduler: the network sees z = alpha x + s noise, and timesteps."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(any_host.pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 100, 500, 999])
    sigma, cond = any_host.sigmas[timesteps], any_host.encode([("a cat",)] * 4, {})
    noisy = add_noise(x0, noise, sigma, any_host.prediction)
    with torch.no_grad():
        expected = any_host.unet(scheduler.add_noise(x0, noise, timesteps), timesteps, cond).sample
        assert torch.allclose(any_host.predict(noisy, sigma, cond), expected, atol=1e-5)
    wanted = noise if any_host.prediction == "eps" else scheduler.get_velocity(x0, noise, timesteps)
    assert torch.allclose(target(x0, noise, sigma, any_host.prediction), wanted, atol=1e-5)


def test_noise_levels_rise_and_are_as_many_as_the_model_was_trained_on(any_host):
    assert len(any_host.sigmas) == 1000
    assert (any_host.sigmas.diff() > 0).all()


def test_a_schedule_that_ends_in_pure_noise_has_finite_levels(pipelines):
    """Zero terminal signal-to-noise, Lin et al. 2023: its last level would be infinite."""
    folder = pipelines(prediction="v_prediction", rescale_betas_zero_snr=True)
    host = DiffusersHost.load(folder, "cpu", "float32")
    last = host.sigmas[-1:]
    assert last.isfinite().all()
    noisy = add_noise(torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8), last, "v")
    assert host.predict(noisy, last, host.encode([("a cat",)], {})).isfinite().all()


def test_latents_are_the_vaes_distribution_in_the_unets_scale(any_host):
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents, scale = any_host.latents(pictures), any_host.vae.config.scaling_factor
    with torch.no_grad():
        encoded = any_host.vae.encode(pictures)
    if hasattr(encoded, "latents"):
        assert torch.allclose(latents.mean, encoded.latents * scale)
        assert latents.log_variance is None
    else:
        assert torch.allclose(latents.mean, encoded.latent_dist.mean * scale)
        assert torch.allclose((0.5 * latents.log_variance).exp(), encoded.latent_dist.std * scale)


def test_a_picture_is_the_pipelines_own(host, pipeline):
    request = SampleRequest((("a photo of a cat",),), (5,), 16, 16, 3, 4.0, ("dog",))
    (picture,) = host.sample(request, {})
    expected = pipeline(
        "a photo of a cat", negative_prompt="dog", num_inference_steps=3, guidance_scale=4.0, width=16, height=16,
        generator=torch.Generator().manual_seed(5),
    ).images[0]  # fmt: skip
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(expected)).max() <= 1


# --- The gradient ---------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_the_gradient_is_the_slope_of_the_loss(any_host, checkpointing):
    """Along its own direction, in fp32, through text encoder and U-Net."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    sigma, vectors = any_host.sigmas[[200, 700]], vectors_of(2).requires_grad_()
    prompts = [("a photo of ", Slot("*")), (Slot("*"), " and the ", Slot("*"))]
    noisy = add_noise(x0, noise, sigma, any_host.prediction)
    wanted = target(x0, noise, sigma, any_host.prediction)

    def answer(vectors):
        return any_host.predict(noisy, sigma, any_host.encode(prompts, {"*": {ENCODER: vectors}}))

    with any_host.training(checkpointing):
        denoising_loss(answer(vectors), wanted).mean().backward()
    slope = vectors.grad.norm()
    assert slope > 0
    step = 0.02 * vectors.grad / slope
    with torch.no_grad():
        above, below = ((answer(vectors + s * step).double() - wanted).pow(2).mean() for s in (1, -1))
    assert ((above - below) / 0.04).item() == pytest.approx(slope.item(), rel=0.02)


def test_a_training_step_is_the_same_with_gradient_checkpointing(host, pictures, settings, tmp_path):
    def learnt(**given):
        list(train(host, dataset_of(host, pictures), settings(**given), tmp_path / str(given)))
        return load_file(tmp_path / str(given) / "my-toy.safetensors")["emb_params"]

    assert torch.allclose(learnt(), learnt(gradient_checkpointing=True), atol=1e-6)


# --- Runs -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_a_run_leaves_the_model_as_it_was_to_the_last_bit(pipelines, pictures, settings, tmp_path, kind, checkpointing):
    host = DiffusersHost.load(pipelines(**KINDS[kind]), "cpu", "float32")
    weights, flags = weights_of(host), flags_of(host)
    config = settings(preview_every=6, gradient_checkpointing=checkpointing)
    list(train(host, dataset_of(host, pictures), config, tmp_path))
    assert (weights_of(host), flags_of(host)) == (weights, flags)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_an_error_within_a_step_leaves_the_model_as_it_was(
    pipeline_folder, pictures, settings, tmp_path, part, checkpointing
):
    host = DiffusersHost.load(pipeline_folder, "cpu", "float32")  # its own: no other test has touched it
    weights, flags, dataset = weights_of(host), flags_of(host), dataset_of(host, pictures)
    config = settings(gradient_checkpointing=checkpointing)
    with at_forward(getattr(host, part), [2], raising(RuntimeError("out of memory"))), pytest.raises(RuntimeError):
        list(train(host, dataset, config, tmp_path))
    assert (weights_of(host), flags_of(host)) == (weights, flags)


@pytest.mark.parametrize("given", [{}, {"num_vectors": 3, "flip": True, "batch_size": 1, "accumulation": 2}])
def test_interrupted_and_resumed_equals_uninterrupted(any_host, pictures, settings, tmp_path, given):
    config = settings(steps=4, **given)
    dataset = dataset_of(any_host, pictures, config.flip)
    list(train(any_host, dataset, config, tmp_path / "whole"))
    interrupted = at_forward(any_host.unet, [3 * config.accumulation], raising(KeyboardInterrupt()))
    with interrupted, pytest.raises(KeyboardInterrupt):
        list(train(any_host, dataset, config, tmp_path / "parts"))
    assert load_embedding(tmp_path / "parts" / "my-toy.safetensors").provenance["step"] == "2"
    with closing(train(any_host, dataset, config, tmp_path / "parts", resume=True)) as events:
        next(events)
    list(train(any_host, dataset, config, tmp_path / "parts", resume=True))
    whole, parts = (load_file(tmp_path / kind / "my-toy.safetensors")["emb_params"] for kind in ("whole", "parts"))
    assert torch.equal(whole, parts)


def test_the_noise_free_loss_falls(any_host, pictures, settings, tmp_path):
    config = settings(steps=30, learning_rate=0.05, evaluate_every=30)
    steps = [e for e in train(any_host, dataset_of(any_host, pictures), config, tmp_path) if isinstance(e, Step)]
    assert steps[-1].evaluation < steps[0].evaluation


def test_a_unet_that_overflows_is_skipped_and_told(host, pictures, settings, tmp_path):
    with at_forward(host.unet, [2], not_a_number):
        events = list(train(host, dataset_of(host, pictures), settings(), tmp_path))
    assert ["Step 2 was skipped" in event.message for event in events if isinstance(event, Warning)] == [True]
    assert load_embedding(tmp_path / "my-toy.safetensors").vectors["emb_params"].isfinite().all()


def test_a_unet_that_ignores_its_prompt_is_told(own_pipeline, pictures, settings, tmp_path):
    host = DiffusersHost.load(own_pipeline, "cpu", "float32")
    for name, weight in host.unet.named_parameters():
        if "attn2.to_out" in name:
            weight.data.zero_()
    with pytest.raises(UserError, match=r"No gradient reached .*ignores its prompt"):
        list(train(host, dataset_of(host, pictures), settings(), tmp_path))


def test_bfloat16_learns_nearly_what_float32_does(pipeline_folder, pictures, settings, tmp_path):
    losses = []
    for dtype in ("float32", "bfloat16"):
        host = DiffusersHost.load(pipeline_folder, "cpu", dtype)
        config = settings(dtype=dtype, preview_every=6)
        events = list(train(host, dataset_of(host, pictures), config, tmp_path / dtype))
        losses.append([event.loss for event in events if isinstance(event, Step) and event.loss is not None])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


# --- Loading --------------------------------------------------------------------


def test_weights_have_their_fingerprint_whatever_the_type_they_run_in(pipelines, own_pipeline):
    plain = DiffusersHost.load(own_pipeline, "cpu", "float32")
    assert DiffusersHost.load(own_pipeline, "cpu", "bfloat16").fingerprint == plain.fingerprint
    plain.unet.conv_in.weight.data.add_(1)
    plain.unet.save_pretrained(own_pipeline / "unet")
    assert DiffusersHost.load(own_pipeline, "cpu", "float32").fingerprint != plain.fingerprint


def test_the_size_of_its_pictures_is_the_models(host):
    assert (host.resolution, host.widths) == (16, {ENCODER: 32})


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda folder: None, "is no model folder: it has no model_index.json"),
        (lambda folder: folder.write_bytes(b"checkpoint"), "is a file. .*convert the checkpoint"),
        (lambda folder: folder.mkdir(), "is no model folder"),
    ],
)
def test_what_is_no_model_folder_is_refused(tmp_path, write, why):
    write(tmp_path / "model")
    with pytest.raises(UserError, match=why):
        DiffusersHost.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ("{", "model_index.json' cannot be read"),
        ("[]", "model_index.json' cannot be read"),
        ("\xff", "model_index.json' cannot be read"),
        ("{}", "is a None; supported is StableDiffusionPipeline"),
        (json.dumps({"_class_name": "StableDiffusionXLPipeline"}), "is a StableDiffusionXLPipeline; supported is"),
    ],
)
def test_a_folder_of_another_kind_is_refused_before_anything_is_loaded(tmp_path, index, why):
    (tmp_path / "model_index.json").write_bytes(index.encode("latin-1"))
    with pytest.raises(UserError, match=why):
        check_folder(tmp_path)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae", "tokenizer", "scheduler"])
def test_a_folder_that_lacks_a_part_is_refused(own_pipeline, part):
    shutil.rmtree(own_pipeline / part)
    with pytest.raises(UserError, match=f"own-model.*{part}"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b""], ids=["half", "empty"])
def test_damaged_weights_are_refused(own_pipeline, part, damage):
    (file,) = (own_pipeline / part).glob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"model folder '.*' cannot be loaded"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


def test_a_scheduler_that_predicts_something_else_is_refused(own_pipeline):
    config = own_pipeline / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', '"sample"'))
    with pytest.raises(UserError, match="scheduler predicts 'sample'; supported are epsilon, v_prediction"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


@pytest.mark.parametrize("name", ["abacus", "", "cuda:0x"])
def test_a_device_that_is_not_there_is_answered_with_those_that_are(name):
    with pytest.raises(UserError, match=f"The device '{name}' is not there. .* have: .*cpu"):
        pick_device(name)


def test_what_is_asked_for_is_picked():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cuda", "xpu", "mps", "cpu")
    assert pick_dtype("float16", torch.device("cpu")) == torch.float16
    assert pick_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
