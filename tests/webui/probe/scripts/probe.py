"""Looks into the WebUI's process for the tests: routes below /ti-train-test."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from fastapi import Body
from modules import call_queue, deepbooru, deepbooru_model, prompt_parser, script_callbacks, shared, ui_extra_networks
from modules.processing_scripts.comments import strip_comments
from safetensors.torch import load_file, save_file

PACK = sys.modules["ti_train_extension_pack"]
from ti_train_extension_pack.ti_train.errors import UserError
from ti_train_extension_pack.ti_train.host import SampleRequest, Size, Slot
from ti_train_extension_pack.ti_train.hosts import dropped_results
from ti_train_extension_pack.ti_train.hosts.webui.host import text_with_names
from ti_train_extension_pack.ti_train.training.objective import add_noise, denoising_loss, target
from ti_train_extension_pack.webui_tab.hosts import connect

WORD = Slot("*")
LEVELS = (0, 500, 900, 999)
ENCODED_BY = ("cond_stage_model", "conditioner", "text_processing_engine", "text_processing_engine_l")
PROMPTS = [("a photo of a ", WORD), ("a rendering of the ", WORD, ", in the rain")]
SIZES = [Size((640, 512), (0, 64), (512, 512)), Size((1024, 1024), (0, 0), (768, 768))]


def loss_of(host: Any, data: dict[str, torch.Tensor], vectors: dict[str, torch.Tensor]) -> torch.Tensor:
    sigma = host.sigmas[data["timesteps"]]
    noisy = add_noise(data["x0"], data["noise"], sigma, host.prediction)
    predicted = host.predict(noisy, sigma, host.encode(PROMPTS, {"*": vectors}, SIZES))
    return denoising_loss(predicted, target(data["x0"], data["noise"], sigma, host.prediction)).mean()


def recomputed_differ(host: Any, data: dict[str, Any], found: dict[str, Any], too_much: float) -> list[str]:
    """The encoders whose gradient is another one if results are made again in backward, tiny ones too.

    too_much: bytes of a step of which feed-forwards are computed again as well.
    """
    vectors = {name: data[name].clone().requires_grad_() for name in host.widths}
    short = patch.object(host, "_too_much", too_much)
    with patch.object(dropped_results, "LEAST", 0), short, host.training(memory=1):
        loss_of(host, data, vectors).backward()
    return [name for name, vector in vectors.items() if not torch.equal(vector.grad, found[name])]


def gradient(file: str = Body(..., embed=True)) -> dict[str, Any]:
    """Reads x0, noise, timesteps, pictures and the word from a file; writes the gradients and the latents beside it."""
    data = load_file(file)
    with call_queue.queue_lock:
        host = connect()
        results: dict[str, Any] = {}
        for checkpointing in (False, True):
            vectors = {name: data[name].clone().requires_grad_() for name in host.widths}
            began = time.perf_counter()
            with host.training(checkpointing):
                loss = loss_of(host, data, vectors)
                loss.backward()
            results[f"seconds_{checkpointing}"] = time.perf_counter() - began
            data |= {f"gradient_{checkpointing}_{name}": vector.grad for name, vector in vectors.items()}
        found = {name: data[f"gradient_False_{name}"] for name in host.widths}
        results["dropped"] = recomputed_differ(host, data, found, too_much=math.inf)
        results["feed_forwards"] = recomputed_differ(host, data, found, too_much=1)
        results["has_feed_forwards"] = any(type(part).__name__ == "FeedForward" for part in host.network.modules())
        norm = float(torch.cat([part.flatten() for part in found.values()]).norm())
        with torch.no_grad():
            moved = [{n: data[n] + sign * 0.02 * part / norm for n, part in found.items()} for sign in (1, -1)]
            ends = [float(loss_of(host, data, vectors)) for vectors in moved]
        slope = (ends[0] - ends[1]) / 0.04
        results |= {"loss": float(loss), "norm": norm, "finite_differences": abs(slope - norm) / norm}
        latents = host.latents(data["pictures"])
        data["mean"] = latents.mean.contiguous()
        if latents.log_variance is not None:
            data["log_variance"] = latents.log_variance.contiguous()
        vocabularies = [host.vocabulary(name) for name in host.widths]
        results["ids"] = [vocabulary.tokenize("an oil painting") for vocabulary in vocabularies]
        results["spelt"] = [vocabulary.spell(2368) for vocabulary in vocabularies]
    save_file(data, Path(file).with_suffix(".out.safetensors"))
    return results


def state() -> dict[str, Any]:
    """All that a training could leave changed."""
    with call_queue.queue_lock:
        host = connect()
        modules = (host.network, *host.transformers.values(), host.autoencoder)
        weights = hashlib.sha256()
        with torch.inference_mode():
            for module in modules:
                for tensor in module.state_dict().values():
                    weights.update(tensor.float().cpu().numpy().tobytes())
        parameters = [p for module in modules for p in module.parameters()]
        switches = ("checkpoint", "use_checkpoint")
        everything = [m for module in modules for m in module.modules()]
        return {
            "weights": weights.hexdigest(),
            "requires_grad": sum(p.requires_grad for p in parameters),
            "inference": sum(p.is_inference() for p in parameters),
            "gradients": sum(p.grad is not None for p in parameters),
            "training": sum(m.training for m in everything),
            "checkpointing": sum(getattr(m, name, False) is True for m in everything for name in switches),
            "instance_forwards": sum("forward" in vars(m) for m in everything),
            "words": sorted(name for database in host.databases for name in database.word_embeddings),
            "lookup": sorted(e.name for d in host.databases for found in d.ids_lookup.values() for _, e in found),
            "job": [shared.state.job, shared.state.job_count, shared.state.interrupted],
            "grad_mode": torch.is_grad_enabled(),
        }


def sample(body: dict[str, Any] = Body(...)) -> dict[str, Any]:
    """Pictures of two vectors in one prompt by the preview's path."""
    with call_queue.queue_lock:
        host = connect()
        digests = []
        for seed in (0, 1, 0):
            vectors = word_of(host, seed, 1)
            prompts, side = (("a photo of a ", WORD),), body["side"]
            request = SampleRequest(prompts, (1,), side, side, body["steps"], sampler="Euler")
            picture = host.sample(request, {"*": vectors})[0]
            digests.append(hashlib.sha256(picture.tobytes()).hexdigest())
    return {"digests": digests}


def noise_levels(marked: bool) -> dict[str, Any]:
    """Some noise levels of the adapter, those of a generation, and the adapter's settings.

    marked: the model's file says that its noise levels end in noise alone; A1111 1.8 does not look.
    """
    with call_queue.queue_lock:
        model = connect().model
        told = getattr(model, "model_config", model)  # Forge, reForge
        told.ztsnr = marked
        try:
            host, seen = connect(), []
            hook = host.network.register_forward_pre_hook(lambda *_: seen.append(sampled_with(host)))
            host.sample(SampleRequest((("a toy",),), (1,), 64, 64, 1, sampler="Euler"), {})
            hook.remove()
            ours = [float(host.sigmas[index]) for index in LEVELS]
            return {"ours": ours, "theirs": seen[0], "settings": host.settings}
        finally:
            told.ztsnr = False


def sampled_with(host: Any) -> list[float]:
    """Some noise levels of the WebUI, while it samples."""
    if hasattr(host, "unet"):
        inner = host.unet.model
        sigmas = (inner.predictor if hasattr(inner, "predictor") else inner.model_sampling).sigmas
    else:
        alphas = host.model.alphas_cumprod.double()
        sigmas = ((1 - alphas) / alphas).sqrt()
    return [float(sigmas[index]) for index in LEVELS]


def word_of(host: Any, seed: int, num_vectors: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(num_vectors, width, generator=generator) for name, width in host.widths.items()}


def of_a_generation(host: Any, text: str, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """The WebUI's own conditions for a prompt: crossattn [T, width], and vector [2816] for Stable Diffusion XL."""
    texts = prompt_parser.SdConditioning([text], width=size[1], height=size[0])
    condition = prompt_parser.get_learned_conditioning(host.model, texts, 1)[0][0].cond
    return condition if isinstance(condition, dict) else {"crossattn": condition}


def condition(file: str = Body(...), text: str = Body(...)) -> None:
    """Writes the WebUI's own conditions for a prompt at 64 pixels to a file."""
    with call_queue.queue_lock, torch.inference_mode():
        found = of_a_generation(connect(), text, (64, 64))
        save_file({name: tensor.float().cpu().contiguous() for name, tensor in found.items()}, file)


def encoded() -> dict[str, Any]:
    """How far the adapter's conditions are from those of the WebUI's own generation."""
    prompts = [("a (photo:1.3) of [a] ", WORD, ", in the (rain:0.7)"), ("a photo of ", WORD)]
    with call_queue.queue_lock, torch.inference_mode():
        host = connect()
        words = {"*": word_of(host, 0, 2)}
        side = (host.resolution, host.resolution)
        together, alone = host.encode(prompts[1:] * 2, words), host.encode(prompts, words)
        differences = [float((together[0].context - alone[1].context).abs().max())]
        with host._registered(words) as names:
            for prompt, condition in zip(prompts, alone, strict=True):
                theirs = of_a_generation(host, text_with_names(prompt, names), side)
                differences.append(float((condition.context[0] - theirs["crossattn"]).abs().max()))
                if "vector" in theirs:
                    differences.append(float((condition.vector[0] - theirs["vector"]).abs().max()))
        norm = float(alone[0].context.norm())
        return {"differences": differences, "norm": norm, "settings": host.settings}


def conditioning() -> list[dict[str, float]]:
    """How a slot with a text's own rows compares to that text, for each prompt and encoder.

    text, read: relative distance of the slot's states to the text's, and of those to what the U-Net reads. offset: of
    the first state that the vectors change to the first of the slot. gradient: the smallest, in absolute value.
    """
    around = [("a photo of a ", ", red"), ("very " * 78, " on a table")]  # the second slot is in the second chunk
    with call_queue.queue_lock:
        host = connect()
        rows = {encoder: host.vocabulary(encoder).rows("cat dog").to(host.device) for encoder in host.widths}
        return [comparison for before, behind in around for comparison in compared(host, rows, before, behind)]


def compared(host: Any, rows: dict[str, torch.Tensor], before: str, behind: str) -> Iterator[dict[str, float]]:
    vectors = {encoder: v.clone().requires_grad_() for encoder, v in rows.items()}
    prompts, text = [(before, WORD, behind)], (f"{before}cat dog{behind}",)
    with host.training():
        slots = host.conditioning(prompts, {"*": vectors})
        doubled = host.conditioning(prompts, {"*": {encoder: 2 * v for encoder, v in rows.items()}})
        texts = host.conditioning([text], {})
        read = host.encode([text], {})[0].context[0].split(list(host.widths.values()), dim=-1)
        sum(slot.states[slot.after :].pow(2).sum() for (slot,) in slots.values()).backward()
    for (encoder, (slot,)), wanted in zip(slots.items(), read, strict=True):
        changed = (slot.states != doubled[encoder][0].states).any(dim=-1).nonzero()
        yield {
            "text": far(slot.states, texts[encoder][0].states),
            "read": far(texts[encoder][0].states, wanted),
            "offset": int(changed[0]) - (slot.after - len(rows[encoder])),
            "gradient": float(vectors[encoder].grad.abs().min()),
        }


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def too_many_vectors() -> dict[str, Any]:
    """What is said of a second word that has more vectors than the text encoder takes at a time."""
    with call_queue.queue_lock:
        host = connect()
        words = {"one": word_of(host, 0, 2), "other": word_of(host, 0, 76)}
        try:
            host.encode([("a photo of ", Slot("one"), Slot("other"))], words)
        except UserError as error:
            return {"message": str(error)}
    return {"message": ""}


def break_step() -> None:
    """The U-Net will fail once, at the end of its pass in a training step."""

    def fail(_network: Any, _inputs: Any) -> None:
        if torch.is_grad_enabled():
            hook.remove()
            raise RuntimeError("broken by the test")

    with call_queue.queue_lock:
        hook = connect().network.out.register_forward_pre_hook(fail)


def break_clean_up() -> None:
    """What ends a job of the WebUI will fail once."""
    end = shared.state.end

    def fail() -> None:
        shared.state.end = end
        raise RuntimeError("broken by the test")

    shared.state.end = fail


def many_words() -> dict[str, Any]:
    """How far the conditions of the last of 30 embeddings are from those that it has alone."""
    with call_queue.queue_lock, torch.inference_mode():
        host = connect()
        words = {f"word-{number}": word_of(host, number, 1) for number in range(30)}
        last = f"word-{len(words) - 1}"
        prompts = [("a photo of ", Slot(last))]
        among, alone = host.encode(prompts, words), host.encode(prompts, {last: words[last]})
        return {"difference": float((among[0].context - alone[0].context).abs().max())}


def draw_deepbooru() -> None:
    """A DeepBooru of random weights, whose captions are of these tags (ratings are left out)."""
    host, drawn = deepbooru.model, deepbooru_model.DeepDanbooruModel().eval()
    drawn.tags = ["drawn_toy", *(f"rating:{number}" for number in range(9175))]
    host.model = drawn
    if hasattr(host, "patcher"):  # Forge, reForge
        to, back = host.load_device, host.offload_device
        host.patcher = deepbooru.ModelPatcher(drawn, load_device=to, offload_device=back)


def refresh_cards() -> None:
    """Reads the embeddings anew for their cards, as the extra networks' button does."""
    next(page for page in ui_extra_networks.extra_pages if page.name == "textual inversion").refresh()


def refused() -> dict[str, Any]:
    """What a user is told when the loaded model cannot be trained with, since it lacks a text encoder."""
    with call_queue.queue_lock:
        model = connect().model
        before = {name: getattr(model, name) for name in ENCODED_BY if hasattr(model, name)}
        for name in before:
            delattr(model, name)
        try:
            connect()
        except UserError as error:
            return {"message": str(error)}
        finally:
            for name, value in before.items():
                setattr(model, name, value)
    return {"message": ""}


def names(names: list[str] = Body(...), prompts: list[str] = Body(...)) -> list[list[str]]:
    """The names and prompts in which the WebUI does not find an embedding of that name."""
    with call_queue.queue_lock, torch.inference_mode():
        host = connect()
        engine, missed = next(iter(host.encoders.values())), []
        for name in names:
            embedding = host._embedding("x", word_of(host, 0, 1), name)
            with host.found(embedding):
                for prompt in prompts:
                    if not found_in(engine, strip_comments(prompt.replace("{}", name)), name):
                        missed.append([name, prompt])
        return missed


def found_in(engine: Any, text: str, name: str) -> bool:
    """By the WebUI's own parsers of AND, schedules and emphasis, and its tokenizer."""
    _, flat, _ = prompt_parser.get_multicond_prompt_list([text])
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(list(flat), 10)
    for part in (part for schedule in schedules for _, part in schedule):
        chunks, _ = engine.tokenize_line(part)
        if any(fix.embedding.name == name for chunk in chunks for fix in chunk.fixes):
            return True
    return False


def add_routes(_demo: Any, app: Any) -> None:
    app.add_api_route("/ti-train-test/gradient", gradient, methods=["POST"])
    app.add_api_route("/ti-train-test/names", names, methods=["POST"])
    app.add_api_route("/ti-train-test/break", break_step, methods=["POST"])
    app.add_api_route("/ti-train-test/break-clean-up", break_clean_up, methods=["POST"])
    app.add_api_route("/ti-train-test/draw-deepbooru", draw_deepbooru, methods=["POST"])
    app.add_api_route("/ti-train-test/refresh-cards", refresh_cards, methods=["POST"])
    app.add_api_route("/ti-train-test/many-words", many_words, methods=["GET"])
    app.add_api_route("/ti-train-test/condition", condition, methods=["POST"])
    app.add_api_route("/ti-train-test/encoded", encoded, methods=["GET"])
    app.add_api_route("/ti-train-test/conditioning", conditioning, methods=["GET"])
    app.add_api_route("/ti-train-test/too-many-vectors", too_many_vectors, methods=["POST"])
    app.add_api_route("/ti-train-test/refused", refused, methods=["POST"])
    app.add_api_route("/ti-train-test/state", state, methods=["GET"])
    app.add_api_route("/ti-train-test/sample", sample, methods=["POST"])
    app.add_api_route("/ti-train-test/noise-levels", noise_levels, methods=["GET"])


script_callbacks.on_app_started(add_routes)
