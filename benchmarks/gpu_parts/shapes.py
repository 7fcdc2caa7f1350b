"""Part 3: true shapes with random weights. Seconds a step, peaks of memory, and how busy the card is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from timing import timed

from ti_train.data.dataset import Dataset, encode_pictures
from ti_train.device import is_out_of_memory

from .accelerator import allocated, give_back, in_gib, matmul_rate, peak, reset_peak
from .finding import Finding, Options
from .random_models import NAMES, random_host
from .runs import noise_pictures, step_flops, stepping

CASES = {"sd15": ((512, 1), (512, 4), (512, 8)), "sdxl": ((1024, 1),)}  # side in pixels, pictures a micro-batch
SMALL_SIDE = 64
WARM_UP = 5


def measure(options: Options) -> Iterator[Finding]:
    for family, cases in CASES.items():
        host = random_host(options, family)
        fastest = matmul_rate(host.device, host.dtype, 512 if options.small else 8192)
        yield Finding(
            f"{NAMES[family]}'s weights",
            {"dtype": str(host.dtype), "GiB": in_gib(allocated(host.device)), "matmul TFLOP/s": fastest / 1e12},
        )
        for side, batch in cases:
            used = SMALL_SIDE if options.small else side
            yield step_of(options, host, f"{NAMES[family]}, {used} pixels, batch {batch}", used, batch, fastest)
        device = host.device
        del host
        give_back(device)


def step_of(options: Options, host: Any, case: str, side: int, batch: int, fastest: float) -> Finding:
    """A step as it is and with gradient checkpointing."""
    pictures, device = noise_pictures(side), host.device
    reset_peak(device)
    datasets: list[Dataset] = []
    seconds = timed(lambda: datasets.append(encode_pictures(host, pictures)), device)
    figures: dict[str, str | float] = {"encoding, s a picture": seconds / len(pictures)}
    figures["encoding, peak GiB"] = in_gib(peak(device))
    peaks, folder, count = [], Path(options.scratch), 3 if options.small else 5 if options.quick else 10
    flops = step_flops(host, datasets[0], folder, batch_size=batch)
    for checkpointing, name in ((False, "step"), (True, "checkpointed step")):
        try:
            taken = seconds_of_a_step(host, datasets[0], folder, count, batch, checkpointing)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            figures[name] = "out of memory"
            continue
        peaks.append(peak(device))
        figures |= {f"{name}, s": taken, f"{name}, peak GiB": in_gib(peaks[-1])}
        if not checkpointing:
            figures |= {"TFLOP a step": flops / 1e12, "utilisation, %": 100 * flops / taken / fastest}
    told = len(peaks) == 2 and peaks[0] is not None
    return Finding(case, figures, {"checkpointing": peaks[1] < peaks[0]} if told and not options.small else {})


def seconds_of_a_step(host: Any, dataset: Dataset, folder: Path, count: int, batch: int, checkpointing: bool) -> float:
    """The peak of memory is counted from its second step on."""
    settings = {"batch_size": batch, "gradient_checkpointing": checkpointing}
    with stepping(host, dataset, folder, **settings) as events:
        next(events)  # with checkpointing it frees the graphs of steps before
        give_back(host.device)
        reset_peak(host.device)
        for _ in range(WARM_UP):
            next(events)
        # at once: to wait for the device after each would keep the next step from being queued
        return timed(lambda: [next(events) for _ in range(count)], host.device) / count
