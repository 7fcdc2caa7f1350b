"""What the validation loss knows of fidelity: the step that each rule would keep, against the best one.

python benchmarks/validation.py [--world FOLDER] [--arms NAME ...] [--concepts NAME ...] [--seeds 2] [--first-seed 2]

Trains each arm on each concept, and judges pictures of the vectors of every measurement; each measurement is made with
several choices of samples. Prints for each rule how much lower than the best step's the fidelity of the kept step is.
Stop it and start it again: what is recorded in --out is not done twice. The ends of the runs are records for
benchmarks/quality.py with the same --out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from benchmarks.quality import mark_of, record_of  # noqa: E402
from benchmarks.quality_parts.arms import Arm, arms  # noqa: E402
from benchmarks.quality_parts.records import Records  # noqa: E402
from benchmarks.quality_parts.training import Trained, config_of  # noqa: E402
from benchmarks.quality_parts.worlds import Concept, Drawn, Embedded, World, answers  # noqa: E402
from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures  # noqa: E402
from ti_train.events import Done, Step  # noqa: E402
from ti_train.files import file_name, write_atomically  # noqa: E402
from ti_train.prompts import PLACEHOLDER, Templates  # noqa: E402
from ti_train.training.keeping import Course  # noqa: E402
from ti_train.training.loop import train  # noqa: E402
from ti_train.training.validation import ValidationBatch  # noqa: E402

CHOICES = 10  # of the samples of the validation loss; the first is the run's own
TOLERATED = 0.05  # of fidelity
COURSES = "courses"  # the folder of the records


@dataclass(frozen=True)
class Run:
    """A run's measurements, one for each choice of samples. logs: the logarithm of each sample's loss."""

    arm: str
    concept: str
    seed: int
    steps: list[int]
    fidelity: list[float]
    logs: list[list[list[float]]]  # of each measurement with each choice

    def choices(self) -> list[list[list[float]]]:
        """The logarithms of the losses of each measurement, for each choice of samples."""
        return [list(logs) for logs in zip(*self.logs, strict=True)]


def measured(world: World, arm: Arm, concept: Concept, seed: int, folder: Path) -> tuple[Run, Trained]:
    """The measurements of a run, and its end."""
    config = config_of(arm, concept, seed)
    images = read_pictures(find_pictures(concept.folder), world.host.resolution, [])
    dataset = encode_pictures(world.host, images, config.flip)
    templates = Templates.load(config.templates)
    seeds = [seed, *range(1000, 1000 + CHOICES - 1)]
    batches = [ValidationBatch.draw(world.host, dataset, templates, replace(config, seed=s)) for s in seeds]
    run, done = Run(arm.name, concept.name, seed, [], [], []), None
    for event in train(world.host, dataset, config, folder):
        if isinstance(event, Step) and event.embedding is not None:
            vectors = event.embedding.fitted_to(world.host.widths)
            there = {PLACEHOLDER: {encoder: v.to(world.host.device) for encoder, v in vectors.items()}}
            _, judged = next(answers(world, concept, vectors))  # the plain prompt
            run.steps.append(event.step)
            run.logs.append([list(batch.log_losses(world.host, there)) for batch in batches])
            run.fidelity.append(fmean(one.fidelity or 0.0 for one in judged))
        elif isinstance(event, Done):
            done = event
    assert done
    return run, Trained(done.path, config.steps * config.effective_batch, done.seconds)


Logs = Sequence[Sequence[float]]  # the logarithm of each sample's loss, of each measurement; the first is untrained


def lowest(logs: Logs) -> int:
    """Of the measurements after the untrained one."""
    return min(range(1, len(logs)), key=lambda i: fmean(logs[i]))


def last(logs: Logs) -> int:
    return len(logs) - 1


def kept(logs: Logs) -> int:
    """What a run keeps."""
    course = Course()
    for i, samples in enumerate(logs):
        course = course.after(i, samples, {})
    return course.kept(last(logs))


RULES: Mapping[str, Callable[[Logs], int]] = {"last": last, "lowest": lowest, "kept": kept}


def table(runs: Sequence[Run]) -> str:
    lines = ["| arm | rule | choices | lost, mean | lost, worst | more than .05 lost |", "|---|---|---|---|---|---|"]
    for arm in dict.fromkeys(run.arm for run in runs):
        of_arm = [run for run in runs if run.arm == arm]
        for name, rule in RULES.items():
            lost = [max(run.fidelity[1:]) - run.fidelity[rule(logs)] for run in of_arm for logs in run.choices()]
            bad = sum(value > TOLERATED for value in lost)
            lines.append(f"| {arm} | {name} | {len(lost)} | {fmean(lost):.3f} | {max(lost):.2f} | {bad} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    ours = arms()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, help="a drawn world's folder, instead of the embedded model")
    parser.add_argument("--arms", nargs="*", choices=ours, default=["Balanced"], metavar="NAME")
    parser.add_argument("--concepts", nargs="*", metavar="NAME", help="(default: all objects)")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--first-seed", type=int, default=2, help="(the samples were chosen with 0 and 1)")
    parser.add_argument("--few", action="store_true", help="half the pictures")
    parser.add_argument("--tables", action="store_true", help="only the table, of what is recorded")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=HERE / "quality-runs", help="folder of records and embeddings")
    a = parser.parse_args(given)
    if not a.tables:
        place = (a.out, a.device, a.dtype, a.few)
        world: World = Drawn(a.world, *place) if a.world else Embedded(*place)
        for concept in (c for c in world.concepts.values() if (c.name in a.concepts if a.concepts else not c.style)):
            for seed in range(a.first_seed, a.first_seed + a.seeds):
                for arm in (ours[name] for name in a.arms):
                    add(world, arm, concept, seed, a.out)
    print(table([Run(**json.loads(file.read_text())) for file in sorted((a.out / COURSES).rglob("*.json"))]))


def add(world: World, arm: Arm, concept: Concept, seed: int, out: Path) -> None:
    """Records a run, unless it is recorded."""
    file = out / COURSES / world.name / f"{file_name(arm.name)}-{concept.name}-{seed}.json"
    if file.is_file():
        return
    folder = out / "words" / world.name / file.stem
    shutil.rmtree(folder, ignore_errors=True)
    run, end = measured(world, arm, concept, seed, folder)
    Records(out / "records").add(record_of(world, arm, concept, seed, end, mark_of(world, arm, concept, seed)))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(asdict(run)).encode())
    print(f"{file.stem}: fidelity {' '.join(f'{value:.2f}' for value in run.fidelity)}", flush=True)


if __name__ == "__main__":
    main()
