"""The command line: python -m ti_train {train,generate,inspect,demo}."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from . import __version__
from .config import PRESETS, TrainConfig
from .dataset import encode_pictures, find_pictures, read_pictures
from .embedding import Embedding
from .errors import UserError
from .formats import config_of, layout_of, load_embedding
from .hosts.base import Host, SampleRequest, Vectors, Words
from .loop import Checkpoint, Done, Preview, Step, Warning, train
from .progress import ProgressBar
from .prompts import BUILT_IN, parse
from .report import StepLog, loss_plot

DEMO = Path(__file__).resolve().parent.parent / "demo"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except UserError as error:
        print(f"ti_train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m ti_train",
        description="Teaches a text-to-image model a new word from 3 to 5 pictures (textual inversion). "
        "The model itself stays as it is.",
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="{train,generate,inspect,demo}")
    _add_train(commands)
    _add_generate(commands)
    _add_inspect(commands)
    demo = commands.add_parser("demo", help="learn a word on the model that comes along, in about a minute")
    demo.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for the results (default: %(default)s)"
    )
    demo.add_argument("--concept", default="teal-heart", help="a folder of demo/concepts (default: %(default)s)")
    demo.set_defaults(run=run_demo)
    return top


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    balanced = TrainConfig(name="x", init="x")
    command = commands.add_parser("train", help="learn a word from a folder of pictures")
    command.set_defaults(run=run_train)
    add = command.add_argument
    add("--model", type=Path, required=True, help="Stable Diffusion 1 or 2 folder in diffusers' layout")
    add("--images", type=Path, required=True, help="folder with the training pictures; 3 to 5 are best")
    add("--name", required=True, help="the word's name, which is its file's name too, such as my-cat")
    add(
        "--init",
        required=True,
        help='what the pictures show in a word or two ("cat"), or a .safetensors to go on from',
    )
    add(
        "--preset",
        default="Balanced",
        choices=PRESETS,
        help="values of all settings that are not given (default: %(default)s)",
    )
    add("--steps", type=int, help=f"updates of the word (Balanced: {balanced.steps})")
    add(
        "--lr",
        help=f'learning rate, or rates with their last steps "5e-3:100, 1e-3" (Balanced: {balanced.learning_rate})',
    )
    add("--batch-size", type=int, help=f"pictures a step (Balanced: {balanced.batch_size})")
    add("--accumulation", type=int, help="passes a step, where the memory does not hold a batch (default: 1)")
    add("--num-vectors", type=int, help="vectors of the word; more copy more and edit worse (default: 1)")
    add(
        "--resolution",
        type=int,
        help="side in pixels that pictures are cropped and scaled to (default: the model's own)",
    )
    add("--seed", type=int, help="another seed gives another, equally good word (default: 0)")
    add("--device", default="auto", help="auto, cuda, mps, xpu or cpu (default: %(default)s)")
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="(default: what is fastest here)",
    )
    add("--templates", help=f"{', '.join(BUILT_IN)}, or a text file with a template a line (default: object)")
    add("--captions", action="store_true", help="use the .txt file beside each picture in its prompts")
    add("--style", action="store_true", help="learn a style instead of an object")
    add(
        "--flip",
        action="store_true",
        default=None,
        help="train on mirrored copies too; not for what has a left and a right",
    )
    add(
        "--gradient-checkpointing",
        action="store_true",
        default=None,
        help="less memory for a third more time",
    )
    add(
        "--preview-prompt",
        action="append",
        metavar="PROMPT",
        help="sampled while training; * is the word (repeatable)",
    )
    add("--preview-every", type=int, metavar="N", help="steps between previews (default: 0, none)")
    add("--resume", action="store_true", help="go on with the interrupted run of this name")
    add("--overwrite", action="store_true", help="replace a finished word of this name")
    add("--out", type=Path, default=Path("."), help="folder for the results (default: this one)")


def _add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("generate", help="sample pictures with learnt words")
    command.set_defaults(run=run_generate)
    add = command.add_argument
    add("--model", type=Path, help="Stable Diffusion 1 or 2 folder in diffusers' layout")
    add("--demo", action="store_true", help="the model and the words that come along")
    add("--embedding", type=Path, action="append", default=[], help="a learnt word (repeatable)")
    add("--prompt", required=True, help="a word is written <its-file-name>, and * when it is the only one")
    add("--negative", default="", help="what the pictures should not show")
    add("--number", type=int, default=4, help="pictures (default: %(default)s)")
    add("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    add("--guidance", type=float, default=5.0, help="classifier-free guidance (default: %(default)s)")
    add("--resolution", type=int, default=0, help="side in pixels (default: the model's own)")
    add("--seed", type=int, default=0, help="of the first picture (default: %(default)s)")
    add("--device", default="auto", help="auto, cuda, mps, xpu or cpu (default: %(default)s)")
    add("--out", type=Path, default=Path("."), help="folder for the pictures (default: this one)")


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("inspect", help="say what an embedding file holds")
    command.set_defaults(run=run_inspect)
    command.add_argument("file", type=Path, help="a .safetensors embedding")
    command.add_argument("--model", type=Path, help="also compare it with this model's vocabulary")
    command.add_argument("--json", action="store_true", help="print JSON")


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
        a.preset,
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
        gradient_checkpointing=a.gradient_checkpointing,
        preview_prompts=tuple(a.preview_prompt) if a.preview_prompt else None,
        preview_every=a.preview_every if a.preview_every is not None else (100 if a.preview_prompt else None),
    )
    target = a.out / f"{config.name}.safetensors"
    if target.exists() and not (a.resume or a.overwrite):
        raise UserError(f"'{target}' exists. Choose another --name, or give --resume to go on with it, or --overwrite.")
    pictures = find_pictures(a.images)
    host = DiffusersHost.load(a.model, config.device, config.dtype)
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
    wants_captions = config.templates not in ("object", "style")
    read = read_pictures(pictures, config.resolution or host.resolution, skipped, wants_captions)
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
            loss_plot(log.steps, config.name).save(out / f"{config.name}-loss.png")
    print(f"Learnt '{config.name}' in {finished.seconds:.0f} s: {finished.path}")
    return finished


def run_generate(a: argparse.Namespace) -> int:
    from .hosts.diffusers import DiffusersHost

    files = sorted((DEMO / "words").glob("*.safetensors")) if a.demo and not a.embedding else a.embedding
    model = DEMO / "model" if a.demo and a.model is None else a.model
    if model is None:
        raise UserError("No model is given. Give --model FOLDER, or --demo for the one that comes along.")
    host = DiffusersHost.load(model, a.device)
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
    from demo.showcase import showcase

    return int(showcase(a.concept, a.out))


if __name__ == "__main__":
    sys.exit(main())
