"""Part 7: how often the host waits for the card in a step, and how long the card waits for the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from ti_train.data.dataset import encode_pictures

from .finding import Finding, Options
from .random_models import NAMES, random_host
from .runs import noise_pictures, stepping

SIDE, SMALL_SIDE, STEPS = 512, 64, 3
BATCHES = (1, 4)
WARM_UP = 4  # steps in which kernels are chosen and graphs recorded
RANGE = "a step of the loop"


def measure(options: Options) -> Iterator[Finding]:
    host = random_host(options, "sd15")
    dataset = encode_pictures(host, noise_pictures(SMALL_SIDE if options.small else SIDE))
    activities = [ProfilerActivity.CPU]
    if not options.pretend and host.device.type in ("cuda", "xpu"):
        activities.append(getattr(ProfilerActivity, host.device.type.upper()))
    for batch in BATCHES[: 1 if options.small else None]:
        with stepping(host, dataset, Path(options.scratch), batch_size=batch) as events:
            for _ in range(WARM_UP):
                next(events)
            with profile(activities=activities) as profiled:
                for _ in range(STEPS):
                    with record_function(RANGE):
                        next(events)
        case = f"{NAMES['sd15']}, batch {batch}, {STEPS} steps"
        yield Finding(case, waits(profiled.events()) | gaps(profiled.events()))


def waits(events: Any) -> dict[str, str | float]:
    """Of the host: scalars that it reads, of its own memory too; copies to it; the driver's calls that wait."""
    steps = [e.time_range for e in events if e.name == RANGE and e.device_type == DeviceType.CPU]
    inside = [e for e in events if any(s.start <= e.time_range.start <= s.end for s in steps)]
    scalars = sum(e.name == "aten::_local_scalar_dense" for e in inside)
    copies = sum(e.name.startswith("Memcpy DtoH") for e in events)
    waited = [e for e in inside if "Synchronize" in e.name]
    return {
        "scalars read a step": scalars / STEPS,
        "copies to the host a step": copies / STEPS,
        "calls that wait a step": len(waited) / STEPS,
        "ms waited a step": sum(e.time_range.elapsed_us() for e in waited) / 1e3 / STEPS,
    }


def gaps(events: Any) -> dict[str, str | float]:
    """Of the card: the share of time in which no kernel runs, and the longest such time."""
    kernels = sorted((e.time_range.start, e.time_range.end) for e in events if e.device_type != DeviceType.CPU)
    if not kernels:
        return {"gaps between kernels": "not told without a card"}
    idle, longest, until = 0.0, 0.0, kernels[0][1]
    for start, end in kernels[1:]:
        gap = max(0.0, start - until)
        idle, longest, until = idle + gap, max(longest, gap), max(until, end)
    whole = until - kernels[0][0]
    return {
        "kernels a step": len(kernels) / STEPS,
        "card idle, %": 100 * idle / whole,
        "longest gap, ms": longest / 1e3,
    }
