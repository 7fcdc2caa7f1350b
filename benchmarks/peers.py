"""The same training with each trainer, unmodified, in turn: this one, diffusers' example scripts, kohya's sd-scripts.

python benchmarks/peers.py [--model sd15|sdxl|embedded|FOLDER] [--pixels 256] [--dtype bfloat16] [--rounds 2]

All get the same model folder, images, resolution, batch, precision, steps and threads, one after the other, and are
watched from outside: the steps on their progress bars, CPU time, memory. DIFFUSERS_PATH (or --diffusers) is a folder
of diffusers' source, KOHYA_PATH (--kohya) one of sd-scripts, KOHYA_PYTHON (--kohya-python) a Python that has what it
needs; what is not given is left out. On another machine only the ratios count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.peers_parts.cases import FAMILIES, Case, model_folder, noise_images  # noqa: E402
from benchmarks.peers_parts.tables import Figures, table  # noqa: E402
from benchmarks.peers_parts.trainers import PRECISIONS, Trainer, trainers  # noqa: E402
from benchmarks.peers_parts.watching import FailedError, Watched, watch  # noqa: E402

VERSIONS = """
from importlib.metadata import version
import platform, torch
print("Python", platform.python_version(), "torch", torch.__version__, *(
    f"{name} {version(name)}" for name in ("diffusers", "transformers", "accelerate")))
"""


def main() -> int:
    a = arguments()
    scratch = a.out.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    images = a.images or noise_images(scratch / f"noise-{a.pixels}", a.pixels)
    case = Case(
        model_folder(a.model, scratch).resolve(), images.resolve(), a.pixels, a.batch, a.dtype, a.steps, a.threads,
        a.device, scratch,
    )  # fmt: skip
    there = trainers(a.diffusers, a.kohya, a.kohya_python)
    chosen = [trainer for name, trainer in there.items() if name in a.trainers]
    print(f"{computer()}; {a.threads} threads\n{shlex.join(sys.argv)}")
    for trainer in chosen:
        print(f"{trainer.name}: {version(trainer)}", flush=True)
    seen: dict[str, list[Watched]] = {trainer.name: [] for trainer in chosen}
    for _ in range(a.rounds):
        for trainer in chosen:
            try:
                seen[trainer.name].append(run(trainer, case))
                print(f"{trainer.name}: {Figures.of(seen[trainer.name][-1:])}", flush=True)
            except FailedError as failure:
                print(f"{trainer.name}: {failure}", flush=True)
    found = {name: Figures.of(rounds) for name, rounds in seen.items() if rounds}
    print("\n" + table(found, "ti-train", *work(case)))
    return int(len(found) < len(chosen))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    from_environment = os.environ.get
    add = parser.add_argument
    add("--model", default="sd15", help=f"{', '.join(FAMILIES)} (random weights), embedded, or a model folder")
    add("--images", type=Path, help="a folder of images and nothing else (default: five of noise)")
    add("--pixels", type=int, default=256, help="side of the images (default: %(default)s)")
    add("--batch", type=int, default=1, help="images a step (default: %(default)s)")
    add("--dtype", choices=PRECISIONS, default="float32", help="(default: %(default)s)")
    add("--steps", type=int, default=14, help="of a run, the first of which are not counted (default: %(default)s)")
    add("--rounds", type=int, default=1, help="runs of each trainer, in turn (default: %(default)s)")
    add("--threads", type=int, default=os.cpu_count(), help="of the CPU (default: %(default)s)")
    add("--device", choices=("auto", "cpu"), default="auto")
    add("--trainers", nargs="*", default=["ti-train", "diffusers", "kohya"], metavar="NAME")
    add("--diffusers", type=Path, default=from_environment("DIFFUSERS_PATH"), help="a folder of its source")
    add("--kohya", type=Path, default=from_environment("KOHYA_PATH"), help="a folder of sd-scripts")
    add("--kohya-python", default=from_environment("KOHYA_PYTHON"), help="(default: this one)")
    add("--out", type=Path, default=ROOT / "benchmarks/peers-runs", help="folder of models and results")
    return parser.parse_args()


def run(trainer: Trainer, case: Case) -> Watched:
    """Raises FailedError."""
    if why := trainer.lacking(case):
        raise FailedError(f"left out, {why}")
    out = case.scratch / "runs" / trainer.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(case.threads))
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if case.device == "cpu" else {}
    offline = {"HF_HUB_OFFLINE": "1"}  # all that a run needs is on the disk
    command = [trainer.python, *trainer.command(case, out)]
    for file in case.model.rglob("*.safetensors"):  # no trainer waits for the disk
        read_once(file)
    return watch(command, trainer.folder, case.steps, threads | hidden | offline)


def read_once(path: Path) -> None:
    """Leaves a file in the system's cache."""
    with path.open("rb") as file:
        while file.read(2**24):
            pass


def work(case: Case) -> tuple[float, float]:
    """TFLOP of a step and the device's most TFLOP/s; zeros without a GPU."""
    if case.device == "cpu" or which("nvidia-smi") is None:
        return 0.0, 0.0
    given = [case.model, case.pixels, case.batch, case.dtype, case.scratch]
    command = [sys.executable, "-m", "benchmarks.peers_parts.work", *map(str, given)]
    counted, most = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(f"\n{counted:.3g} TFLOP a step; large matrix products reach {most:.3g} TFLOP/s")
    return counted, most


def version(trainer: Trainer) -> str:
    """Its commit, where its folder is a git repository, and what it computes with."""
    libraries = subprocess.run([trainer.python, "-c", VERSIONS], capture_output=True, text=True, check=False).stdout
    asked = ["git", "-C", str(trainer.folder), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return ", ".join(text.strip() for text in (commit, libraries) if text)


def computer() -> str:
    """The processor and the GPU, where Linux and NVIDIA's driver tell them."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    card = ""
    if asked := which("nvidia-smi"):
        question = [asked, "--query-gpu=name", "--format=csv,noheader"]
        card = ", " + subprocess.run(question, capture_output=True, text=True, check=False).stdout.strip()
    return f"{len(names)} x {names[0]}{card}, {platform.platform()}"


if __name__ == "__main__":
    sys.exit(main())
