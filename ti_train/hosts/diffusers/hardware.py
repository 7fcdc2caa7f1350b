"""Choosing the device and the precision of the command line."""

from __future__ import annotations

import re

import torch

from ...errors import UserError

WITHOUT_FP16 = re.compile(r"GTX 16|CMP 30HX|MX[45]50|\bT(400|500|550|600|1000|1200|2000)\b")  # Turing's TU116, TU117
AMD_WITH_BF16 = re.compile(r"gfx(908|90a|94|95|11|12)")  # CDNA; RDNA 3 and newer
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto": the first available accelerator. Raises UserError if it is not available."""
    there = {
        "cuda": torch.cuda.is_available(),
        "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, present in there.items() if present))
    kind, _, number = name.partition(":")
    if not there.get(kind, False) or (number and number not in map(str, range(count_of(kind)))):
        usable = ", ".join(kind for kind, present in there.items() if present)
        raise UserError(f"The device '{name}' is not available. This computer and this PyTorch have: {usable}.")
    return torch.device(name)


def count_of(kind: str) -> int:
    """How many devices of a kind there are."""
    return int(getattr(torch, kind).device_count()) if kind in ("cuda", "xpu") else 1


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a name; "auto": the fastest of the device with sufficient range. Raises UserError."""
    if name != "auto":
        if device.type == "mps" and DTYPES[name] != torch.float32 and not has_autocast("mps"):
            raise UserError(f"PyTorch {torch.__version__} supports only float32 on Apple's GPUs. Use --dtype float32.")
        return DTYPES[name]
    if device.type == "cuda":
        return dtype_of_amd(device) if torch.version.hip else dtype_of_nvidia(device)
    if device.type == "xpu":
        return torch.bfloat16
    if device.type == "mps" and has_autocast("mps"):
        return torch.float16
    if device.type == "cpu":
        # bf16 is two to four times faster if the CPU has it, and four times slower if emulated
        native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if any(getattr(torch.cpu, check, lambda: False)() for check in native):
            return torch.bfloat16
    return torch.float32


def has_autocast(kind: str) -> bool:
    """Whether PyTorch has autocast for a device type; before 2.4 this cannot be queried, and "mps" has none."""
    ask = getattr(torch.amp, "is_autocast_available", None)
    return bool(ask and ask(kind))


def dtype_of_nvidia(device: torch.device) -> torch.dtype:
    """bf16 for Ampere and newer, fp16 for Volta and Turing; fp16 is slow on Pascal and gives NaN on the GTX 16."""
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return torch.bfloat16
    broken = WITHOUT_FP16.search(torch.cuda.get_device_name(device))
    return torch.float16 if capability >= (7, 0) and not broken else torch.float32


def dtype_of_amd(device: torch.device) -> torch.dtype:
    """By architecture: PyTorch reports bf16 for every AMD card, and capability (10, 3) for RDNA 2."""
    architecture = torch.cuda.get_device_properties(device).gcnArchName
    return torch.bfloat16 if AMD_WITH_BF16.match(architecture) else torch.float16
