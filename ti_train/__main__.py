"""The command line: python -m ti_train {train,generate,evaluate,inspect,convert,merge,demo}."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .arguments import parser
from .clip import Clip, ClipJudge
from .config import TrainConfig
from .dataset import NO_REPEATS, Dataset, encode_pictures, find_pictures, read_pictures
from .describe import facts, neighbours
from .embedding import Embedding, merge
from .errors import UserError
from .evaluate import PAPER, Judge, Subject, evaluate, initial_words, training_pictures
from .export import export
from .files import file_name
from .formats import Reading, load_embedding, read_word
from .hosts.base import Host, SampleRequest, Vectors, Words
from .loop import Checkpoint, Done, Preview, Step, Warning, train
from .progress import ProgressBar, scores_of
from .prompts import Templates, parse
from .report import StepLog, loss_plot
from .samples import Sampling
from .scores import table, write_scores
from .start import starting_vectors

DEMO = Path(__file__).resolve().parent.parent / "demo"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    run = {"train": run_train, "generate": run_generate, "evaluate": run_evaluate, "inspect": run_inspect}
    run |= {"convert": run_convert, "merge": run_merge, "demo": run_demo}
    try:
        return run[arguments.command](arguments)
    except (UserError, OSError) as error:
        print(f"ti_train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def run_train(a: argparse.Namespace) -> int:
    from .hosts.diffusers import DiffusersHost

    if a.captions and a.templates:
        raise UserError("Give --captions or --templates, not both: a template with [filewords] uses the captions too.")
    templates = a.templates or {
        (True, False): "captions",
        (True, True): "style-captions",
        (False, True): "style",
    }.get((a.captions, a.style))
    config = TrainConfig.from_preset(
        a.preset or ("Style" if a.style else "Balanced"),
        name=a.name,
        init=a.init,
        steps=a.steps,
        learning_rate=learning_rate(a.lr),
        batch_size=a.batch_size,
        accumulation=a.accumulation,
        num_vectors=a.num_vectors,
        progressive_every=a.progressive,
        per_image_words=a.per_image_words,
        coarse_weight=a.coarse_weight,
        resolution=a.resolution,
        seed=a.seed,
        device=a.device,
        dtype=a.dtype,
        templates=templates,
        shuffle_tags=a.shuffle_tags,
        drop_tags=a.drop_tags,
        keep_tags=a.keep_tags,
        flip=a.flip,
        mask=a.mask,
        square=a.square,
        gradient_checkpointing=a.gradient_checkpointing,
        preview_prompts=tuple(dict.fromkeys(a.preview_prompt or ())) or None,
        preview_every=a.preview_every if a.preview_every is not None else (100 if a.preview_prompt else None),
    )
    target = a.out / f"{config.name}.safetensors"
    if target.exists() and not (a.resume or a.overwrite):
        raise UserError(f"'{target}' exists. Choose another --name, or give --resume to go on with it, or --overwrite.")
    repeats = folders(a.images)
    pictures = [picture for folder in repeats for picture in find_pictures(folder)]
    host = DiffusersHost.load(a.model, config.device, config.dtype, a.prediction_type)
    learn(host, pictures, config, a.out, a.resume, repeats)
    return 0


def folders(given: Sequence[str]) -> dict[Path, int]:
    """FOLDER or FOLDER:3, three times as often as the others.

    A folder's own name never says so: by kohya's 3_name a "2024_holiday" would come two thousand times.
    """
    repeats = {}
    for text in given:
        folder, _, times = text.rpartition(":")
        weighed = folder and times.isdecimal() and int(times) > 0 and not Path(text).is_dir()
        repeats[Path(folder if weighed else text)] = int(times) if weighed else 1
    return repeats


def learning_rate(text: str | None) -> float | str | None:
    """A plain number as a number, so that the preset's schedule applies to it; a list of rates is a schedule itself."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def learn(
    host: Host,
    pictures: Sequence[Path],
    config: TrainConfig,
    out: Path,
    resume: bool = False,
    repeats: Mapping[Path, int] = NO_REPEATS,
) -> Done:
    """Trains with a progress bar, a CSV, a loss plot and preview files; says what is kept when interrupted."""
    skipped: list[str] = []
    captions = Templates.load(config.templates).use_captions
    side = config.resolution or host.resolution
    read = read_pictures(pictures, side, skipped, captions, config.mask, config.square, repeats)
    dataset = encode_pictures(host, read, config.flip)
    for message in skipped:
        print(f"Warning: {message}", file=sys.stderr)
    print(
        f"Learning '{config.name}' from {len(dataset)} pictures of {shapes(dataset)} pixels: "
        f"{config.steps} steps of {config.effective_batch}."
    )
    log: StepLog | None = None
    bar = ProgressBar(config.steps)
    try:
        with closing(train(host, dataset, config, out, resume)) as events:
            for event in events:
                match event:
                    case Step():
                        log = log or StepLog(out / f"{config.name}.csv", event.step - 1)
                        log.add(event)
                        bar.show(event)
                    case Preview():
                        number = config.preview_prompts.index(event.prompt)
                        event.image.save(out / f"{config.name}-step{event.step:05d}-{number}.png")
                    case Warning():
                        bar.say(f"Warning: {event.message}")
                    case Done():
                        finished = event
                    case Checkpoint():
                        pass
    except KeyboardInterrupt:
        bar.end()
        kept = log.steps[-1].step if log and log.steps else 0
        print(
            f"Step {kept} is kept in {out / config.name}.safetensors; "
            "the same command with --resume goes on from there.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.end()
        if log:
            log.close()
            leave_plot(log, out / f"{config.name}-loss.png", config.name)
    print(f"Learnt '{config.name}' in {finished.seconds:.0f} s: {finished.path}")
    return finished


def shapes(dataset: Dataset) -> str:
    """The pictures' sizes as people write them, width first, the commonest first."""
    counted = Counter(picture.size.target for picture in dataset.pictures)
    return ", ".join(f"{width} x {height}" for (height, width), _ in counted.most_common())


def leave_plot(log: StepLog, path: Path, title: str) -> None:
    """Draws the loss; a disk that is full by now must not hide why the run ended."""
    try:
        loss_plot(log.steps, title).save(path)
    except OSError as error:
        print(f"Warning: {path} could not be written ({error.strerror or error}).", file=sys.stderr)


def run_generate(a: argparse.Namespace) -> int:
    from .hosts.diffusers import DiffusersHost

    files = sorted((DEMO / "words").glob("*.safetensors")) if a.demo and not a.embedding else a.embedding
    host = DiffusersHost.load(model_folder(a), a.device, prediction=a.prediction_type)
    words: Words = {file.stem: on_device(load_embedding(file), host) for file in files}
    prompt = parse(a.prompt, words)
    side = a.resolution or host.resolution
    a.out.mkdir(parents=True, exist_ok=True)
    for seed in range(a.seed, a.seed + a.number):
        request = SampleRequest((prompt,), (seed,), side, side, a.steps, a.guidance, parse(a.negative, words) or ("",))
        path = a.out / f"{file_name(a.prompt)}-{seed}.png"
        host.sample(request, words)[0].save(path)
        print(path)
    return 0


def model_folder(a: argparse.Namespace) -> Path:
    if a.model is None and not a.demo:
        raise UserError(
            "No model is given. Give --model with a checkpoint or folder, or --demo for the one that comes along."
        )
    return Path(a.model or DEMO / "model")


def run_evaluate(a: argparse.Namespace) -> int:
    from .hosts.diffusers import DiffusersHost
    from .hosts.diffusers_ddim import sample_with_ddim

    embeddings = {file.stem: load_embedding(file) for file in a.embedding}
    if len(embeddings) < len(a.embedding):
        raise UserError(
            "Two of the embedding files have the same name. Rename one, so that a table can tell them apart."
        )
    clip = None if a.demo else Clip.load(a.clip_model, a.clip_weights)
    files = find_pictures(a.images)
    host = DiffusersHost.load(model_folder(a), a.device, prediction=a.prediction_type)
    sample_with_ddim(host)
    sampling = Sampling(a.resolution or host.resolution, a.number, a.steps, a.guidance, a.seed, a.batch_size)
    warnings: list[str] = []
    pictures = training_pictures(files, sampling.side, warnings)
    judge: Judge
    if clip is None:
        from demo.judge import DrawnJudge

        judge = DrawnJudge.load(a.images, pictures)
        prompts = judge.prompts
    else:
        judge = ClipJudge(clip.to(host.device), pictures)
        prompts = PAPER["style" if a.style else "object"]
    prompts = prompts.with_edits(a.prompts) if a.prompts else prompts
    references = initial_words(embeddings.values(), a.init)
    if not references:
        warnings.append("No initial word is known for a reference; --init gives one.")
    for message in warnings:
        print(f"Warning: {message}", file=sys.stderr)
    samples = a.out / "samples"
    print(f"Sampling into {samples}. Stop when you like: the same command goes on where it was stopped.")
    subjects = [*references, *(Subject(name, on_device(embedding, host)) for name, embedding in embeddings.items())]
    scores = scores_of(evaluate(host, subjects, judge, prompts, sampling, samples))
    settings = {"judge": judge.name, "model": host.fingerprint, **asdict(sampling), "prompts": list(prompts)}
    print(table(scores))
    print(*write_scores(scores, settings, a.out), sep="\n")
    return 0


def on_device(embedding: Embedding, host: Host) -> Vectors:
    return {encoder: v.to(host.device) for encoder, v in embedding.fitted_to(host.widths).items()}


def run_inspect(a: argparse.Namespace) -> int:
    reading = read_word(a.file, a.second, a.word)
    found = facts(reading)
    if a.model:
        from .hosts.diffusers import DiffusersHost

        host = DiffusersHost.load(a.model, "cpu", "float32")
        fitted = reading.embedding.fitted_to(host.widths)
        for encoder, rows in fitted.items():
            own = encoder if encoder in found["encoders"] else next(iter(found["encoders"]))
            found["encoders"][own] |= neighbours(host.vocabulary(encoder), rows)
    if a.json:
        print(json.dumps(found, indent=2))
    else:
        print_indented(found)
    return 0


def print_indented(values: dict[str, Any], depth: int = 0) -> None:
    for key, value in values.items():
        print("  " * depth + f"{key}:" + ("" if isinstance(value, dict) else f" {value}"))
        if isinstance(value, dict):
            print_indented(value, depth + 1)


def run_convert(a: argparse.Namespace) -> int:
    *sources, out = a.files
    if not 1 <= len(sources) <= 2:
        raise UserError(
            "Give the file to read (two for Stable Diffusion XL in diffusers' layout) and the one to write."
        )
    return run_export(read_word(sources[0], sources[1] if len(sources) == 2 else None, a.word), out, a)


def run_merge(a: argparse.Namespace) -> int:
    *sources, out = a.files
    words = [load_embedding(source) for source in sources]
    return run_export(Reading(merge(words, a.how, a.weights or [1.0] * len(words), out.stem), "merged", {}), out, a)


def run_export(reading: Reading, out: Path, a: argparse.Namespace) -> int:
    scaled = replace(reading, embedding=reading.embedding.scaled(a.strength, a.norm))
    print("\n".join(export(scaled, out, a.to, a.dtype, a.name, a.overwrite)))
    return 0


def run_demo(a: argparse.Namespace) -> int:
    from demo.concepts import load
    from demo.showcase import show

    from .hosts.diffusers import DiffusersHost

    folder = DEMO / "concepts" / a.concept
    if not (folder / "concept.json").is_file():
        there = ", ".join(sorted(path.parent.name for path in (DEMO / "concepts").glob("*/concept.json")))
        raise UserError(f"There is no demo concept '{a.concept}'. There are: {there}.")
    concept = load(folder / "concept.json")
    host = DiffusersHost.load(DEMO / "model")
    preset = "Style" if concept.kind == "style" else "Balanced"
    config = TrainConfig.from_preset(preset, name=concept.name, init=concept.init)
    done = learn(host, find_pictures(folder), config, a.out)
    words = {
        file.stem: on_device(load_embedding(file), host) for file in sorted((DEMO / "words").glob("*.safetensors"))
    }
    kinds = {word: load(DEMO / "concepts" / word / "concept.json").kind for word in words}
    companion = next(word for word, kind in kinds.items() if kind == "object" and word != concept.name)
    start, _ = starting_vectors(host, config)
    result = show(host, concept, folder, start, on_device(done.embedding, host), companion, words)
    sheet = a.out / f"{concept.name}-sheet.png"
    result.sheet.save(sheet)
    print(f"Learnt: '{concept.name}' ({concept.kind}) from the pictures in {folder}; see {sheet}")
    print(
        f"How well: {result.after:.0%} of it is seen in new pictures, where its initial word '{concept.init}' shows "
        f"{result.before:.0%}; {result.edited:.0%} of the edits show (read from the pixels)."
    )
    example = "a heart in the style of *" if concept.kind == "style" else "a sketch of a *"
    print(
        f"How to use it: {sys.executable} -m ti_train generate --demo --embedding {done.path} "
        f'--prompt "{example}"; in ComfyUI or a WebUI, put a file learnt on your own model into embeddings/.'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
