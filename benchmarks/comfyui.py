"""What a training step costs inside ComfyUI beyond the bare forward and backward pass of the same loaded model.

ComfyUI's Python runs it in ComfyUI's folder:

python .../benchmarks/comfyui.py CHECKPOINT [--pixels 256] [--batch 1] [--steps 10]

`tests/comfyui/draw_checkpoint.py sd1-whole FOLDER` draws a checkpoint of Stable Diffusion 1.5's true shape. A step of
the loop and the bare pass (text encoder and U-Net, forward and backward, on inputs that lie ready) take turns, as in
step.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "comfyui"))

from inside import enter_comfyui, load, make_host, pack
from timing import in_turns, peak_memory


def bare_pass(host: Any, latents: torch.Tensor) -> Callable[[], None]:
    """The work that no trainer can leave out: encode, denoise, and the gradient of a vector."""
    from pack.ti_train.hosts.residuals import copied_for, norms_in
    from pack.ti_train.hosts.weights import frozen

    text, network = host.clip.cond_stage_model, host.model.model.diffusion_model
    row = host.vocabulary("clip_l").rows("photo")[0].clone().requires_grad_()
    ((key, (chunk,)),) = host.clip.tokenize("a photo of a photo").items()
    tokens = {key: [[*chunk[:5], (row, 1.0), *chunk[6:]]] * len(latents)}
    timesteps = torch.full((len(latents),), 500.0, device=host.device)

    def once() -> None:
        with ExitStack() as stack:
            stack.enter_context(frozen(network, text))
            stack.enter_context(copied_for(norms_in(text)))
            cond = text.encode_token_weights(tokens)[0]
            cond = cond.reshape(len(latents), -1, cond.shape[-1]).to(host.device)
            (network(latents, timesteps, context=cond).float() - latents).pow(2).mean().backward()

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--pixels", type=int, default=256, help="side of the pictures")
    parser.add_argument("--batch", type=int, default=1, help="pictures a step")
    parser.add_argument("--steps", type=int, default=10, help="pairs to measure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()
    enter_comfyui("--cpu")
    torch.set_num_threads(a.threads)
    import comfyui_version

    pack()
    from pack.ti_train.data.dataset import encode_pictures
    from pack.ti_train.data.picture import Picture
    from pack.ti_train.training.config import TrainConfig
    from pack.ti_train.training.loop import train

    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        host = make_host(*load(a.checkpoint))
        draw, shape = np.random.default_rng(0), (a.pixels, a.pixels)
        noise = [Image.fromarray(draw.integers(0, 256, (*shape, 3), np.uint8)) for _ in range(5)]
        dataset = encode_pictures(host, [Picture.cropped(str(i), image, shape) for i, image in enumerate(noise)])
        never = {"steps": 10**6, "evaluate_every": 10**6, "checkpoint_every": 10**6}
        config = TrainConfig(name="word", init="photo", batch_size=a.batch, **never)
        latents = torch.randn(a.batch, 4, a.pixels // 8, a.pixels // 8, device=host.device)
        bare = bare_pass(host, latents)
        with tempfile.TemporaryDirectory() as folder:
            events = train(host, dataset, config, Path(folder))
            next(events)  # step 0, the untrained word
            figures = in_turns(lambda: next(events), bare, host.device, a.steps)
            events.close()
    dtype = next(host.model.model.diffusion_model.parameters()).dtype
    where = f"ComfyUI {comfyui_version.__version__}, torch {torch.__version__}, {host.device}, {a.threads} thread(s)"
    print(f"{where}, {dtype}, {a.pixels} pixels, batch {a.batch}, {a.steps} pairs")
    print(figures)
    print(peak_memory(host.device))


if __name__ == "__main__":
    main()
