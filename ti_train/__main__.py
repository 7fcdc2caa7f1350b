"""The command line: python -m ti_train {train,generate,inspect,demo}."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from .arguments import parser
from .config import TrainConfig
from .dataset import encode_pictures, find_pictures, read_pictures
from .embedding import Embedding
from .errors import UserError
from .formats import config_of, layout_of, load_embedding
from .hosts.base import Host, SampleRequest, Vectors, Words
from .loop import Checkpoint, Done, Preview, Step, Warning, starting_vectors, train
from .progress import ProgressBar
from .prompts import Templates, parse
from .report import StepLog, loss_plot

DEMO = Path(__file__).resolve().parent.parent / "demo"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    run = {"train": run_train, "generate": run_generate, "inspect": run_inspect, "demo": run_demo}
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
        resolution=a.resolution,
        seed=a.seed,
        device=a.device,
        dtype=a.dtype,
        templates=templates,
        flip=a.flip,
        mask=a.mask,
        gradient_checkpointing=a.gradient_checkpointing,
        preview_prompts=tuple(dict.fromkeys(a.preview_prompt or ())) or None,
        preview_every=a.preview_every if a.preview_every is not None else (100 if a.preview_prompt else None),
    )
    target = a.out / f"{config.name}.safetensors"
    if target.exists() and not (a.resume or a.overwrite):
        raise UserError(f"'{target}' exists. Choose another --name, or give --resume to go on with it, or --overwrite.")
    pictures = find_pictures(a.images)
    host = DiffusersHost.load(a.model, config.device, config.dtype, a.prediction_type)
    learn(host, pictures, config, a.out, a.resume)
    return 0


def learning_rate(text: str | None) -> float | str | None:
    """A plain number as a number, so that the preset's schedule applies to it; a list of rates is a schedule itself."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def learn(host: Host, pictures: Sequence[Path], config: TrainConfig, out: Path, resume: bool = False) -> Done:
    """Trains with a progress bar, a CSV, a loss plot and preview files; says what is kept when interrupted."""
    skipped: list[str] = []
    captions = Templates.load(config.templates).use_captions
    read = read_pictures(pictures, config.resolution or host.resolution, skipped, captions, config.mask)
    dataset = encode_pictures(host, read, config.flip)
    for message in skipped:
        print(f"Warning: {message}", file=sys.stderr)
    print(
        f"Learning '{config.name}' from {len(dataset)} pictures of {dataset.resolution} pixels: "
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


def leave_plot(log: StepLog, path: Path, title: str) -> None:
    """Draws the loss; a disk that is full by now must not hide why the run ended."""
    try:
        loss_plot(log.steps, title).save(path)
    except OSError as error:
        print(f"Warning: {path} could not be written ({error.strerror or error}).", file=sys.stderr)


def run_generate(a: argparse.Namespace) -> int:
    from .hosts.diffusers import DiffusersHost

    files = sorted((DEMO / "words").glob("*.safetensors")) if a.demo and not a.embedding else a.embedding
    model = DEMO / "model" if a.demo and a.model is None else a.model
    if model is None:
        raise UserError(
            "No model is given. Give --model with a checkpoint or folder, or --demo for the one that comes along."
        )
    host = DiffusersHost.load(model, a.device, prediction=a.prediction_type)
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


def on_device(embedding: Embedding, host: Host) -> Vectors:
    return {encoder: v.to(host.device) for encoder, v in embedding.fitted_to(host.widths).items()}


def file_name(prompt: str) -> str:
    """A prompt as a file name: its letters and digits, at most 60 of them."""
    words = "".join(c if c.isalnum() else " " for c in prompt).split()
    return "-".join(words)[:60] or "picture"


def run_inspect(a: argparse.Namespace) -> int:
    embedding = load_embedding(a.file)
    ((_, vectors),) = embedding.vectors.items()
    facts: dict[str, object] = {
        "name": embedding.name,
        "layout": layout_of(a.file),
        "vectors": embedding.num_vectors,
        "width": vectors.shape[1],
        "norms": [round(n, 4) for n in vectors.norm(dim=-1).tolist()],
    }
    if a.model:
        from .hosts.diffusers import DiffusersHost

        host = DiffusersHost.load(a.model, "cpu", "float32")
        for encoder, fitted in embedding.fitted_to(host.widths).items():
            vocabulary = host.vocabulary(encoder)
            facts["vocabulary norm (median)"] = round(float(vocabulary.norms.median()), 4)
            facts["nearest words"] = [[[w, round(s, 3)] for w, s in vocabulary.nearest(vector)] for vector in fitted]
    facts["provenance"] = {k: v for k, v in embedding.provenance.items() if k != "config"} | {
        "config": config_of(embedding)
    }
    if a.json:
        print(json.dumps(facts, indent=2))
        return 0
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, detail in value.items():
                print(f"  {inner}: {detail}")
        else:
            print(f"{key}: {value}")
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
    example = "a sketch of a *" if concept.kind == "object" else "a heart in the style of *"
    print(
        f"How to use it: {sys.executable} -m ti_train generate --demo --embedding {done.path} "
        f'--prompt "{example}"; in ComfyUI or a WebUI, put a file learnt on your own model into embeddings/.'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
