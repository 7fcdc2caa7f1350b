"""What a run holds of a GPU's memory, measured without a GPU and without arithmetic.

python benchmarks/memory.py sd15 --gib 6                       the command line's host
python benchmarks/memory.py sdxl --gib 12 --comfyui PATH       inside ComfyUI, whose Python runs it
python benchmarks/memory.py flux --weights float8_e4m3fn --gib 12 --comfyui PATH

The model has its true shape in half precision and no values; the device is the tests' pretended card of so many GiB,
whose kernels allocate and do not compute, attention what a fused kernel keeps. Reported is the most that was allocated
at once. A real card adds its context (0.3 to 0.6 GiB), cuDNN's workspaces, and what the allocator rounds up and loses
between its blocks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "comfyui")]

import torch  # noqa: E402
from devices.pretend_cuda import Card, install  # noqa: E402

GIB = 2**30
PICTURES = 4
FLOAT16 = {"device": "cuda", "dtype": "float16"}
TRUE_SIZES: dict[str, dict[str, Any]] = {  # as ComfyUI reads them off the released files
    "flux": {
        "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "depth": 19,
        "depth_single_blocks": 38, "axes_dim": [16, 56, 56],
    },
    "z-image": {
        "dim": 3840, "cap_feat_dim": 2560, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30,
        "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "ffn_dim_multiplier": 8 / 3, "multiple_of": 256,
    },
    "sd3": {
        "depth": 24, "pos_embed_max_size": 192, "num_patches": 192 * 192, "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 64 * 24},
        },
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=("sd15", "sdxl", *TRUE_SIZES), help="the last three in ComfyUI only")
    parser.add_argument("--weights", default="bfloat16", help="their dtype, of these three (default: bfloat16)")
    parser.add_argument("--gib", type=float, default=80, help="the card's memory (default: 80, so that all fits)")
    parser.add_argument("--pixels", type=int, help="side of the pictures (default: the model's own)")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 4], help="pictures at once (default: 1 4)")
    parser.add_argument("--plain", action="store_true", help="without gradient checkpointing")
    parser.add_argument("--comfyui", type=Path, help="ComfyUI's folder")
    a = parser.parse_args()
    install(gib=a.gib)
    torch.set_num_threads(1)
    if a.comfyui:
        with torch.inference_mode(), torch.inference_mode(False):  # as in a node
            host, core = comfyui_host(a.family, a.comfyui.resolve(), getattr(torch, a.weights)), "pack.ti_train"
            measure(host, core, a)
    else:
        measure(diffusers_host(a.family), "ti_train", a)


def diffusers_host(family: str) -> Any:
    from true_shapes import pipeline

    from ti_train.hosts.diffusers.host import DiffusersHost

    loaded = pipeline(family)
    Card.computes = False
    return DiffusersHost(loaded, torch.device("cuda", 0), torch.float16)


def comfyui_host(family: str, folder: Path, dtype: torch.dtype) -> Any:
    from inside import enter_comfyui, make_host, pack
    from true_shapes import checkpoint

    weights = None if family in TRUE_SIZES else checkpoint(family)
    os.chdir(folder)
    enter_comfyui()
    pack()
    import comfy.sd
    import comfy_kitchen

    comfy_kitchen.registry.disable("cuda")  # kernels that need a driver
    Card.computes = False
    with torch.inference_mode():
        if weights is not None:
            return make_host(*comfy.sd.load_state_dict_guess_config(weights, embedding_directory=[])[:3])
        from tiny_families import FAMILIES, models, vae_weights

        sizes = replace(FAMILIES[family](), encoders={})
        sizes = replace(sizes, unet=sizes.unet | TRUE_SIZES[family])
        model, clip = models(sizes, [], dtype, None if dtype == torch.bfloat16 else torch.bfloat16, load="cuda:0")
        vae = comfy.sd.VAE(
            sd=vae_weights(16), metadata={"tae_latent_channels": 16}
        )  # its own memory is not the model's
    return make_host(model, clip, vae)


def measure(host: Any, core: str, a: argparse.Namespace) -> None:
    """Prints a line for each phase of a run. core: the name under which the host's process has loaded ti_train."""
    names = ("data.dataset", "data.picture", "prompts", "host", "training.step_memory", "training.config")
    dataset, picture, prompts, types, step_memory, config = (import_module(f"{core}.{name}") for name in names)
    side = a.pixels or host.resolution
    words = {prompts.PLACEHOLDER: {name: torch.zeros(1, width, device="cuda") for name, width in host.widths.items()}}
    request = types.SampleRequest((("a photo of ", types.Slot(prompts.PLACEHOLDER)),), (0,), side, side, steps=2)
    noise = np.random.default_rng(0).integers(0, 256, (PICTURES, side, side, 3), np.uint8)
    pictures = [picture.Picture.cropped(str(i), Image.fromarray(n), (side, side)) for i, n in enumerate(noise)]

    print(f"{a.family}, {side} pixels, a card of {a.gib:g} GiB, torch {torch.__version__}; GiB")
    phase("loading", lambda: host.encode([("a photo",)], {}))
    phase("preview", lambda: host.sample(request, words))
    encoded = dataset.encode_pictures(host, pictures, flip=True)
    phase(f"encoding {2 * PICTURES} pictures", lambda: None)
    for batch in a.batch:
        settings = config.TrainConfig(
            name="word", init="photo", batch_size=batch, steps=1, gradient_checkpointing=not a.plain, **FLOAT16
        )
        expected = step_memory.step_memory(host, encoded, settings)
        what = f"a step of {batch}" + ("" if a.plain else ", checkpointing")
        phase(what, lambda settings=settings: step(core, host, encoded, settings), expected)


def step(core: str, host: Any, dataset: Any, config: Any) -> None:
    """The loop's first step, without the validation, which needs less."""
    names = ("prompts", "training.loop", "training.passes", "training.steps")
    prompts, loop, passes, steps = (import_module(f"{core}.{name}") for name in names)
    templates = prompts.Templates.load(config.templates)
    dataset, _ = loop.with_placeholder(dataset, templates, config.bare_name)
    done, _ = loop.initial_state(host, dataset, templates, config, lambda: False)
    config = replace(config, num_vectors=done.num_vectors)
    trained = steps.TrainedVectors(done, config, host, dataset.pictures[0].mean.numel())
    next(steps.updates(host, dataset, templates, config, trained, 0, passes.ALONE))


def phase(name: str, work: Callable[[], object], expected: int | None = None) -> None:
    try:
        work()
    except torch.OutOfMemoryError as error:
        print(f"{name:32} does not fit: {error}", flush=True)
        return
    peak, held = Card.peak / GIB, torch.cuda.memory_allocated() / GIB
    estimate = "" if expected is None else f"   beside what is held {peak - held:5.2f}, estimated {expected / GIB:5.2f}"
    print(f"{name:32} peak {peak:6.2f}   held {held:6.2f}{estimate}", flush=True)
    torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
