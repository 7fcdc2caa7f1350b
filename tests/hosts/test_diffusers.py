"""The diffusers host against diffusers itself, on small Stable Diffusion folders with real modules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain

import numpy as np
import pytest
import torch
from failing_calls import ERRORS, FailingCalls, Place, first_of_each
from old_libraries import needs_pooling_at_the_end
from safetensors.torch import load_file
from tiny_host import at_forward, dataset_of, not_a_number, raising

pytest.importorskip("diffusers")

from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention import FeedForward

from ti_train.errors import UserError
from ti_train.events import Step, Warning
from ti_train.formats import load_embedding
from ti_train.host import SampleRequest, Size, Slot
from ti_train.hosts import adapter, dropped_results
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.dropped_results import Dropped
from ti_train.training.loop import train
from ti_train.training.micro_batches import MicroBatch
from ti_train.training.objective import add_noise, denoising_loss, target
from ti_train.training.out_of_memory import train_in_memory

KINDS = {
    "SD1": {},
    "SD1 v": {"prediction": "v_prediction"},
    "small VAE": {"small_vae": True},
    "SD2 v": {"family": "sd2", "prediction": "v_prediction"},
    "SDXL": {"family": "sdxl"},
}


@pytest.fixture(scope="module", params=KINDS)
def any_folder(request, pipelines):
    return pipelines(**KINDS[request.param])


@pytest.fixture(scope="module")
def any_host(any_folder):
    return DiffusersHost.load(any_folder, "cpu", "float32")


@pytest.fixture(scope="module")
def host(pipeline_folder):
    return DiffusersHost.load(pipeline_folder, "cpu", "float32")


def pipeline_of(folder):
    made = DiffusionPipeline.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


def word(host, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(count, width, generator=generator) for name, width in host.widths.items()}


def modules_of(host) -> tuple:
    return (host.unet, *host.text_encoders, host.vae)


def weights_of(host) -> str:
    digest = hashlib.sha256()
    for tensor in chain.from_iterable(module.state_dict().values() for module in modules_of(host)):
        digest.update((tensor.to_dense() if tensor.is_mkldnn else tensor).numpy().tobytes())
    return digest.hexdigest()


def flags_of(host) -> list:
    modules = modules_of(host)
    parameters = chain.from_iterable(module.parameters() for module in modules)
    parts = chain.from_iterable(module.modules() for module in modules)
    state = [(p.training, getattr(p, "gradient_checkpointing", None), len(p._forward_hooks)) for p in parts]
    return [(p.requires_grad, p.grad is None) for p in parameters] + state


# --- Noise and answers, against the scheduler and the U-Net ---------------------


def test_the_network_is_asked_as_diffusers_own_training_asks_it(any_host):
    """With its DDPMScheduler: the network sees z = alpha x + s noise, and timesteps."""
    scheduler = DDPMScheduler.from_config(any_host.pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 100, 500, 999])
    sigma, cond = any_host.sigmas[timesteps], any_host.encode([("a cat",)] * 4, {})
    noisy = add_noise(x0, noise, sigma, any_host.prediction)
    with torch.no_grad():
        expected = any_host.unet(scheduler.add_noise(x0, noise, timesteps), timesteps, **cond).sample
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
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    latents, scale = any_host.latents(pixels), any_host.vae.config.scaling_factor
    with torch.no_grad():
        encoded = any_host.vae.encode(pictures)
    if hasattr(encoded, "latents"):
        assert torch.allclose(latents.mean, encoded.latents * scale)
        assert latents.log_variance is None
    else:
        assert torch.allclose(latents.mean, encoded.latent_dist.mean * scale)
        assert torch.allclose((0.5 * latents.log_variance).exp(), encoded.latent_dist.std * scale)


@pytest.mark.parametrize("small", [False, True], ids=["posterior", "small VAE"])
def test_a_vae_with_a_shift_has_its_latents_around_zero(pipelines, small):
    """As diffusers' pipelines for such VAEs: encoded to (z - shift) scale, decoded from latents / scale + shift."""
    host = DiffusersHost.load(pipelines(small_vae=small), "cpu", "float32")
    pixels = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    request, decoded = SampleRequest((("a cat",),), (5,), 16, 16, steps=1), []
    host.vae.register_to_config(scaling_factor=0.5)  # a small one's own is 1
    decode = host.vae.decode
    host.vae.decode = lambda z, **given: [decoded.append(z), decode(z, **given)][1]
    plain, _ = host.latents(pixels), host.sample(request, {})
    host.vae.register_to_config(shift_factor=0.25)
    shifted, _ = host.latents(pixels), host.sample(request, {})
    assert torch.allclose(shifted.mean, plain.mean - 0.25 * host.vae.config.scaling_factor, atol=1e-6)
    assert small or torch.equal(shifted.log_variance, plain.log_variance)
    assert torch.allclose(decoded[1], decoded[0] + 0.25, atol=1e-6)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_unet_and_the_encoders_linear_layers_have_the_dtype_and_all_else_float32(pipelines, family, dtype):
    host = DiffusersHost.load(pipelines(family=family), "cpu", str(dtype).removeprefix("torch."))
    assert {p.dtype for p in host.unet.parameters()} == {dtype}
    assert {p.dtype for p in host.vae.parameters()} == {torch.float32}
    for module in (module for encoder in host.text_encoders for module in encoder.modules()):
        own = dtype if isinstance(module, torch.nn.Linear) else torch.float32
        assert {p.dtype for p in module.parameters(recurse=False)} <= {own}, module
    assert host.full_precision == (dtype == torch.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_the_core_gets_is_float32_whatever_the_model_computes_in(pipelines, dtype):
    host = DiffusersHost.load(pipelines(), "cpu", dtype)
    latents = host.latents(torch.zeros(1, 16, 16, 3, dtype=torch.uint8))
    cond = host.encode([("a ", Slot("*"))], {"*": word(host, 1)})
    predicted = host.predict(latents.mean, torch.ones(1), cond)
    given = [latents.mean, latents.log_variance, cond["encoder_hidden_states"], predicted]
    assert {tensor.dtype for tensor in (*given, host.vocabulary("clip_l").table)} == {torch.float32}


@pytest.mark.parametrize("negative", ["", "dog"])
def test_a_picture_is_the_pipelines_own(any_folder, any_host, negative):
    request = SampleRequest((("a photo of a cat",),), (5,), 16, 16, 3, 4.0, (negative,))
    (picture,) = any_host.sample(request, {})
    expected = pipeline_of(any_folder)(
        "a photo of a cat", negative_prompt=negative or None, num_inference_steps=3, guidance_scale=4.0,
        width=16, height=16, generator=torch.Generator().manual_seed(5),
    ).images[0]  # fmt: skip
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(expected)).max() <= 1


# --- The gradient ---------------------------------------------------------------

TEXTS = {"a photo of <w>": ("a photo of ", Slot("*")), "<w> and the <w>": (Slot("*"), " and the ", Slot("*"))}
SIZES = [Size((24, 40), (0, 3), (16, 16)), Size((16, 16), (0, 0), (16, 16))]


class Reference:
    """The loss by diffusers' own means, in float64: its pipeline with the word in its grown tables, its scheduler."""

    def __init__(self, folder, vectors):
        self.pipeline = pipeline_of(folder)
        self.endings = [""] if len(vectors) == 1 else ["", "_2"]
        for ending, tensor in zip(self.endings, vectors.values(), strict=True):
            encoder, words = self.part("text_encoder", ending), self.part("tokenizer", ending)
            self.pipeline.load_textual_inversion({"<w>": tensor}, token="<w>", text_encoder=encoder, tokenizer=words)
            encoder.double()
        self.pipeline.unet.double()
        self.scheduler = DDPMScheduler.from_config(self.pipeline.scheduler.config)

    def part(self, name: str, ending: str):
        return getattr(self.pipeline, name + ending)

    @torch.no_grad()
    def loss(self, vectors, x0, noise, timesteps) -> float:
        for ending, rows in zip(self.endings, vectors.values(), strict=True):
            self.part("text_encoder", ending).get_input_embeddings().weight.data[-len(rows) :] = rows
        embeds = self.pipeline.encode_prompt(
            list(TEXTS), device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        given = {"encoder_hidden_states": embeds[0]}
        if len(self.endings) == 2:
            sizes = [s.original + s.crop + s.target for s in SIZES]
            given["added_cond_kwargs"] = {"text_embeds": embeds[2], "time_ids": torch.tensor(sizes).double()}
        noisy = self.scheduler.add_noise(x0, noise, timesteps)
        wanted = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            wanted = self.scheduler.get_velocity(x0, noise, timesteps)
        return (self.pipeline.unet(noisy, timesteps, **given).sample - wanted).pow(2).mean().item()


def test_the_gradient_is_the_same_bits_if_results_are_dropped(any_host, monkeypatch):
    """As in runs of models that are known to need much memory."""
    monkeypatch.setattr(dropped_results, "LEAST", 0)
    kept, keep = [], dropped_results.keep
    monkeypatch.setattr(dropped_results, "keep", lambda tensor: kept.append(keep(tensor)) or kept[-1])
    sigma, noisy, found = any_host.sigmas[[200, 700]], torch.randn(2, 4, 8, 8), []
    for memory in (0, 1):
        vectors = {name: tensor.requires_grad_() for name, tensor in word(any_host, 2).items()}
        with any_host.training(memory=memory):
            answer = any_host.predict(noisy, sigma, any_host.encode(list(TEXTS.values()), {"*": vectors}, SIZES))
            answer.square().mean().backward()
        found.append({name: tensor.grad for name, tensor in vectors.items()})
    assert sum(isinstance(one, Dropped) for one in kept) > 10
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_the_gradient_is_the_slope_of_diffusers_own_loss(any_folder, any_host, checkpointing):
    """By finite differences in float64, along the gradient's own direction and along others, in every encoder."""
    needs_pooling_at_the_end("sdxl" if len(any_host.widths) > 1 else "sd1")
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    timesteps = torch.tensor([200, 700])
    vectors = {name: tensor.requires_grad_() for name, tensor in word(any_host, 2).items()}
    sigma, kind = any_host.sigmas[timesteps], any_host.prediction
    with any_host.training(checkpointing):
        cond = any_host.encode(list(TEXTS.values()), {"*": vectors}, SIZES)
        answer = any_host.predict(add_noise(x0, noise, sigma, kind), sigma, cond)
        denoising_loss(answer, target(x0, noise, sigma, kind)).mean().backward()

    start = {name: tensor.detach().double() for name, tensor in vectors.items()}
    reference, batch = Reference(any_folder, start), (x0.double(), noise.double(), timesteps)
    for name, tensor in vectors.items():
        gradient = tensor.grad.double()
        others = [torch.randn(gradient.shape, generator=generator).double() for _ in range(2)]
        for direction in (gradient, *others):
            step = 1e-3 * direction / direction.norm()
            above, below = (reference.loss(start | {name: start[name] + s * step}, *batch) for s in (1, -1))
            slope = (gradient * step).sum().item()
            assert (above - below) / 2 == pytest.approx(slope, rel=1e-3, abs=1e-3 * gradient.norm().item() * 1e-3)


def test_a_gradient_is_the_same_with_feed_forwards_computed_again(any_host, monkeypatch):
    monkeypatch.setattr(any_host, "_too_much", any_host._too_much)  # so that later tests have it as it was

    def gradients(free: int | None) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(adapter, "free_memory", lambda _: free)
        vectors, generator = word(any_host, 2), torch.Generator().manual_seed(0)
        for vector in vectors.values():
            vector.requires_grad_()
        x0, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
        prompts, sizes = [("a ", Slot("*"))] * 2, [Size((64, 64), (0, 0), (64, 64))] * 2
        part = MicroBatch(x0, noise, torch.tensor([0.5, 5.0]), torch.ones(2, 1, 8, 8), prompts, sizes)
        with any_host.training(memory=1):
            part.losses(any_host, {"*": vectors}).sum().backward()
        return {name: vector.grad for name, vector in vectors.items()}

    calls, forward = [], FeedForward.forward
    monkeypatch.setattr(FeedForward, "forward", lambda self, *given: calls.append(1) or forward(self, *given))
    plain, once = gradients(None), len(calls)
    again = gradients(0)
    assert all(torch.equal(again[name], gradient) for name, gradient in plain.items())
    assert len(calls) == 3 * once, "twice in the second step"


def test_a_training_step_is_the_same_with_gradient_checkpointing(any_host, pictures, settings, tmp_path):
    def learnt(**given):
        list(train(any_host, dataset_of(any_host, pictures), settings(**given), tmp_path / str(given)))
        return load_file(tmp_path / str(given) / "my-toy.safetensors")

    plain, checkpointed = learnt(), learnt(gradient_checkpointing=True)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)


# --- Runs -----------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_a_run_leaves_the_model_as_it_was_to_the_last_bit(any_folder, pictures, settings, tmp_path, checkpointing):
    host = DiffusersHost.load(any_folder, "cpu", "float32")
    host.encode([("",)], {})  # transformers hooks itself into an encoder that is first asked for its hidden states
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
    with (
        at_forward(getattr(host.pipeline, part), [2], raising(RuntimeError("out of memory"))),
        pytest.raises(RuntimeError),
    ):
        list(train(host, dataset, config, tmp_path))
    assert (weights_of(host), flags_of(host)) == (weights, flags)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_whichever_kind_of_call_into_the_model_fails_it_is_left_as_it_was(
    pipelines, pictures, settings, tmp_path, family, error, checkpointing
):
    """The first call of each kind: of a function, in a mode. Without the memory for it, the run goes on with less."""
    with failing(pipelines(family=family), pictures, settings(gradient_checkpointing=checkpointing, **FEW)) as run:
        whole = run(tmp_path / "whole")
        first = first_of_each(run.calls.kinds)
        assert len(first) >= 10, "kinds of calls"
        check_each_failure(run, whole, first, error, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("error", ERRORS)
def test_whichever_call_into_the_model_fails_it_is_left_as_it_was(
    pipelines, pictures, settings, tmp_path, error, checkpointing
):
    """Every call of a run with validation and previews, one after another."""
    with failing(pipelines(), pictures, settings(gradient_checkpointing=checkpointing, **FEW)) as run:
        whole = run(tmp_path / "whole")
        check_each_failure(run, whole, range(1, len(run.calls.kinds) + 1), error, tmp_path)


FEW = {"steps": 2, "batch_size": 2, "preview_every": 2, "preview_steps": 1}


class Failing:
    """Trains with a model, one of whose calls fails; returns the losses."""

    def __init__(self, folder, pictures, config) -> None:
        self.host, self.pictures, self.config = DiffusersHost.load(folder, "cpu", "float32"), pictures, config
        self.calls = FailingCalls(calls_into(self.host))

    def __call__(self, folder, fails: int = 0, error: str = "host") -> list[tuple]:
        self.calls.restart(fails, error)
        dataset = dataset_of(self.host, self.pictures)
        events = list(train_in_memory(self.host, dataset, self.config, folder))
        return [(event.loss, event.validation_loss) for event in events if isinstance(event, Step)]


@contextmanager
def failing(folder, pictures, config) -> Iterator[Failing]:
    run = Failing(folder, pictures, config)
    with closing(run.calls):
        yield run


def check_each_failure(run, whole, numbers, error, folder) -> None:
    """Asserts that the model is as it was after each, and in the end trains as it did."""
    before = surroundings(run.host)
    for number in numbers:
        with suppress(RuntimeError, UserError):  # one without memory is repeated, or a warning
            run(folder / str(number), number, error)
        assert len(run.calls.kinds) >= number, "the call was not made"
        assert surroundings(run.host) == before, f"call {number}: {run.calls.kinds[number - 1]}"
    assert run(folder / "last") == whole


def calls_into(host) -> list[Place]:
    """Those that the adapter makes into its model."""
    pipeline = host.pipeline
    return [
        (type(pipeline), "__call__"),
        (type(pipeline.tokenizer), "__call__"),
        (type(pipeline.scheduler), "set_timesteps"),
        (type(pipeline.scheduler), "step"),
        (type(host.unet), "forward"),
        (type(host.vae), "encode"),
        (type(host.vae), "decode"),
        *((type(encoder), "forward") for encoder in host.text_encoders),
    ]


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


def content_of(tokenizer) -> object:
    """All that a tokenizer has; of a slow one, as older versions of transformers load, its vocabulary."""
    return tokenizer and (tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab())


def surroundings(host) -> tuple:
    """All that an error could leave behind: of the model, and of PyTorch's modes in this thread."""
    modes = [torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_cpu_enabled()]
    modes += [torch.is_anomaly_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()]
    parts = [part for module in modules_of(host) for part in module.modules()]
    hooks = [[(name, [*getattr(part, name)]) for name in HOOKS] for part in parts]
    forwards = [vars(part).get("forward") for part in parts]
    words = [content_of(host.pipeline.components.get(name)) for name in ("tokenizer", "tokenizer_2")]
    return (
        weights_of(host),
        flags_of(host),
        hooks,
        forwards,
        words,
        modes,
        host.stepping,
        torch.get_rng_state().tolist(),
    )


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
    whole, parts = (load_file(tmp_path / kind / "my-toy.safetensors") for kind in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_noise_free_loss_falls(any_host, pictures, settings, tmp_path):
    config = settings(steps=30, learning_rate=0.05, evaluate_every=30)
    steps = [e for e in train(any_host, dataset_of(any_host, pictures), config, tmp_path) if isinstance(e, Step)]
    assert steps[-1].validation_loss < steps[0].validation_loss


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


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_bfloat16_learns_nearly_what_float32_does(family, pipelines, pictures, settings, tmp_path):
    losses = []
    for dtype in ("float32", "bfloat16"):
        host = DiffusersHost.load(pipelines(family=family), "cpu", dtype)
        config = settings(dtype=dtype, preview_every=6)
        events = list(train(host, dataset_of(host, pictures), config, tmp_path / dtype))
        losses.append([event.loss for event in events if isinstance(event, Step) and event.loss is not None])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_weights_have_their_fingerprint_whatever_the_type_they_run_in(pipelines, own_pipeline):
    plain = DiffusersHost.load(own_pipeline, "cpu", "float32")
    assert DiffusersHost.load(own_pipeline, "cpu", "bfloat16").fingerprint == plain.fingerprint
    unet = UNet2DConditionModel.from_pretrained(own_pipeline / "unet")
    unet.conv_in.weight.data.add_(1)
    unet.save_pretrained(own_pipeline / "unet")
    assert DiffusersHost.load(own_pipeline, "cpu", "float32").fingerprint != plain.fingerprint


def test_the_size_of_its_pictures_is_the_models(host):
    assert (host.resolution, host.widths) == (16, {"clip_l": 32})


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_pictures_are_decoded_one_at_a_time(pipelines, family):
    host, seen = DiffusersHost.load(pipelines(family=family), "cpu", "float32"), []
    host.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    host.sample(SampleRequest((("a cat",), ("a dog",)), (0, 1), 16, 16, steps=1), {})
    assert seen == [1, 1]
