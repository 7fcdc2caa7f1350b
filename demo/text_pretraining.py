"""Teaches the text encoder what captions say before the denoiser has to read it.

At first a denoiser's attention is spread over all 77 tokens, most of them padding, and a word is lost
among them. Here the mean of the tokens learns to tell the scene, as CLIP's captions tell their images.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .grammar import caption
from .learner import BF16, HIDDEN, Learner, blur_words
from .world import ARTISTS, BACKGROUNDS, MANNERS, SHAPES, TEXTURES, Artist, Figure, Scene

BATCH, LENGTH = 64, 40  # captions are far shorter than the context: a part of the padding will do
RATE, TABLE_RATE = 1e-3, 3e-4


def _one_hot(value: str, values: tuple[str, ...]) -> list[float]:
    return [float(value == v) for v in values]


def _figure(figure: Figure | None) -> list[float]:
    if figure is None:
        return [0.0] * (len(SHAPES) + len(TEXTURES) + 3)
    turn = 2 * math.pi * figure.hue
    look = _one_hot(figure.shape, SHAPES) + _one_hot(figure.texture, TEXTURES)
    return [1.0, math.cos(turn), math.sin(turn), *look]


def description(scene: Scene) -> list[float]:
    """What there is to say of a scene, as numbers of about unit size."""
    first, second = scene.figures[0], scene.figures[1] if len(scene.figures) > 1 else None
    style = ARTISTS.get(scene.style) if isinstance(scene.style, str) else scene.style
    if isinstance(style, Artist):
        tones = [c / 128 - 1 for c in (*style.paper, *style.ink)] + _one_hot(style.manner, MANNERS)
        where = [0.0] * (len(BACKGROUNDS) + 3)
    else:
        tones = [0.0] * (6 + len(MANNERS))
        shown = scene.background if style is None and scene.style == "photo" else ""
        where = _one_hot(shown, tuple(BACKGROUNDS))
        where += _one_hot(str(scene.style), ("photo", "sketch", "neon"))
    return _figure(first) + _figure(second) + tones + where


def described(count: int) -> Tensor:
    """The descriptions of the numbered training examples."""
    return torch.tensor([description(caption(random.Random(i))[1]) for i in range(count)])


def pretrain(learner: Learner, ids: Tensor, saved: Path, steps: int) -> None:
    """Trains the text encoder to describe scenes, unless a file has it already."""
    if saved.exists():
        learner.text.load_state_dict(torch.load(saved))
        return
    targets = described(len(ids))
    targets = (targets - targets.mean(0)) / targets.std(0).clamp(min=0.05)
    tell = nn.Linear(HIDDEN, targets.shape[1])
    table = learner.text.get_input_embeddings()
    hook = table.register_forward_hook(blur_words)
    layers = [p for p in learner.text.parameters() if p is not table.weight]
    groups = [{"params": [*layers, *tell.parameters()], "peak": RATE}]
    groups.append({"params": [table.weight], "peak": TABLE_RATE})
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99), fused=True)
    began = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * min(1.0, (step + 1) / 50) * (1 - 0.9 * step / steps)
        picks = torch.randint(0, len(ids), (BATCH,))
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            told = tell(learner.text(ids[picks, :LENGTH]).last_hidden_state.mean(1))
        loss = F.mse_loss(told.float(), targets[picks])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.text.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 49:
            print(f"text {step + 1} loss {loss.item():.3f} {time.monotonic() - began:.0f}s", flush=True)
    hook.remove()
    torch.save(learner.text.state_dict(), saved)
