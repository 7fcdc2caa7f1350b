"""What a training step costs beyond the bare forward and backward pass.

python benchmarks/step.py                     SD1.5's true shape, random weights, 256 pixels, batch 1
python benchmarks/step.py --model demo/model  the embedded model at its own size and the default batch

A step of the loop (data, prompts, noise, loss, update, event) and the bare pass (text encoder and U-Net, forward and
backward, on inputs that lie ready) take turns in one process; reported are the medians and the median of their ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import in_turns, peak_memory, timed
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ti_train.data.dataset import Dataset, encode_pictures  # noqa: E402
from ti_train.data.picture import Picture  # noqa: E402
from ti_train.embedding import Embedding  # noqa: E402
from ti_train.events import Step  # noqa: E402
from ti_train.host import SampleRequest, Slot  # noqa: E402
from ti_train.hosts.diffusers.hardware import pick_device, pick_dtype  # noqa: E402
from ti_train.hosts.diffusers.host import DiffusersHost  # noqa: E402
from ti_train.hosts.diffusers.text import placed  # noqa: E402
from ti_train.prompts import PLACEHOLDER, Templates  # noqa: E402
from ti_train.training.checkpoint import RunFiles  # noqa: E402
from ti_train.training.config import TrainConfig  # noqa: E402
from ti_train.training.loop import train  # noqa: E402
from ti_train.training.state import State  # noqa: E402
from ti_train.training.validation import ValidationBatch  # noqa: E402


def sd15() -> Any:
    """A pipeline in Stable Diffusion 1.5's shapes with random weights and the demo's tokenizer, whose ids are fewer."""
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    return StableDiffusionPipeline(
        vae=AutoencoderTiny(),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(ROOT / "demo/model/tokenizer"),
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def bare_pass(host: DiffusersHost, dataset: Dataset, batch: int) -> Callable[[], None]:
    """The work that no trainer can leave out: encode, denoise, and the gradient of a vector."""
    (encoder,) = host.widths
    vector = host.vocabulary(encoder).rows("photo")[:1].clone().requires_grad_()
    text = host.family.encoders[encoder]
    ids = torch.tensor(
        [text.token_ids(("a photo of a ", Slot(PLACEHOLDER)), {PLACEHOLDER: {encoder: vector}})[0]] * batch
    )
    places = [(row, 5) for row in range(batch)]
    latents = torch.stack([dataset.pictures[0].mean] * batch).to(host.device, host.dtype)
    timesteps = torch.full((batch,), 500, device=host.device)
    ids = ids.to(host.device)

    def once() -> None:
        vector.grad = None
        with host._autocast():
            cond: Tensor = text.outputs(ids, placed(text.table(ids), places, [vector] * batch))[0]
        predicted = host.unet(latents, timesteps, cond.to(host.dtype), return_dict=False)[0]
        (predicted.float() - latents.float()).pow(2).mean().backward()

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder (default: SD1.5's shape, random weights)")
    parser.add_argument("--pixels", type=int, help="side of the pictures")
    parser.add_argument("--batch", type=int, help="pictures a step")
    parser.add_argument("--steps", type=int, default=20, help="pairs to measure")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    a = parser.parse_args()
    device = pick_device(a.device)
    if a.model:
        host = DiffusersHost.load(a.model, a.device, a.dtype)
    else:
        host = DiffusersHost(sd15(), device, pick_dtype(a.dtype, device))
    side, batch = a.pixels or (host.resolution if a.model else 256), a.batch or (4 if a.model else 1)
    draw = np.random.default_rng(0)
    noise = [Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(5)]
    pictures = [Picture.cropped(str(i), image, (side, side)) for i, image in enumerate(noise)]
    dataset = encode_pictures(host, pictures)
    config = TrainConfig(
        name="word", init="photo", batch_size=batch, steps=10**6, evaluate_every=10**6, checkpoint_every=10**6
    )
    bare = bare_pass(host, dataset, batch)

    with tempfile.TemporaryDirectory() as folder:
        events = train(host, dataset, config, Path(folder))
        assert isinstance(next(events), Step)  # step 0, the untrained word
        figures = in_turns(lambda: next(events), bare, host.device, a.steps)
        events.close()
        print(f"{torch.__version__} {host.device} {host.dtype}, {side} pixels, batch {batch}, {a.steps} pairs")
        print(figures)

        (encoder,) = host.widths
        vectors = {encoder: host.vocabulary(encoder).rows("photo")[:1]}
        words = {PLACEHOLDER: vectors}
        fixed = ValidationBatch.draw(host, dataset, Templates.load("object"), config)
        start = {encoder: v.clone() for encoder, v in vectors.items()}
        files, state = RunFiles(Path(folder), "word", {}), State(0, 0.0, vectors, start, {})
        embedding = Embedding("word", vectors)
        request = SampleRequest((("a photo of a ", Slot(PLACEHOLDER)),), (0,), side, side, steps=10)
        apart: dict[str, Callable[[], object]] = {
            "evaluation": lambda: fixed.loss(host, words),
            "checkpoint": lambda: files.save(state, embedding),
            "preview of 10 sampling steps": lambda: host.sample(request, words),
        }
        for name, work in apart.items():
            print(f"{name} {statistics.median(timed(work, host.device) for _ in range(3)):.4f} s")
    print(peak_memory(host.device))


if __name__ == "__main__":
    main()
