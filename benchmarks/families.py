"""Whether an embedding trains in a model family: with its real weights, in ComfyUI without the server.

python benchmarks/families.py --comfyui ~/ComfyUI --checkpoint sd_xl_base.safetensors --images FOLDER --initial-text cat
python benchmarks/families.py --comfyui ~/ComfyUI --model flux1-dev.safetensors --clip clip_l.safetensors \\
    t5xxl_fp8_e4m3fn.safetensors --clip-type flux --vae ae.safetensors --images FOLDER --initial-text cat

ComfyUI's Python runs it. Names are those of ComfyUI's loader nodes; further flags are ComfyUI's own (--lowvram,
--base-directory ...). It trains at the defaults, and leaves in --out: the embedding; families.png, with the training
images, and of each prompt the image of the initial text and that of the embedding, from the same seed and settings;
families.json, with the figures. The exit code is 1 if the validation loss has not fallen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "comfyui")]

import torch  # noqa: E402
from inside import enter_comfyui, pack  # noqa: E402
from PIL import Image  # noqa: E402
from timing import peak_memory  # noqa: E402

PROMPTS = ("a photo of a *", "a photo of a * in the snow", "a painting of a *")
NAME = "families"


def arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--checkpoint", help="a checkpoint with all parts")
    parser.add_argument("--model", help="a diffusion model, with --clip, --clip-type and --vae")
    parser.add_argument("--clip", nargs="+", help="its text encoders")
    parser.add_argument("--clip-type", default="stable_diffusion", help="as in Load CLIP")
    parser.add_argument("--vae", help="a VAE instead of the checkpoint's")
    parser.add_argument("--images", type=Path, required=True, help="a folder with 3 to 5 images of one subject")
    parser.add_argument("--initial-text", required=True, help="what the images show, in a word")
    parser.add_argument("--out", type=Path, default=Path("families-out"))
    parser.add_argument("--preset", default="Balanced")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="with * for the embedding")
    for option in ("steps", "batch-size", "resolution", "seed"):
        parser.add_argument(f"--{option}", type=int)
    return parser.parse_known_args()


def main() -> int:
    a, flags = arguments()
    images, out = a.images.resolve(), a.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(a.comfyui)
    threads = torch.get_num_threads()
    enter_comfyui(*flags)
    torch.set_num_threads(threads)
    pack()
    from pack.ti_train.drawing.contact_sheet import contact_sheet
    from pack.ti_train.hosts.comfy.host import ComfyHost

    with torch.inference_mode():
        model, clip, vae = loaded(a, str(out))
    with torch.inference_mode(False):
        host = ComfyHost(model, clip, vae)
        print(f"{type(model.model).__name__}: {', '.join(host.widths)}; {host.device}", *host.remarks, sep="\n")
        figures, embedding, pictures = trained(a, host, images, out)
        rows, figures["largest difference of a pixel"] = sampled(a, host, embedding, pictures)
    figures |= {"model": type(model.model).__name__, "memory": peak_memory(host.device)}
    contact_sheet(rows, f"{figures['model']}: {a.initial_text}", cell=256).save(out / "families.png")
    (out / "families.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2), f"See {out / 'families.png'}.", sep="\n")
    before, after = figures["validation loss"]
    return int(not after < before)


def loaded(a: argparse.Namespace, embeddings: str) -> tuple[Any, Any, Any]:
    """The MODEL, the CLIP and the VAE, as ComfyUI's loader nodes give them. embeddings: the folder for prompts."""
    import comfy.sd
    import folder_paths

    import nodes

    def path(kind: str, name: str) -> str:
        return str(folder_paths.get_full_path_or_raise(kind, name))

    vae = nodes.VAELoader().load_vae(a.vae)[0] if a.vae else None
    if a.checkpoint:
        file = path("checkpoints", a.checkpoint)
        model, clip, own = comfy.sd.load_checkpoint_guess_config(file, embedding_directory=[embeddings])[:3]
        return model, clip, vae or own
    model = comfy.sd.load_diffusion_model(path("diffusion_models", a.model))
    files, kind = [path("text_encoders", name) for name in a.clip], getattr(comfy.sd.CLIPType, a.clip_type.upper())
    return model, comfy.sd.load_clip(files, embedding_directory=[embeddings], clip_type=kind), vae


def trained(a: argparse.Namespace, host: Any, folder: Path, out: Path) -> tuple[dict[str, Any], Any, list[Any]]:
    """The figures of a run, its embedding, and the images that it was trained on."""
    from pack.nodes.run import release
    from pack.ti_train.data.dataset import encode_pictures, find_pictures, read_pictures
    from pack.ti_train.events import Step, Warning
    from pack.ti_train.training.config import TrainConfig
    from pack.ti_train.training.session import Records, Session
    from pack.ti_train.training.sides import side_for

    given = {name: getattr(a, name) for name in ("steps", "batch_size", "resolution", "seed")}
    config = TrainConfig.from_preset(a.preset, name=NAME, init=a.initial_text, preview_every=0, **given)
    remarks: list[str] = []
    side = side_for(host, config, remarks)
    pictures = list(read_pictures(find_pictures(folder), side, remarks, unit=host.unit))
    print(*remarks, sep="\n")
    dataset = encode_pictures(host, pictures)
    session = Session(config, out, Records.beside_embedding(out, NAME))
    for event in session.train(host, dataset, release=release):
        if isinstance(event, Warning):
            print(event)
        elif isinstance(event, Step) and event.validation_loss is not None:
            print(
                f"step {event.step:5d}   validation loss {event.validation_loss:.4f}   {event.seconds:.0f} s",
                flush=True,
            )
    steps = session.steps
    spread = {encoder: host.vocabulary(encoder).spread for encoder in host.widths}
    vectors = session.done.embedding.vectors
    initial = {encoder: host.vocabulary(encoder).rows(a.initial_text)[-1:] for encoder in vectors}
    figures = {
        "validation loss": [steps[0].validation_loss, session.kept[1]],
        "kept step": session.kept[0],
        "steps": steps[-1].step,
        "seconds per step": round(steps[-1].seconds / steps[-1].step, 3),
        "moved, in spreads of the encoder's table": {
            encoder: round(float((v[:1].cpu() - initial[encoder].cpu()).abs().mean() / spread[encoder]), 3)
            for encoder, v in vectors.items()
        },
        "nearest words": {
            encoder: [
                text for text, _ in host.vocabulary(encoder).nearest(v[0].to(host.vocabulary(encoder).table.device))
            ]
            for encoder, v in vectors.items()
        },
    }
    return figures, session.done.embedding, [Image.fromarray(picture.pixels) for picture in pictures]


def sampled(a: argparse.Namespace, host: Any, embedding: Any, pictures: list[Any]) -> tuple[list[Any], int]:
    """Rows of images without and with the embedding, and how much they differ: 0 means that it has no effect."""
    from pack.ti_train.drawing.contact_sheet import Row
    from pack.ti_train.host import SampleRequest
    from pack.ti_train.prompts import parse
    from PIL import ImageChops

    own, side = host.sampling, a.resolution or host.resolution
    rows, largest = [Row("trained on", pictures[:4])], 0
    for text in a.prompts:
        images = []
        for prompt in ((text.replace("*", a.initial_text),), parse(text, ("*",))):
            request = SampleRequest(
                (prompt, prompt), (1, 2), side, side, own.steps, own.cfg, sampler=own.sampler, scheduler=own.scheduler
            )
            images.append(host.sample(request, {"*": embedding.vectors}))
        rows += [Row(text.replace("*", a.initial_text), images[0]), Row(text, images[1])]
        pairs = zip(*images, strict=True)
        largest = max(
            largest, *(high for one, two in pairs for _, high in ImageChops.difference(one, two).getextrema())
        )
    return rows, largest


if __name__ == "__main__":
    sys.exit(main())
