"""What is looked at inside of ComfyUI's process, without its server. ComfyUI's Python runs it in ComfyUI's folder.

usage: inside.py CHECK CHECKPOINT LORA FOLDER     prints one line of JSON: what the check found
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"name": "word", "init": "toy", "steps": 4, "batch_size": 2, "evaluate_every": 2, "checkpoint_every": 1}


def enter_comfyui(*flags: str) -> None:
    """ComfyUI's modules become importable, as its main.py leaves them with these flags."""
    sys.path.insert(0, ".")
    sys.argv[1:] = flags
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.extra_config  # noqa: F401  before nodes.py puts comfy/, which has a utils.py too, on the path

    logging.getLogger().setLevel(logging.WARNING)
    torch.set_num_threads(1)


def pack() -> Any:
    """The pack, loaded as ComfyUI loads it: under a name of its own, with relative imports only."""
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = module
    spec.loader.exec_module(module)
    return module


def load(checkpoint: str) -> tuple[Any, Any, Any]:
    import comfy.sd

    with torch.inference_mode():
        return comfy.sd.load_checkpoint_guess_config(checkpoint, embedding_directory=[])[:3]


def with_lora(model: Any, clip: Any, lora: str) -> tuple[Any, Any]:
    import comfy.sd
    import comfy.utils

    with torch.inference_mode():
        return comfy.sd.load_lora_for_models(model, clip, comfy.utils.load_torch_file(lora), 1.0, 1.0)


def make_host(model: Any, clip: Any, vae: Any, guidance: float = 0.0) -> Any:
    from pack.ti_train.hosts.comfy.host import ComfyHost

    return ComfyHost(model, clip, vae, guidance)


def batch(host: Any, shape: tuple[int, ...] = (4, 8, 8)) -> dict[str, Any]:
    """Two pictures' worth of fixed latents, noise, prompts and sizes, and a word's vectors."""
    from pack.ti_train.host import Size, Slot

    generator = torch.Generator().manual_seed(3)
    return {
        "x0": torch.randn(2, *shape, generator=generator),
        "noise": torch.randn(2, *shape, generator=generator),
        "sigma": host.sigmas[[150, 700]],
        "prompts": [("a photo of a ", Slot("*")), ("a rendering of the ", Slot("*"), ", in the rain")],
        "sizes": [Size((96, 64), (16, 0), (64, 64)), Size((64, 64), (0, 0), (64, 64))],
        "vectors": {e: torch.randn(2, width, generator=generator) * 0.02 for e, width in host.widths.items()},
    }


def loss_of(host: Any, data: dict[str, Any], vectors: dict[str, torch.Tensor]) -> torch.Tensor:
    from pack.ti_train.training.objective import add_noise, denoising_loss, target

    noisy = add_noise(data["x0"], data["noise"], data["sigma"], host.prediction)
    wanted = target(data["x0"], data["noise"], data["sigma"], host.prediction)
    cond = host.encode(data["prompts"], {"*": vectors}, data["sizes"])
    return denoising_loss(host.predict(noisy, data["sigma"], cond), wanted).mean()


def gradient_of(host: Any, data: dict[str, Any], **training: Any) -> dict[str, torch.Tensor]:
    vectors = {encoder: v.clone().requires_grad_() for encoder, v in data["vectors"].items()}
    with host.training(**training):
        loss_of(host, data, vectors).backward()
    return {encoder: v.grad for encoder, v in vectors.items()}


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Relative, of the encoder where it is largest."""
    return max(float((one[encoder] - v).norm() / v.norm()) for encoder, v in other.items())


def state_of(model: Any, clip: Any) -> dict[str, tuple]:
    return weights_of(model.model, clip.cond_stage_model)


def weights_of(*modules: torch.nn.Module) -> dict[str, tuple]:
    """Of every weight: the very object, its values, and whether it is trainable or an inference tensor."""
    tensors = {}
    for number, module in enumerate(modules):
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            state = (id(tensor), tensor.detach().clone(), tensor.requires_grad, tensor.is_inference())
            tensors[f"{number} {name}"] = state
    return tensors


def same(before: dict[str, tuple], after: dict[str, tuple]) -> bool:
    """Bit by bit: a weight that was never drawn may be no number, which is not equal to itself."""
    return before.keys() == after.keys() and all(
        b[0] == after[n][0] and torch.equal(bits(b[1]), bits(after[n][1])) and b[2:] == after[n][2:]
        for n, b in before.items()
    )


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def gradient(checkpoint: str, lora: str, folder: Path) -> dict[str, Any]:
    """The gradient by itself, by finite differences and with checkpointing; and all of it for diffusers to repeat."""
    model, clip, vae = load(checkpoint)
    if vae is None or vae.first_stage_model is None:  # the world's file has none
        vae = load(str(Path(lora).with_name("sd1.safetensors")))[2]
    host, patched = make_host(model, clip, vae), make_host(with_patch(model), clip, vae)
    data = batch(host)
    found, of_patched = gradient_of(host, data), gradient_of(patched, data)
    checkpointed = gradient_of(host, data, gradient_checkpointing=True)
    sys.modules["pack.ti_train.hosts.dropped_results"].LEAST = 0  # of tiny results too
    dropped = gradient_of(host, data, memory=1)
    host._too_much = 1  # a byte that a step could not have
    less = gradient_of(host, data, memory=1)
    torch.save({"gradient": found} | {k: data[k] for k in ("x0", "noise", "vectors")}, folder / "gradient.pt")
    return {
        "prediction": host.prediction,
        "encoders": host.widths,
        "finite_differences": {encoder: slope(host, data, encoder, g) for encoder, g in found.items()},
        "checkpointed": difference(checkpointed, found),
        "dropped": difference(dropped, found),
        "feed_forwards": difference(less, found),
        "has_feed_forwards": any(type(part).__name__ == "FeedForward" for part in model.model.modules()),
        "patched": {encoder: slope(patched, data, encoder, g) for encoder, g in of_patched.items()},
        "norms": {encoder: float(g.norm()) for encoder, g in found.items()},
        "latents": latents_are_the_nodes(host),
    }


def with_patch(model: Any) -> Any:
    """With a patch as nodes like FreeU add them: it changes what the attention before it needs for backward."""
    patched = model.clone()
    patched.set_model_attn2_output_patch(lambda hidden, _options: hidden.sigmoid().mul_(2).tanh().mul_(hidden))
    return patched


def latents_are_the_nodes(host: Any) -> bool:
    """Whether an image becomes what VAE Encode makes of it, to the bit."""
    from nodes import VAEEncode

    pixels = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (latent,) = VAEEncode().encode(host.vae, pixels.float() / 255)
        expected = host.model.model.process_latent_in(latent["samples"])
    return torch.equal(host.latents(pixels).mean, expected)


def slope(host: Any, data: dict[str, Any], encoder: str, gradient: torch.Tensor, step: float = 0.02) -> float:
    """How far the loss's slope along one encoder's gradient, by finite differences, is from the gradient's length."""
    direction = gradient / gradient.norm()
    with torch.no_grad():
        up, down = (
            loss_of(host, data, data["vectors"] | {encoder: data["vectors"][encoder] + s * direction}).double()
            for s in (step, -step)
        )
    return abs(float((up - down) / (2 * step) / gradient.norm()) - 1)


@contextlib.contextmanager
def at_forward(module: torch.nn.Module, number: int, action: Any) -> Iterator[None]:
    """Calls `action` in one of the module's forwards with gradients, counted from 1."""
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += torch.is_grad_enabled()
        if torch.is_grad_enabled() and count == number:
            action()

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def restored(checkpoint: str, lora: str, _folder: Path) -> dict[str, Any]:
    """Whether every weight is the object that it was: after a step, an exception, a LoRA unloaded in a step."""
    import comfy.model_management as management
    from pack.ti_train.hosts import weights

    model, clip, vae = load(checkpoint)
    host = make_host(model, clip, vae)
    data, before, results = batch(host), state_of(model, clip), {}
    aliases, make_alias = [], weights.alias
    weights.alias = lambda tensor: aliases.append(make_alias(tensor)) or aliases[-1]
    gradient_of(host, data)
    results["step"] = same(before, state_of(model, clip))

    def fail() -> None:
        raise management.InterruptProcessingException

    with at_forward(model.model.diffusion_model, 1, fail), contextlib.suppress(management.InterruptProcessingException):
        gradient_of(host, data)
    results["interrupt"] = same(before, state_of(model, clip))

    management.unload_all_models()
    original = state_of(model, clip)
    patched_model, patched_clip = with_lora(model, clip, lora)
    patched = make_host(patched_model, patched_clip, vae)
    assert patched.fingerprint != host.fingerprint  # asking for it loads the model
    results["patched differs"] = not same(original, state_of(model, clip))
    plain = gradient_of(host, data)
    results["gradient differs"] = difference(gradient_of(patched, data), plain) > 1e-3
    with at_forward(model.model.diffusion_model, 1, management.unload_all_models), contextlib.suppress(RuntimeError):
        gradient_of(patched, data)
    management.unload_all_models()
    results["unloaded"] = values_equal(original, state_of(model, clip))
    ours = {id(alias) for alias in aliases}
    results["aliases"] = sorted(name for name, t in state_of(model, clip).items() if t[0] in ours)
    results["again"] = difference(gradient_of(host, data), plain)
    return results


def values_equal(before: dict[str, tuple], after: dict[str, tuple]) -> bool:
    return all(torch.equal(b[1], after[n][1]) for n, b in before.items())


def out_of_memory(checkpoint: str, _lora: str, folder: Path) -> dict[str, Any]:
    """A card that is full in step 2, and one that stays so."""
    from pack.nodes.files import Place
    from pack.nodes.run import run_training
    from pack.ti_train.data.dataset import encode_pictures
    from pack.ti_train.data.picture import Picture
    from pack.ti_train.errors import UserError
    from pack.ti_train.training.config import TrainConfig

    host = make_host(*load(checkpoint))
    noise = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = [Picture.cropped(str(i), Image.fromarray(p.numpy()), (64, 64)) for i, p in enumerate(noise)]
    dataset = encode_pictures(host, pictures)
    config = TrainConfig(**SETTINGS)

    def full() -> None:
        raise torch.cuda.OutOfMemoryError("full")

    network, node = host.model.model.diffusion_model, SimpleNamespace(unique_id="1")
    with at_forward(network, 2, full):
        embedding, session, _ = run_training(host, dataset, config, Place(folder / "once", config.name), node, {}, [])
    calm, _, _ = run_training(host, dataset, config, Place(folder / "calm", config.name), node, {}, [])
    handle = network.register_forward_hook(lambda *_: full() if torch.is_grad_enabled() else None)
    try:
        run_training(host, dataset, config, Place(folder / "always", config.name), node, {}, [])
        message = ""
    except UserError as error:
        message = str(error)
    handle.remove()
    return {
        "steps": [step.step for step in session.steps],
        "difference": difference(embedding.vectors, calm.vectors),
        "message": message,
        "kept": sorted(file.name for file in (folder / "always").iterdir()),
    }


def growth(checkpoint: str, _lora: str, folder: Path) -> int:
    """Bytes by which the process grows from the second to the tenth step on the CPU."""
    from pack.nodes.files import Place
    from pack.nodes.run import run_training
    from pack.ti_train.data.dataset import encode_pictures
    from pack.ti_train.data.picture import Picture
    from pack.ti_train.training.config import TrainConfig

    host, resident = make_host(*load(checkpoint)), []
    dataset = encode_pictures(host, [Picture.cropped("black", Image.new("RGB", (64, 64)), (64, 64))])
    config = TrainConfig(**SETTINGS | {"steps": 10, "batch_size": 4})
    host.model.model.diffusion_model.register_forward_hook(
        lambda *_: resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    )
    run_training(host, dataset, config, Place(folder, config.name), SimpleNamespace(unique_id="1"), {}, [])
    return resident[-1] - resident[len(resident) // 5]


def identity(checkpoint: str, _lora: str, _folder: Path) -> dict[str, Any]:
    """Whether the model is another one when the weights of these names have other numbers; the settings by nodes."""
    model, clip, vae = load(checkpoint)
    weights, found = clip.patcher.model.state_dict(), {}
    for name in ("clip_l.transformer.text_projection.weight", "clip_l.transformer.text_model.final_layer_norm.weight"):
        before = make_host(model, clip, vae).fingerprint
        with torch.inference_mode():
            weights[name].fill_(0.5)
        found[name.rpartition("text_")[2]] = make_host(model, clip, vae).fingerprint != before
    skipped, padded = clip.clone(), clip.clone()
    skipped.clip_layer(-2)
    padded.set_tokenizer_option("min_length", 12)
    hosts = [make_host(model, one, vae) for one in (clip, skipped, padded)] + [make_host(model, clip, vae, 3.5)]
    return found | {"settings": [host.settings for host in hosts]}


def long_run(_checkpoint: str, _lora: str, folder: Path) -> dict[str, Any]:
    """What the page's side of a run holds in bytes, and its snapshot, by the number of steps that it has seen."""
    from pack.nodes.page import live
    from pack.nodes.page.records import Record
    from pack.ti_train.embedding import Embedding
    from pack.ti_train.events import Preview, Step
    from pack.ti_train.training.config import TrainConfig
    from pack.ti_train.training.session import Session

    live.PAUSE = 0  # else events would wait: real steps are slower than this loop
    run = live.LiveRun(TrainConfig(**SETTINGS | {"steps": 20_000}), "1", True, Record(folder / "run"), {})
    run.look_up_at = float("inf")  # the nearest words need a model
    session, picture = Session(TrainConfig(**SETTINGS), Path()), Image.new("RGB", (64, 700))
    word = Embedding("word", {"clip_l": torch.zeros(1, 768)})
    tracemalloc.start()
    held = {}
    for step in range(10_001):
        measured = step % 12 == 0
        if measured:
            session.kept = (step, 0.4 - step / 1e6)
        session.steps = [
            *session.steps[-1:],
            Step(step, 0.5, 0.4 - step / 1e6 if measured else None, 0.01, 1.0, 1.0, 0.0),
        ]
        run.added = min(step, 1)
        run.step(session.steps[-1], session, None)
        if step % 50 == 0:
            run.preview(Preview(step, "a photo of *", picture, word, 0))
            run.warn(f"step {step}")
        if step % 2_000 == 0:
            held[step] = [tracemalloc.get_traced_memory()[0], len(json.dumps(run.snapshot()))]
    return held


def previews_output(_checkpoint: str, _lora: str, _folder: Path) -> dict[str, int]:
    """Bytes of the output with the previews of a long run, by the side of the images and the number of prompts."""
    from pack.nodes.run import most_previews
    from pack.nodes.tensors import to_batch
    from pack.ti_train.training.config import TrainConfig

    def size(side: int, prompts: int) -> int:
        image = Image.new("RGB", (side, side))
        config = TrainConfig(**SETTINGS | {"preview_prompts": tuple(f"prompt {n} *" for n in range(prompts))})
        return (most_previews(image, config) + 1) * prompts * to_batch([image]).nbytes

    return {f"{side}, {prompts}": size(side, prompts) for side in (64, 512, 1024, 2048) for prompts in (1, 3)}


def names(_checkpoint: str, _lora: str, folder: Path) -> list[list[str]]:
    """The names and prompts in which ComfyUI's tokenizer does not find an embedding of prompt_names.py in its file."""
    from comfy.sd1_clip import SDTokenizer
    from safetensors.torch import save_file

    sys.path.insert(0, str(ROOT / "tests"))
    from prompt_names import COMFYUI_PROMPTS, NAMES, REFUSED

    tokenizer, missed = SDTokenizer(embedding_directory=str(folder)), []
    for name in (*NAMES, *REFUSED, "pets/cat"):
        file = folder / f"{name}.safetensors"
        file.parent.mkdir(exist_ok=True)
        save_file({"emb_params": torch.ones(1, 768)}, file)
        for prompt in COMFYUI_PROMPTS:
            with contextlib.suppress(IndexError):  # of a name that begins with a bracket
                batches = tokenizer.tokenize_with_weights(prompt.replace("{}", f"embedding:{name}"))
                if sum(torch.is_tensor(token) for batch in batches for token, _ in batch) == 1:
                    continue
            missed.append([name, prompt])
        file.unlink()
    return missed


CHECKS = {
    "previews_output": previews_output,
    "names": names,
    "gradient": gradient,
    "restored": restored,
    "out_of_memory": out_of_memory,
    "growth": growth,
    "identity": identity,
    "long_run": long_run,
}


def main(check: str, checkpoint: str, lora: str, folder: str) -> None:
    enter_comfyui("--cpu")
    pack()
    folder_paths = importlib.import_module("folder_paths")
    folder_paths.set_user_directory(folder)  # the pages' records of runs
    # a node runs in inference mode, and Train Embedding leaves it
    with torch.inference_mode(), torch.inference_mode(False):
        print("\n" + json.dumps(CHECKS[check](checkpoint, lora, Path(folder))))


if __name__ == "__main__":
    main(*sys.argv[1:])
