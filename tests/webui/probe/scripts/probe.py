"""Looks into the WebUI's process for the tests: routes below /ti-train-test."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import torch
from fastapi import Body
from modules import call_queue, prompt_parser, script_callbacks, shared
from safetensors.torch import load_file, save_file

PACK = sys.modules["ti_train_extension_pack"]
from ti_train_extension_pack.ti_train.errors import UserError
from ti_train_extension_pack.ti_train.hosts.base import SampleRequest, Slot
from ti_train_extension_pack.ti_train.hosts.webui import text_with_names
from ti_train_extension_pack.ti_train.objective import add_noise, denoising_loss, target
from ti_train_extension_pack.webui_tab.hosts import connect

WORD = Slot("*")
PROMPTS = [("a photo of a ", WORD), ("a rendering of the ", WORD, ", in the rain")]


def loss_of(host: Any, data: dict[str, torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
    sigma = host.sigmas[data["timesteps"]]
    noisy = add_noise(data["x0"], data["noise"], sigma, host.prediction)
    predicted = host.predict(noisy, sigma, host.encode(PROMPTS, {"*": {"clip_l": vectors}}))
    return denoising_loss(predicted, target(data["x0"], data["noise"], sigma, host.prediction)).mean()


def gradient(file: str = Body(..., embed=True)) -> dict[str, Any]:
    """Reads x0, noise, timesteps, vectors, pictures from a file; writes the gradient and the latents beside them."""
    data = load_file(file)
    with call_queue.queue_lock:
        host = connect()
        results: dict[str, Any] = {}
        for checkpointing in (False, True):
            vectors = data["vectors"].clone().requires_grad_()
            began = time.perf_counter()
            with host.training(checkpointing):
                loss = loss_of(host, data, vectors)
                loss.backward()
            results[f"seconds_{checkpointing}"] = time.perf_counter() - began
            data[f"gradient_{checkpointing}"] = vectors.grad
        direction = data["gradient_False"] / data["gradient_False"].norm()
        with torch.no_grad():
            step = 0.02 * direction
            ends = [float(loss_of(host, data, data["vectors"] + sign * step)) for sign in (1, -1)]
        slope, norm = (ends[0] - ends[1]) / 0.04, float(data["gradient_False"].norm())
        results |= {"loss": float(loss), "norm": norm, "finite_differences": abs(slope - norm) / norm}
        latents = host.latents(data["pictures"])
        data["mean"] = latents.mean.contiguous()
        if latents.log_variance is not None:
            data["log_variance"] = latents.log_variance.contiguous()
        vocabulary = host.vocabulary("clip_l")
        results |= {"ids": vocabulary.tokenize("an oil painting"), "spelt": vocabulary.spell(2368)}
    save_file(data, Path(file).with_suffix(".out.safetensors"))
    return results


def state() -> dict[str, Any]:
    """All that a training could leave changed."""
    with call_queue.queue_lock:
        host = connect()
        modules = (host.network, host.transformer, host.autoencoder)
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
            "words": sorted(host.database.word_embeddings),
            "lookup": sorted(e.name for found in host.database.ids_lookup.values() for _, e in found),
            "job": [shared.state.job, shared.state.job_count, shared.state.interrupted],
            "grad_mode": torch.is_grad_enabled(),
        }


def sample(body: dict[str, Any] = Body(...)) -> dict[str, Any]:
    """Pictures of two vectors in one prompt by the preview's path."""
    with call_queue.queue_lock:
        host = connect()
        digests = []
        for seed in (0, 1, 0):
            vectors = torch.randn(1, 768, generator=torch.Generator().manual_seed(seed)) * 0.1
            request = SampleRequest((("a photo of a ", WORD),), (1,), body["side"], body["side"], body["steps"])
            picture = host.sample(request, {"*": {"clip_l": vectors}})[0]
            digests.append(hashlib.sha256(picture.tobytes()).hexdigest())
    return {"digests": digests}


def encoded() -> dict[str, Any]:
    """How far the adapter's conditions are from those of the WebUI's own generation."""
    prompts = [("a (photo:1.3) of [a] ", WORD, ", in the (rain:0.7)"), ("a photo of ", WORD)]
    words = {"*": {"clip_l": 0.1 * torch.randn(2, 768, generator=torch.Generator().manual_seed(0))}}
    with call_queue.queue_lock, torch.inference_mode():
        host = connect()
        together, alone = host.encode(prompts[1:] * 2, words), host.encode(prompts, words)
        differences = [float((together[0] - alone[1]).abs().max())]
        with host._registered(words) as names:
            for prompt, condition in zip(prompts, alone, strict=True):
                texts = prompt_parser.SdConditioning([text_with_names(prompt, names)], width=512, height=512)
                theirs = prompt_parser.get_learned_conditioning(host.model, texts, 1)[0][0].cond
                differences.append(float((condition[0] - theirs).abs().max()))
        return {"differences": differences, "norm": float(alone[0].norm())}


def break_step() -> None:
    """The U-Net will fail once, at the end of its pass in a training step."""

    def fail(_network: Any, _inputs: Any) -> None:
        if torch.is_grad_enabled():
            hook.remove()
            raise RuntimeError("broken by the test")

    with call_queue.queue_lock:
        hook = connect().network.out.register_forward_pre_hook(fail)


def refused(attribute: str = Body(..., embed=True)) -> dict[str, Any]:
    """What a user is told when the loaded model has a property that cannot be trained with."""
    with call_queue.queue_lock:
        model = connect().model
        before = getattr(model, attribute, False)
        setattr(model, attribute, True)
        try:
            connect()
        except UserError as error:
            return {"message": str(error)}
        finally:
            setattr(model, attribute, before)
    return {"message": ""}


def add_routes(_demo: Any, app: Any) -> None:
    app.add_api_route("/ti-train-test/gradient", gradient, methods=["POST"])
    app.add_api_route("/ti-train-test/break", break_step, methods=["POST"])
    app.add_api_route("/ti-train-test/encoded", encoded, methods=["GET"])
    app.add_api_route("/ti-train-test/refused", refused, methods=["POST"])
    app.add_api_route("/ti-train-test/state", state, methods=["GET"])
    app.add_api_route("/ti-train-test/sample", sample, methods=["POST"])


script_callbacks.on_app_started(add_routes)
