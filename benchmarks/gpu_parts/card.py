"""What the benchmark runs on: the first row of the table."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from shutil import which

import torch

from ti_train import __version__
from ti_train.hosts.diffusers.hardware import pick_device, pick_dtype

from .accelerator import GIB, backend
from .finding import Finding, Options


def measure(options: Options) -> Iterator[Finding]:
    """Raises UserError for a device that is not there."""
    device = pick_device(options.device)
    figures = {"device": str(device), "card": card(device), "driver": driver(device)}
    figures |= {"torch": torch.__version__, "dtype": str(pick_dtype("auto", device)).removeprefix("torch.")}
    figures |= {"ti-train": __version__, "Python": platform.python_version(), "system": platform.platform()}
    if options.pretend:
        figures["card"] += f" of {options.pretend:g} GiB: no figure below means anything"
    yield Finding("this computer", figures)


def card(device: torch.device) -> str:
    if device.type == "cpu":
        return "none: no figure below says anything of a GPU"
    if device.type == "mps":
        return f"{platform.machine()}, macOS {platform.mac_ver()[0]}"
    about = backend(device).get_device_properties(device)
    return f"{about.name}, {about.total_memory / GIB:.1f} GiB"


def driver(device: torch.device) -> str:
    """As far as the system tells."""
    if device.type == "xpu":
        return str(torch.xpu.get_device_properties(device).driver_version)
    if device.type != "cuda":
        return "none"
    if torch.version.hip:
        return f"HIP {torch.version.hip}"
    runtime, asked = f"CUDA {torch.version.cuda}", which("nvidia-smi")
    if asked is None:
        return runtime
    question = [asked, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(question, capture_output=True, text=True, check=False)
    return f"{answer.stdout.split()[0]}, {runtime}" if answer.returncode == 0 and answer.stdout else runtime
