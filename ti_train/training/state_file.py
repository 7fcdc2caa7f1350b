"""The state of a run as a safetensors file, and the checks of what is in such a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.numpy import save
from torch import Size, Tensor

from ..embedding import number_in, step_in
from .keeping import Course
from .optimizer import SCALE, parts_of
from .pictures import picture_of
from .provenance import RUN
from .state import State

VECTORS, INITIAL, OPTIMIZER, PER_IMAGE = "vectors.", "start.", "optimizer.", "own."
LARGEST_PICTURE = 2**22  # bytes of a preview of 512 x 512 pixels at most, see pictures.py
MOST_NUMBERS = 2**27  # 512 MiB: per-image tokens of ten thousand images have less
AVERAGED, BEST, PICTURE = "averaged.", "best.", "picture."


def file_of(state: State, identity: Mapping[str, Any]) -> bytes:
    """identity: of its run (see RunFiles)."""
    tensors = {VECTORS + key: value for key, value in state.vectors.items()}
    tensors |= {INITIAL + key: value for key, value in state.initial.items()}
    tensors |= {OPTIMIZER + key: value for key, value in state.optimizer.items()}
    tensors |= {PER_IMAGE + key: value for key, value in state.per_image.items()}
    tensors |= {AVERAGED + key: value.clone() for key, value in state.averaged.items()}
    tensors |= {BEST + key: value.clone() for key, value in state.course.vectors.items()}  # may be the same
    tensors |= {PICTURE + key: value for key, value in state.pictures.items()}
    header = {
        "step": str(state.step),
        "seconds": str(state.seconds),
        "identity": json.dumps(identity),
        "measured": state.course.written(),
        RUN: state.run,
        "init": state.init,
    }
    # safetensors.torch makes a C type for each new size of a tensor, as previews have, which Python keeps for ever
    return bytes(save({key: t.detach().cpu().contiguous().numpy() for key, t in tensors.items()}, header))


def check_sizes(sizes: Mapping[str, int]) -> None:
    """sizes: tensor -> how many numbers it has. Raises ValueError for more than any run has, before they are read."""
    large = [name for name, size in sizes.items() if name.startswith(PICTURE) and size > LARGEST_PICTURE]
    if large or sum(sizes.values()) > MOST_NUMBERS:
        raise ValueError(f"{large[0] if large else 'all'} has more numbers than any run")


def state_in(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> State:
    """The state in a file. Raises LookupError, TypeError, ValueError, OverflowError and OSError for anything else."""
    step, seconds = step_in(header), number_in(header, "seconds")
    if not step or seconds is None or seconds < 0:
        raise ValueError(f"after step {header.get('step')}, {header.get('seconds')} seconds")
    for name, tensor in tensors.items():
        if not name.startswith(PICTURE):
            _check(name, tensor)
    vectors, initial, optimizer, own = (_part(tensors, p) for p in (VECTORS, INITIAL, OPTIMIZER, PER_IMAGE))
    averaged, pictures, best = (_part(tensors, p) for p in (AVERAGED, PICTURE, BEST))
    _check_vectors(vectors, [initial, *(others for others in (averaged, best) if others)], own)
    _check_optimizer(optimizer, [tensor.shape for part in (vectors, own) for _, tensor in sorted(part.items())])
    for number in pictures:
        picture_of(pictures, int(number))
    # earlier versions measured other losses, which say nothing of those that follow
    course = Course.read(header["measured"], best) if "measured" in header else Course()
    run, init = header.get(RUN, ""), header.get("init", "")
    return State(step, seconds, vectors, initial, optimizer, own, course, pictures, averaged, init, run)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _check(name: str, tensor: Tensor, shapes: Sequence[Size] = (), least: float = -math.inf) -> None:
    """Raises ValueError unless a tensor is fp32, of one of the shapes, and its numbers finite and `least` or more.

    shapes: none given: any.
    """
    shapes = shapes or [tensor.shape]
    if tensor.dtype != torch.float32 or tensor.shape not in shapes:
        raise ValueError(f"'{name}' is {tensor.dtype} {[*tensor.shape]} and must be torch.float32 {[*shapes[0]]}")
    if not (tensor.isfinite() & (tensor >= least)).all():
        limit = f", or less than {least:g}" * (least > -math.inf)
        raise ValueError(f"'{name}' has a number that is not finite{limit}")


def _check_vectors(
    vectors: Mapping[str, Tensor], copies: Sequence[Mapping[str, Tensor]], own: Mapping[str, Tensor]
) -> None:
    """own: of per-image tokens, if there are any. Raises ValueError unless all are for the same text encoders."""
    shapes = {encoder: v.shape for encoder, v in vectors.items()}
    same = all({encoder: v.shape for encoder, v in like.items()} == shapes for like in copies)
    widths = {encoder: v.shape[1:] for encoder, v in own.items()}
    beside = not own or widths == {encoder: shape[1:] for encoder, shape in shapes.items()}
    if not (shapes and same and beside and all(len(shape) == 2 for shape in shapes.values())):
        raise ValueError("vectors that do not belong together")


def _check_optimizer(state: Mapping[str, Tensor], leaves: Sequence[Size]) -> None:
    """leaves: their shapes in the optimizer's order. Raises ValueError."""
    parts = {f"{i}.{part}": wanted for i, leaf in enumerate(leaves) for part, wanted in parts_of(leaf).items()}
    parts[SCALE] = (Size(),), 1.0
    for name, tensor in state.items():
        if name not in parts:
            raise ValueError(f"'{name}' is of no optimizer of {len(leaves)} tensors")
        shapes, least = parts[name]
        _check(OPTIMIZER + name, tensor, shapes, least)
