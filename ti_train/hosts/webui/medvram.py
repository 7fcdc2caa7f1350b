"""AUTOMATIC1111's --medvram and --lowvram: hooks move each part of the model to the GPU when it is called.

A training step needs the U-Net and the text encoder on the GPU until backward is done. So their hooks are removed
while they are held, and restored before the WebUI generates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modules import devices, lowvram
from torch import nn

from ...device import is_out_of_memory
from ...errors import UserError

GIB = 2**30
Hook = Callable[..., Any]


class HeldParts:
    """The U-Net and the text encoders of a model, if the WebUI moves its parts by hooks."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._taken: list[tuple[nn.Module, int, Hook]] = []

    def hold(self) -> None:
        """Moves all of them to the GPU, where they stay. Raises UserError if they do not fit together."""
        if self._taken:
            return
        taken = list(self._hooks())
        if not taken:
            return
        lowvram.send_everything_to_cpu()
        self._taken = taken
        for module, key, _ in self._taken:
            del module._forward_pre_hooks[key]
        try:
            for module, _, _ in self._taken:
                module.to(devices.device)
        except Exception as error:
            self.release_weights()
            if not is_out_of_memory(error):
                raise
            raise UserError(self._does_not_fit()) from None

    def release_weights(self) -> None:
        """Restores the hooks, which move a part that cannot be moved now, and moves them to the CPU."""
        taken, self._taken = self._taken, []
        for module, key, hook in taken:
            module._forward_pre_hooks[key] = hook
        for module, _, _ in taken:
            module.to(lowvram.cpu)
        devices.torch_gc()

    def _hooks(self) -> Iterator[tuple[nn.Module, int, Hook]]:
        text = self._model.conditioner if self._model.is_sdxl else self._model.cond_stage_model
        for part in (self._model.model, text):
            for module in part.modules():
                for key, hook in module._forward_pre_hooks.items():
                    if hook.__module__ == lowvram.__name__:
                        yield module, key, hook

    def _does_not_fit(self) -> str:
        text = self._model.conditioner if self._model.is_sdxl else self._model.cond_stage_model
        network, encoder = size_of(self._model.model), size_of(text)
        return (
            f"The U-Net ({network / GIB:.1f} GiB) and the text encoder ({encoder / GIB:.1f} GiB) do not fit into GPU "
            "memory together, and a training step needs both. Close other programs that use the GPU, start the WebUI "
            "without --no-half, or use a smaller model: in half precision Stable Diffusion 1 takes 1.8 GiB, Stable "
            "Diffusion XL 6.3 GiB, plus the memory of a step."
        )


def size_of(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(parameter.numel() * parameter.itemsize for parameter in module.parameters())


def fetch(module: nn.Module) -> None:
    """Moves a part to the GPU with the WebUI's hooks, as calling it would."""
    for hook in module._forward_pre_hooks.values():
        hook(module, ())
