"""Reading the weights of a model one at a time, each cast and moved before the next is read.

safetensors maps a file into memory, and what was read of it belongs to the process until the file is closed. A model
that is stored in fp32 and computes in bf16 would take three times its size while it is loaded: so a file is opened anew
after each quarter of a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ...host import Digest
from .original_layout import Source

MAPPED = 2**28  # bytes


@dataclass(frozen=True)
class Stored:
    """Where tensors are: their names -> file and name in it, and their shapes."""

    places: Mapping[str, tuple[Path, str]]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, files: Iterable[Path]) -> Stored:
        """All tensors of a model's files, by their own names. Raises SafetensorError."""
        places, shapes = {}, {}
        for path in files:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    places[name], shapes[name] = (path, name), tuple(file.get_slice(name).get_shape())
        return cls(places, shapes)

    def read(self, names: Iterable[str]) -> Iterator[Tensor]:
        """Reads tensors in this order; each is valid as long as it is used."""
        opened: Any = None
        path, used = None, 0
        for name in names:
            wanted, own_name = self.places[name]
            if opened is None or wanted != path or used > MAPPED:
                opened, path, used = safe_open(wanted, framework="pt"), wanted, 0
            tensor = opened.get_tensor(own_name)
            used += tensor.nbytes
            yield tensor


@dataclass(frozen=True)
class Placement:
    """The device of a pipeline's weights, and their precision."""

    device: torch.device
    dtype: torch.dtype

    def dtype_of(self, part: str, layer: nn.Module) -> torch.dtype:
        """The U-Net's and the text encoders' linear layers have the fastest dtype of the device, the others fp32."""
        fast = part == "unet" or (part != "vae" and isinstance(layer, nn.Linear))
        return self.dtype if fast else torch.float32


def fill(
    module: nn.Module, part: str, sources: Mapping[str, Source], stored: Stored, placement: Placement, digest: Digest
) -> None:
    """Fills a module on the meta device. sources: of each of its weights; digest: gets them as they are stored."""
    wanted, weights = dict(module.named_parameters()), {}
    for key, tensor in zip(sources, stored.read(source.name for source in sources.values()), strict=True):
        weight = sources[key].read(tensor).reshape(wanted[key].shape)  # a linear layer may be stored as a convolution
        digest.add(key, weight)
        layer = module.get_submodule(key.rpartition(".")[0])
        weights[key] = weight.to(placement.device, placement.dtype_of(part, layer), copy=True)
    module.load_state_dict(weights, strict=False, assign=True)
    for layer in module.modules():  # CLIP's positions, which are counted and not stored
        positions = layer._buffers.get("position_ids")
        if positions is not None:
            counted = torch.arange(positions.shape[-1], device=placement.device)
            layer._buffers["position_ids"] = counted.expand(positions.shape)
