"""Figures of what was watched, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from .watching import Watched

SETTLED = 2  # steps at the beginning that fill caches and are not counted
GB = 10**9


@dataclass(frozen=True)
class Figures:
    """Medians over the steps of all rounds, or over the rounds."""

    step: float  # seconds
    spread: tuple[float, float]  # its quartiles
    cpu: float  # CPU seconds of a step
    peak: float  # GB
    gpu: float  # GB
    first: float  # seconds to the end of the first step
    whole: float  # seconds of the command
    whole_cpu: float

    @classmethod
    def of(cls, rounds: Sequence[Watched]) -> Figures:
        steps = [step for run in rounds for step in differences([wall for wall, _ in run.stamps])]
        ends = [(run.stamps[SETTLED - 1][1], run.stamps[-1][1], len(run.stamps) - SETTLED) for run in rounds]
        low, _, high = quantiles(steps, n=4)
        return cls(
            step=median(steps),
            spread=(low, high),
            cpu=median((last - first) / count for first, last, count in ends),
            peak=max(run.peak for run in rounds) / GB,
            gpu=max(run.gpu for run in rounds) / GB,
            first=median(run.stamps[0][0] for run in rounds),
            whole=median(run.seconds for run in rounds),
            whole_cpu=median(run.cpu for run in rounds),
        )


def differences(stamps: Sequence[float]) -> list[float]:
    """Seconds of each step after those that settle."""
    return [after - before for before, after in zip(stamps[SETTLED - 1 :], stamps[SETTLED:], strict=False)]


def table(found: Mapping[str, Figures], ours: str, tflop: float, peak_tflops: float) -> str:
    """tflop: of a step; peak_tflops: the most that the device reaches; both 0 where nothing was measured."""
    base, on_gpu = found.get(ours), any(figures.gpu for figures in found.values())
    head = ["trainer", "s a step (quartiles)", "CPU s a step", "first step after", "command", "its CPU s", "peak GB"]
    head += (
        ["peak GPU GB"] * on_gpu + ["of the peak rate"] * bool(peak_tflops) + ["step rate, ours = 1", "peak, ours = 1"]
    )
    rows = [head, ["---"] * len(head)]
    for name, f in found.items():
        row = [name, f"{f.step:.4g} ({f.spread[0]:.4g} to {f.spread[1]:.4g})", f"{f.cpu:.4g}", f"{f.first:.1f} s"]
        row += [f"{f.whole:.1f} s", f"{f.whole_cpu:.1f}", f"{f.peak:.2f}"] + [f"{f.gpu:.2f}"] * on_gpu
        row += [f"{100 * tflop / f.step / peak_tflops:.0f} %"] if peak_tflops else []
        memory = (f.gpu / base.gpu if on_gpu else f.peak / base.peak) if base else 0.0
        row += [f"{base.step / f.step:.2f}", f"{memory:.2f}"] if base else ["", ""]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
