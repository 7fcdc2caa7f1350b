"""What is looked at of a tiny model of a family, inside of ComfyUI's process. See tiny_families.py.

usage: family_checks.py FOLDER     reads lines "FAMILY [THE_CLIPS [THE_VAES]]", answers each with a line of JSON
"""

from __future__ import annotations

import json
import sys
import traceback
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from inside import batch, difference, enter_comfyui, gradient_of, loss_of, make_host, pack, same, state_of
from PIL import Image
from tiny_families import FAMILIES, draw, lacks

LEVELS = (0.3, 0.8)  # places in the table of noise levels
NAME = "word"
STEPS = (1e-2, 3e-2, 3e-3, 1e-3, 3e-4)  # of finite differences: rounding at the small, curvature at the large
CLOSE = 3e-3  # no other step is tried


def main(folder: str) -> None:
    enter_comfyui("--cpu")
    pack()
    import comfy.model_management as management

    for line in sys.stdin:
        try:
            found = looked_at(Path(folder) / line.strip().replace(" ", "-with-"), *line.split())
        except Exception:
            found = {"error": traceback.format_exc()[-4000:]}
        print("\n" + json.dumps(found), flush=True)
        management.unload_all_models()


def looked_at(folder: Path, family: str, of_clip: str = "", of_vae: str = "") -> dict[str, Any]:
    from pack.ti_train.errors import UserError

    if lacking := [name for name in (family, of_clip, of_vae) if name and lacks(name)]:
        return {"lacking": lacking}
    folder.mkdir(exist_ok=True)
    with torch.inference_mode():
        model, clip, vae = draw(family, [str(folder)])
        clip = draw(of_clip, [str(folder)])[1] if of_clip not in ("", family) else clip
        vae = draw(of_vae, [str(folder)])[2] if of_vae else vae
    # a node runs in inference mode, and Train Embedding leaves it
    with torch.inference_mode(), torch.inference_mode(False):
        try:
            return checks(model, clip, vae, folder, FAMILIES[family]().side)
        except UserError as error:
            return {"refused": str(error), "loading": loading(clip)}


def checks(model: Any, clip: Any, vae: Any, folder: Path, side: int) -> dict[str, Any]:
    from pack.ti_train.hosts.comfy.fitting import reads_guidance

    host = make_host(model, clip, vae)
    before = state_of(model, clip)
    data = fixed_batch(host, side)
    gradient = gradient_of(host, data)
    trained = train(host, folder, side)
    found = {
        "remarks": host.remarks,
        "prediction": host.prediction,
        "unit": host.unit,
        "resolution": host.resolution,
        "latents": host.latents(torch.zeros(1, 2 * side, side, 3, dtype=torch.uint8)).mean.shape[-2:],
        "odd": odd(host),
        "encoders": host.widths,
        "norms": {encoder: float(g.norm()) for encoder, g in gradient.items()},
        "finite_differences": {encoder: slope(host, data, encoder, g) for encoder, g in gradient.items()},
        "batch": difference(gradient, mean_of_singles(host, data)),
        "recomputed": recomputed(model),
        "checkpointed": difference(gradient_of(host, data, gradient_checkpointing=True), gradient),
        "sliced": difference(sliced(host, data), gradient),
        "start": start_is_text(host, clip),
        "text_states": text_states(host),
        "shifted": shifted(host, clip, vae, data, gradient) if host.prediction == "flow" else [],
        "guided": guided(host, data),
        "mistyped": [mistyped(preview_sampler="eulr"), mistyped(preview_scheduler="karas"), mistyped()],
        "reads guidance": reads_guidance(host.model.model),
        "last rows": [host.vocabulary(encoder).nearest(last_row(host, encoder))[0][1] for encoder in host.widths],
        "far": far(host, data),
        "part": part(clip, data["vectors"]),
        **trained,
        **conditionings(host, clip, folder),
        **in_nodes(clip, folder),
    }
    return found | {"untouched": same(before, state_of(model, clip))}


def loading(clip: Any) -> str:
    """The message of Load Embedding's CLIP, "" without one."""
    from pack.ti_train.errors import UserError
    from pack.ti_train.hosts.comfy.encoders import widths
    from pack.ti_train.hosts.comfy.placeholders import with_embeddings

    try:
        vectors = {encoder: torch.zeros(1, width) for encoder, width in widths(clip).items()}
        with_embeddings(clip, {"*": vectors}).tokenize("a photo of a *")
    except UserError as error:
        return str(error)
    return ""


def fixed_batch(host: Any, side: int) -> dict[str, Any]:
    """As for other checks, with vectors of the spread of each encoder's table."""
    shape = host.latents(torch.zeros(1, side, side, 3, dtype=torch.uint8)).mean.shape[1:]
    data = batch(host, shape)
    levels = [int(level * len(host.sigmas)) for level in LEVELS]
    spread = {encoder: host.vocabulary(encoder).rows("a photo of a toy").std() for encoder in host.widths}
    vectors = {encoder: spread[encoder] * v / v.std() for encoder, v in data["vectors"].items()}
    return data | {"sigma": host.sigmas[levels], "vectors": vectors}


def slope(host: Any, data: dict[str, Any], encoder: str, gradient: torch.Tensor) -> float:
    """How far central finite differences are from the gradient, relative to its length: the worst of its own direction
    and two random ones."""
    given = data["vectors"][encoder]
    generator = torch.Generator().manual_seed(1)
    directions = [gradient, *(torch.randn(given.shape, generator=generator) for _ in range(2))]
    worst = 0.0
    for direction in directions:
        unit = direction / direction.norm()
        expected, errors = float((gradient * unit).sum()), [inf]
        for size in STEPS:
            if min(errors) > CLOSE * float(gradient.norm()):
                quotient = difference_quotient(host, data, encoder, unit, size * float(given.norm()))
                errors.append(abs(quotient - expected))
        worst = max(worst, min(errors) / float(gradient.norm()))
    return worst


def difference_quotient(host: Any, data: dict[str, Any], encoder: str, unit: torch.Tensor, step: float) -> float:
    with torch.no_grad():
        up, down = (
            loss_of(host, data, data["vectors"] | {encoder: data["vectors"][encoder] + s * unit}).double()
            for s in (step, -step)
        )
    return float((up - down) / (2 * step))


def mean_of_singles(host: Any, data: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The gradient of a batch as the mean of its images' own."""
    singles = [
        gradient_of(host, {key: value if key == "vectors" else value[i : i + 1] for key, value in data.items()})
        for i in range(2)
    ]
    return {encoder: (singles[0][encoder] + singles[1][encoder]) / 2 for encoder in singles[0]}


def sliced(host: Any, data: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The gradient where so little memory is free that ComfyUI's attention takes the keys in slices."""
    import comfy.model_management as management

    def few(_: Any = None, torch_free_too: bool = False) -> Any:
        return (2**16, 2**16) if torch_free_too else 2**16

    with patch.object(management, "get_free_memory", few):
        return gradient_of(host, data)


def train(host: Any, folder: Path, side: int) -> dict[str, Any]:
    """A run of two steps with two previews: what it reports, and whether its file holds what it has trained."""
    from pack.nodes.files import Place
    from pack.nodes.run import run_training
    from pack.ti_train.data.dataset import encode_pictures
    from pack.ti_train.data.picture import Picture
    from pack.ti_train.formats import load_embedding
    from pack.ti_train.training.config import TrainConfig

    noise = torch.randint(0, 255, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = [Picture.cropped(str(i), Image.fromarray(p.numpy()), (side, side)) for i, p in enumerate(noise)]
    dataset = encode_pictures(host, pictures)
    config = TrainConfig(NAME, "toy", steps=2, batch_size=2, evaluate_every=1, preview_every=2, resolution=side)
    node = SimpleNamespace(unique_id="1")
    embedding, session, previews = run_training(host, dataset, config, Place(folder, config.name), node, {}, [])
    read = load_embedding(folder / f"{NAME}.safetensors").fitted_to(host.widths)
    start = {encoder: host.vocabulary(encoder).rows("toy")[-1:] for encoder in host.widths}
    spread = {encoder: host.vocabulary(encoder).spread for encoder in host.widths}
    moved = {encoder: (v - start[encoder]).abs().mean() / spread[encoder] for encoder, v in embedding.vectors.items()}
    return {
        "losses": [step.validation_loss for step in session.steps],
        "file": all(torch.equal(read[encoder], v) for encoder, v in embedding.vectors.items()),
        "moved": {encoder: float(share) for encoder, share in moved.items()},
        "previews": [[*image.size, len(image.getcolors(image.width * image.height) or [])] for image in previews],
    }


def shifted(host: Any, clip: Any, vae: Any, data: dict[str, Any], gradient: dict[str, torch.Tensor]) -> list[Any]:
    """With a node in front that shifts the noise levels: [whether the host has its table, which is another than the
    model's; the difference of the gradient at the same levels; whether it counts as another model; the
    difference of the gradient without the node again]."""
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux, ModelSamplingSD3

    own = host.model.get_model_object("model_sampling")
    if hasattr(own, "multiplier"):  # AuraFlow's node is this one with a multiplier of 1
        (model,) = ModelSamplingSD3().patch(host.model, 9.0, own.multiplier)
    else:
        (model,) = ModelSamplingFlux().patch(host.model, 3.0, 0.5, 1024, 1024)
    other = make_host(model, clip, vae)
    table = torch.equal(other.sigmas, model.get_model_object("model_sampling").sigmas)
    differs = not torch.allclose(other.sigmas, host.sigmas, rtol=0.01)
    found = [table and differs, difference(gradient_of(other, data), gradient), other.fingerprint != host.fingerprint]
    return [*found, difference(gradient_of(host, data), gradient)]


def guided(host: Any, data: dict[str, Any]) -> float:
    """By how much a guidance of 1, given to the model, changes the loss."""
    with torch.no_grad():
        plain = float(loss_of(host, data, data["vectors"]))
        with patch.object(host, "guidance", 1.0):
            changed = float(loss_of(host, data, data["vectors"]))
    return abs(changed - plain) / plain


def mistyped(**options: str) -> str:
    """What Train Embedding says of these Training Options."""
    from pack.nodes.train import config_from
    from pack.ti_train.errors import UserError

    try:
        config_from(NAME, "Balanced", {"initial_text": "toy", "learning_rate": 0.0}, options, False)
    except UserError as error:
        return str(error)
    return ""


def last_row(host: Any, encoder: str) -> torch.Tensor:
    """A row for which the tokenizer may have no token: tables are longer than vocabularies."""
    vocabulary = host.vocabulary(encoder)
    row: torch.Tensor = vocabulary.scale * vocabulary.table[-1].float()
    return row


def odd(host: Any) -> str:
    """What is said of a resolution that is 8 pixels more than one which the model takes."""
    from pack.ti_train.errors import UserError
    from pack.ti_train.training.config import TrainConfig
    from pack.ti_train.training.sides import side_for

    try:
        return str(side_for(host, TrainConfig(NAME, "toy", resolution=host.resolution + 8), []))
    except UserError as error:
        return str(error)


def far(host: Any, data: dict[str, Any]) -> str:
    """What is said of an embedding behind 400 words: "" where the encoders read that far."""
    from pack.ti_train.errors import UserError
    from pack.ti_train.host import Slot

    try:
        with torch.no_grad():
            host.encode([("red " * 400, Slot("*"))], {"*": data["vectors"]})
    except UserError as error:
        return str(error)
    return ""


def part(clip: Any, vectors: dict[str, torch.Tensor]) -> str:
    """The remark on an embedding with vectors for the first of several encoders only, with which a prompt is read."""
    from pack.ti_train.embedding import Embedding
    from pack.ti_train.hosts.comfy.encoders import widths
    from pack.ti_train.hosts.comfy.placeholders import with_embeddings

    first = next(iter(vectors))
    common, remark = Embedding("x", {first: vectors[first]}).part_for(widths(clip))
    encode(with_embeddings(clip, {"*": common}), "a photo of a *")
    return remark or ""


def recomputed(model: Any) -> int:
    """How many blocks backward computes again with gradient checkpointing."""
    from pack.ti_train.hosts.checkpointing import checkpointed

    network = model.model.diffusion_model
    with checkpointed(network):
        return sum("forward" in vars(module) for module in network.modules())


def start_is_text(host: Any, clip: Any) -> bool:
    """Whether the initial vectors of a text are what each encoder reads for its tokens within a prompt."""
    from pack.ti_train.hosts.comfy.encoders import encoders

    same_rows = []
    for name, encoder in encoders(clip).items():
        prompt, before = (encoder.tokenizer.tokenizer(f"a photo of a{end}")["input_ids"] for end in (" toy", ""))
        end = -1 if encoder.tokenizer.tokenizer_adds_end_token else None
        tokens = prompt[len(before[:end]) : end]
        read = encoder.table(torch.tensor(tokens), out_dtype=torch.float32)
        rows = host.vocabulary(name).rows("toy")
        same_rows.append(rows.shape == read.shape and torch.allclose(rows, read, rtol=1e-5))
    return all(same_rows)


def text_states(host: Any) -> dict[str, list[float]]:
    """Of each encoder: [how far the states of a slot with a text's own rows are from those of the text; how far the
    first state that depends on the vectors is from the first of the slot, which is 0 where tokens read backwards only].

    The first is -1 where the text has another number of tokens: language models have one for a space before a slot.
    """
    from pack.ti_train.host import Slot

    rows = {encoder: host.vocabulary(encoder).rows("toy") for encoder in host.widths}
    prompts = [("a photo of a ", Slot("*")), ("a photo of a toy",)]
    with host.training(), torch.no_grad():
        found = host.conditioning(prompts, {"*": rows})
        doubled = host.conditioning(prompts[:1], {"*": {encoder: 2 * v for encoder, v in rows.items()}})
    measured = {}
    for encoder, (slot, text) in found.items():
        same_length = slot.states.shape == text.states.shape
        far = float((slot.states - text.states).norm() / text.states.norm()) if same_length else -1.0
        changed = (slot.states != doubled[encoder][0].states).any(dim=-1).nonzero()
        measured[encoder] = [far, int(changed[0]) - (slot.after - len(rows[encoder]))]
    return measured


def conditionings(host: Any, clip: Any, folder: Path) -> dict[str, Any]:
    """Whether the file, called by the host's own syntax and by Load Embedding, gives the conditioning of training."""
    from pack.ti_train.formats import load_embedding
    from pack.ti_train.host import Slot
    from pack.ti_train.hosts.comfy.encoders import widths
    from pack.ti_train.hosts.comfy.placeholders import with_embeddings

    vectors = load_embedding(folder / f"{NAME}.safetensors").fitted_to(widths(clip))
    (trained,) = host.encode([("a photo of a ", Slot("*"), ", red")], {"*": vectors})
    loaded = encode(with_embeddings(clip, {"*": vectors}), "a photo of a *, red")
    own = encode(clip, f"a photo of a embedding:{NAME}, red")
    plain = encode(clip, "a photo of a toy, red")
    return {
        "loaded": equal(trained, loaded),
        "typed": equal(trained, own),
        "differs": not equal(trained, plain),
    }


def in_nodes(clip: Any, folder: Path) -> dict[str, Any]:
    """What Embedding Info, Merge Embeddings, Save Embedding and the page's list make of the file."""
    import folder_paths
    from pack.nodes.embeddings.info import EmbeddingInfo
    from pack.nodes.embeddings.merge import MergeEmbeddings
    from pack.nodes.embeddings.save import SaveEmbedding
    from pack.nodes.page.embeddings import listed
    from pack.ti_train.formats import load_embedding

    folder_paths.folder_names_and_paths["embeddings"] = ([str(folder)], folder_paths.supported_pt_extensions)
    file = f"{NAME}.safetensors"
    with torch.inference_mode():
        report = EmbeddingInfo.execute(clip, file).args[0]
        merged = MergeEmbeddings.execute(file, file, "concatenate", 1.0, 0.5).args[0]
        SaveEmbedding.execute(merged, "merged", "replace")
    saved, vectors = (load_embedding(folder / each).vectors for each in ("merged.safetensors", file))
    twice = {encoder: torch.cat([v, v / 2]) for encoder, v in vectors.items()}
    return {
        "report": report,
        "merged": saved.keys() == twice.keys() and all(torch.equal(saved[e], v) for e, v in twice.items()),
        "merged encodes": bool(encode(clip, "a photo of a embedding:merged, red")),
        "listed": sorted(each["file"] for each in listed()),
    }


def encode(clip: Any, text: str) -> dict[str, Any]:
    """As CLIP Text Encode does."""
    with torch.inference_mode():
        encoded = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True, return_dict=True)
    return {"cross_attn": encoded.pop("cond"), **encoded}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def tensors(conditioning: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {key: value for key, value in conditioning.items() if isinstance(value, torch.Tensor)}

    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


if __name__ == "__main__":
    main(*sys.argv[1:])
