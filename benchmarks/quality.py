"""How good embeddings are, and from how few images: ours, the paper's way and diffusers' own script, with ground truth.

python benchmarks/quality.py [--world FOLDER ...] [--arms NAME ...] [--concepts NAME ...] [--seeds 3] [--out FOLDER]
python benchmarks/quality.py --no-embedded --model MODEL --photographs FOLDER --clip-weights FILE [--dino FOLDER]

Trains every arm on every concept with every seed, judges the pictures, prints the tables, and writes
benchmarks/quality.json and quality-WORLD.png. Stop it and start it again: what is recorded in --out is not done twice.
DIFFUSERS_PATH (or --diffusers) is a folder of diffusers' source, whose textual_inversion.py is an arm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from benchmarks.quality_parts import tables, training  # noqa: E402
from benchmarks.quality_parts.arms import Arm, arms  # noqa: E402
from benchmarks.quality_parts.photographed import Photographed  # noqa: E402
from benchmarks.quality_parts.pictures import Figures  # noqa: E402
from benchmarks.quality_parts.records import Record, Records, digest  # noqa: E402
from benchmarks.quality_parts.worlds import Concept, Drawn, Embedded, World, answers, ceiling  # noqa: E402
from ti_train.commands.evaluate import add_judge  # noqa: E402
from ti_train.errors import UserError  # noqa: E402
from ti_train.evaluation.clip import Clip  # noqa: E402
from ti_train.evaluation.dino import Dino  # noqa: E402
from ti_train.evaluation.options import HELP  # noqa: E402
from ti_train.formats import load_embedding  # noqa: E402

BASES = (("diffusers 500", 500), ("Paper", 5000), ("Paper", 500), ("Balanced", 480))  # the first that is there


def main(given: Sequence[str] | None = None) -> None:
    ours = arms()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, action="append", default=[], help="a drawn world's folder (repeatable)")
    parser.add_argument("--model", type=Path, help="a real Stable Diffusion 1, 2 or XL, with --photographs")
    parser.add_argument("--photographs", type=Path, help="folder with a subfolder of images for each subject")
    add_judge(parser)
    parser.add_argument("--dino", type=Path, help=HELP["dino"])
    parser.add_argument("--no-embedded", action="store_true", help="leave out the embedded model")
    parser.add_argument("--arms", nargs="*", choices=ours, default=list(ours), metavar="NAME")
    parser.add_argument("--concepts", nargs="*", metavar="NAME", help="(default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--few", action="store_true", help="half the pictures")
    parser.add_argument("--tables", action="store_true", help="only the tables, of what is recorded")
    parser.add_argument("--base", choices=ours, metavar="NAME", help="what the tables compare with, at its end")
    parser.add_argument("--diffusers", type=Path, default=os.environ.get("DIFFUSERS_PATH"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=HERE / "quality-runs", help="folder of records and embeddings")
    parser.add_argument("--results", type=Path, default=HERE, help="folder of quality.json and the pictures")
    a = parser.parse_args(given)
    records = Records(a.out / "records")
    for world in () if a.tables else worlds(a):
        for concept in (c for c in world.concepts.values() if not a.concepts or c.name in a.concepts):
            print(f"{world.name}: {concept.name}'s own images, encoded and decoded: {ceiling(world, concept):.2f}")
            for seed in range(a.first_seed, a.first_seed + a.seeds):
                for arm in (ours[name] for name in a.arms):
                    try:
                        for record in measured(world, arm, concept, seed, records, a):
                            records.add(record)
                            print(line(record), flush=True)
                    except UserError as error:  # of this run alone, such as vectors that are not finite
                        print(f"{world.name} {arm.name}: {concept.name} {seed}  {error}", flush=True)
    show(records.all(), ours, a.base, a.results)


def worlds(a: argparse.Namespace) -> Iterator[World]:
    if not a.no_embedded:
        yield Embedded(a.out, a.device, a.dtype, a.few)
    for folder in a.world:
        yield Drawn(folder, a.out, a.device, a.dtype, a.few)
    if a.model:
        clip, dino = Clip.load(a.clip_model, a.clip_weights), Dino.load(a.dino) if a.dino else None
        yield Photographed(a.model, a.photographs, clip, dino, a.device, a.dtype, a.few)


def measured(
    world: World, arm: Arm, concept: Concept, seed: int, records: Records, a: argparse.Namespace
) -> Iterator[Record]:
    """The missing records of one run."""
    theirs = arm.kind == "diffusers"
    script = a.diffusers and Path(a.diffusers) / training.SCRIPT
    if theirs and not (script and script.is_file() and world.model.is_dir() and len(world.host.widths) == 1):
        return
    mark, marks = mark_of(world, arm, concept, seed), arm.marks or (training.images_of(arm, concept, seed),)
    if all(records.has(world.name, arm.name, images, concept.name, seed, mark) for images in marks):
        return
    folder = a.out / "words" / world.name / arm.name.replace(" ", "-") / f"{concept.name}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    trained = (
        training.theirs(arm, script, world, concept, seed, folder)
        if theirs
        else training.ours(arm, world.host, concept, seed, folder)
    )
    for word in trained:
        yield record_of(world, arm, concept, seed, word, mark)


def mark_of(world: World, arm: Arm, concept: Concept, seed: int) -> str:
    """The digest of all that an embedding of the arm depends on."""
    theirs = arm.kind == "diffusers"
    settings = dict(arm.options) if theirs else asdict(training.config_of(arm, concept, seed))
    return digest(settings | {"model": world.host.fingerprint, "init": concept.init, "few": world.few})


def record_of(world: World, arm: Arm, concept: Concept, seed: int, word: training.Trained, mark: str) -> Record:
    """What the pictures of an embedding show."""
    vectors = load_embedding(word.file).fitted_to(world.host.widths)
    figures = Figures.of({question.name: judged for question, judged in answers(world, concept, vectors)})
    norms = [float(v.norm(dim=-1).mean()) for v in vectors.values()]
    count = len(next(iter(vectors.values())))
    return Record(
        world.name, arm.name, concept.name, seed, word.images, figures.fidelity, figures.edit, figures.kept,
        sum(norms) / len(norms), count, word.seconds, figures.by_question, mark, figures.further,
    )  # fmt: skip


def line(record: Record) -> str:
    return (
        f"{record.world} {record.arm} {record.images}: {record.concept} {record.seed}  fidelity {record.fidelity:.2f}  "
        f"edit {record.edit:.2f}  kept {record.kept:.2f}  norm {record.norm:.2f}  {record.seconds:.1f} s"
    )


def show(records: Sequence[Record], ours: Mapping[str, Arm], wanted: str | None, folder: Path) -> None:
    """Prints the tables, with differences to the arm `wanted`; writes all as JSON, and a picture of each world without
    ablations."""
    order = list(ours)
    for world in dict.fromkeys(record.world for record in records):
        rows = tables.rows_of(records, world)
        ends = sorted(row for row in rows if row[0] == wanted)
        base = next((base for base in (*ends[-1:], *BASES) if base in rows), next(iter(rows)))
        styles = {record.concept for record in records if record.world == world and "shape" in record.by_question}
        print(f"\n## {world}: objects\n\n{tables.table(rows, order, base, lambda r: r.concept not in styles)}")  # noqa: B023
        if styles:
            print(f"\n## {world}: styles\n\n{tables.table(rows, order, base, lambda r: r.concept in styles)}")  # noqa: B023
        print(f"\n{tables.each_concept(rows, order)}")
        objects = tables.rows_of([record for record in records if record.concept not in styles] or records, world)
        whole = {row: found for row, found in objects.items() if row[0] in ours and ours[row[0]].kind != "ablation"}
        tables.picture(whole or objects, world).save(folder / f"quality-{world}.png")
    (folder / "quality.json").write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")


if __name__ == "__main__":
    main()
