"""Loading folders and checkpoint files: the same model, nothing from the network, and errors for people."""

from __future__ import annotations

import json
import re
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import tensors_of, write_checkpoint, write_configs
from tiny_host import dataset_of
from tiny_pipeline import write_pipeline

pytest.importorskip("diffusers")
pytest.importorskip("open_clip")

from diffusers import EulerDiscreteScheduler

from ti_train.__main__ import main
from ti_train.embedding import Embedding
from ti_train.errors import UserError
from ti_train.formats import save_embedding
from ti_train.host import SampleRequest
from ti_train.hosts.diffusers import checkpoint_file as diffusers_checkpoint
from ti_train.hosts.diffusers.checkpoint_file import CONFIGS
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.diffusers.loading import clip_tokenizer, load_pipeline, skeleton
from ti_train.hosts.diffusers.tensor_files import Placement
from ti_train.training.loop import train

KINDS = {
    "sd15": {"family": "sd1"},
    "sd21": {"family": "sd2"},
    "sd21-v": {"family": "sd2", "prediction": "v_prediction"},
    "sdxl": {"family": "sdxl"},
}

ON_CPU = Placement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small folder of each kind, with CLIP's whole vocabulary."""

    def folder(kind: str):
        tokenizers = [clip_tokenizer(place) for place in sorted((CONFIGS / kind).glob("tokenizer*"))]
        return write_pipeline(tmp_path_factory.mktemp(kind), tokenizers=tokenizers, **KINDS[kind])

    return {kind: folder(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def files(folders, tmp_path_factory):
    """The same weights as checkpoint files; that of v_prediction says so."""
    place = tmp_path_factory.mktemp("files")
    says = {"sd21-v": {"modelspec.prediction_type": "v"}}
    return {
        kind: write_checkpoint(place / f"{kind}.safetensors", folder, KINDS[kind]["family"], **says.get(kind, {}))
        for kind, folder in folders.items()
    }


@pytest.fixture(scope="module")
def small_configs(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("configs")
    for kind, folder in folders.items():
        write_configs(root, kind, folder)
    return root


@pytest.fixture
def _small(small_configs, monkeypatch):
    """Files are told and loaded by the small models' shapes."""
    monkeypatch.setattr(diffusers_checkpoint, "CONFIGS", small_configs)


@pytest.fixture
def attempts(monkeypatch):
    """Tries to reach the network, each of them refused."""
    from huggingface_hub import constants

    made = []

    def refuse(*address, **_):
        made.append(address)
        raise OSError("the network is refused")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return made


# --- Files ----------------------------------------------------------------------


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_trains_to_the_bit_as_the_folder_of_the_same_weights(
    kind, files, folders, attempts, pictures, settings, tmp_path
):
    file, folder = (DiffusersHost.load(source[kind], "cpu", "float32") for source in (files, folders))
    assert attempts == []
    assert (file.fingerprint, file.prediction, file.widths) == (folder.fingerprint, folder.prediction, folder.widths)
    for ours, theirs in zip(parts_of(file), parts_of(folder), strict=True):
        assert equal(ours.state_dict(), theirs.state_dict())
    for name, host in (("file", file), ("folder", folder)):
        list(train(host, dataset_of(host, pictures), settings(init="cat", steps=3), tmp_path / name))
    assert equal(*(load_file(tmp_path / name / "my-toy.safetensors") for name in ("file", "folder")))


def parts_of(host) -> tuple:
    return (host.unet, host.vae, *host.text_encoders)


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(usual(tensor), usual(theirs[name])) for name, tensor in ours.items()
    )


def usual(weight: torch.Tensor) -> torch.Tensor:
    """In the usual layout, which convolutions are packed out of."""
    return weight.to_dense() if weight.is_mkldnn else weight


@pytest.mark.usefixtures("_small")
def test_a_file_samples_as_its_folder_with_the_schedule_of_the_shipped_configuration(files, folders):
    file, folder = (DiffusersHost.load(source["sdxl"], "cpu", "float32") for source in (files, folders))
    assert type(file.pipeline.scheduler) is EulerDiscreteScheduler
    folder.pipeline.scheduler = EulerDiscreteScheduler.from_config(folder.pipeline.scheduler.config)
    request = SampleRequest((("a photo of a cat",),), (3,), 16, 16, 2)
    ours, theirs = (host.sample(request, {})[0] for host in (file, folder))
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_file_in_half_precision_is_loaded_as_it_is(kind, folders, tmp_path):
    halves = {key: tensor.half() for key, tensor in tensors_of(folders[kind], KINDS[kind]["family"]).items()}
    save_file({key: tensor.contiguous() for key, tensor in halves.items()}, tmp_path / "half.safetensors")
    half = DiffusersHost.load(tmp_path / "half.safetensors", "cpu", "float32")
    whole = DiffusersHost.load(folders[kind], "cpu", "float32")
    for ours, theirs in zip(parts_of(half), parts_of(whole), strict=True):
        assert equal(dict(ours.named_parameters()), {n: usual(p).half().float() for n, p in theirs.named_parameters()})


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("kind", "asked", "prediction"),
    [
        ("sd15", None, "eps"),
        ("sd15", "v_prediction", "v"),
        ("sd21", None, "eps"),
        ("sd21-v", None, "v"),
        ("sd21-v", "epsilon", "eps"),
        ("sdxl", "v_prediction", "v"),
    ],
)
def test_what_is_asked_for_overrules_what_the_model_says_of_its_prediction(kind, asked, prediction, files, folders):
    for source in (files[kind], folders[kind]):
        assert DiffusersHost.load(source, "cpu", "float32", asked).prediction == prediction


def renamed(pattern: str, to: str):
    return lambda tensors, _: {re.sub(pattern, to, key): tensor for key, tensor in tensors.items()}


def as_transformers(part: str, prefix: str):
    """The weights of a text encoder by the names of the transformers library."""

    def change(tensors, folder):
        (file,) = (folder / part).glob("*.safetensors")
        others = {
            key: tensor
            for key, tensor in tensors.items()
            if not re.match(r"cond_stage|conditioner\.embedders\.1\.", key)
        }
        return others | {prefix + key: tensor for key, tensor in load_file(file).items()}

    return change


def with_linear_projection(tensors, _):
    projection = "conditioner.embedders.1.model.text_projection"
    others = {key: tensor for key, tensor in tensors.items() if key != projection}
    return others | {projection + ".weight": tensors[projection].T}


LAYOUTS = {
    "without text_model.": ("sd15", renamed(r"\.text_model\.", ".")),
    "without text_model., XL": ("sdxl", renamed(r"\.text_model\.", ".")),
    "SD Turbo": ("sd21", renamed(r"^cond_stage_model\.", "conditioner.embedders.0.")),
    "transformers' keys": ("sd21", as_transformers("text_encoder", "cond_stage_model.transformer.")),
    "transformers' keys of the second": ("sdxl", as_transformers("text_encoder_2", "conditioner.embedders.1.model.")),
    "a linear projection": ("sdxl", with_linear_projection),
    "below model.": ("sd15", renamed("^", "model.")),
    "below state_dict.": ("sdxl", renamed("^", "state_dict.")),
    "below both": ("sd21", renamed("^", "state_dict.model.")),
    "below a name of its own": ("sdxl", renamed("^", "pipeline.net.")),
    "vae.": ("sd15", renamed(r"^first_stage_model\.", "vae.")),
}


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_other_tools_are_the_same_model(layout, folders, tmp_path):
    kind, change = LAYOUTS[layout]
    tensors = change(tensors_of(folders[kind], KINDS[kind]["family"]), folders[kind])
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "other.safetensors")
    file, folder = (DiffusersHost.load(p, "cpu", "float32") for p in (tmp_path / "other.safetensors", folders[kind]))
    for ours, theirs in zip(parts_of(file), parts_of(folder), strict=True):
        assert equal(ours.state_dict(), theirs.state_dict())


@pytest.mark.usefixtures("_small")
def test_marks_of_zero_terminal_snr_reach_the_noise_levels(folders, tmp_path):
    marks = {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}
    save_file(
        {key: tensor.contiguous() for key, tensor in (tensors_of(folders["sdxl"], "sdxl") | marks).items()},
        tmp_path / "noob.safetensors",
    )
    host = DiffusersHost.load(tmp_path / "noob.safetensors", "cpu", "float32")
    assert host.prediction == "v"
    assert host.sigmas[-1] == pytest.approx(2**12, rel=1e-3)  # pure noise, where 14.6 is usual
    assert host.pipeline.scheduler.config.timestep_spacing == "trailing"


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda key: None if ".middle_block." in key else key, r"its unet lacks \d+ .*\.middle_block\."),
        (lambda key: None if ".resblocks.1." in key else key, r"its text_encoder_2 lacks \d+ .*\.resblocks\.1\."),
        (lambda key: None if ".decoder.mid." in key else key, r"its vae lacks \d+ .*\.decoder\.mid\."),
        (lambda key: None if key.endswith("1.model.text_projection") else key, r"lacks 1 .*text_encoder_2.text_proj"),
        (
            lambda key: key.replace("time_embed.0", "time_embed.9"),
            r"lacks 2 .*embed\.0.* and has 2 .*embed\.9.* too",
        ),
    ],
    ids=["U-Net", "text encoder", "VAE", "projection", "renamed"],
)
def test_a_model_that_lacks_weights_is_not_filled_up_with_random_ones(change, why, folders, tmp_path):
    tensors = tensors_of(folders["sdxl"], "sdxl")
    kept = {change(key): tensor.contiguous() for key, tensor in tensors.items() if change(key)}
    save_file(kept, tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=why):
        DiffusersHost.load(tmp_path / "cut.safetensors", "cpu", "float32")


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda name, _: {}, "lacks 1 tensor"),
        (lambda name, tensor: {name + "_": tensor}, "lacks 1 tensor"),
        (lambda name, _: {name: torch.tensor(0.0)}, "has 1 tensor.* of another shape"),
        (lambda name, tensor: {name: torch.cat([tensor, tensor[:1]])}, "has 1 tensor.* of another shape"),
    ],
    ids=["missing", "renamed", "a number", "longer"],
)
def test_whichever_weight_is_not_as_it_should_be_its_part_is_told(change, why, folders, tmp_path):
    tensors = {key: tensor.contiguous() for key, tensor in tensors_of(folders["sdxl"], "sdxl").items()}
    parts = {"conditioner.embedders.0": "text_encoder", "conditioner.embedders.1": "text_encoder_2"}
    parts |= {"first_stage_model": "vae", "model": "unet"}
    for name in list(tensors)[::13]:
        (part,) = (part for prefix, part in parts.items() if name.startswith(prefix + "."))
        others = {key: tensor for key, tensor in tensors.items() if key != name}
        save_file(others | change(name, tensors[name]), tmp_path / "odd.safetensors")
        with pytest.raises(UserError, match=rf"odd\.safetensors' .*: its {part} {why}"):
            load_pipeline(tmp_path / "odd.safetensors", None, ON_CPU)


@pytest.mark.usefixtures("_small")
def test_a_u_net_with_more_weights_is_another_model(folders, tmp_path):
    tensors = tensors_of(folders["sd15"], "sd1") | {"model.diffusion_model.motion.weight": torch.zeros(7)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "more.safetensors")
    with pytest.raises(UserError, match=r"Stable Diffusion 1, .* its unet has 1 tensor.*motion.weight\) too many"):
        DiffusersHost.load(tmp_path / "more.safetensors", "cpu", "float32")


@pytest.mark.usefixtures("_small")
def test_weights_of_another_shape_are_told(folders, tmp_path):
    tensors = tensors_of(folders["sd15"], "sd1")
    tensors["model.diffusion_model.out.2.weight"] = torch.zeros(4, 32, 9, 1)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match=r"odd.safetensors' .*has 1 tensor.*out\.2\.weight\) of another shape"):
        DiffusersHost.load(tmp_path / "odd.safetensors", "cpu", "float32")


@pytest.mark.usefixtures("_small")
def test_the_command_line_takes_a_file(files, pictures, tmp_path, capsys):
    """Of Stable Diffusion XL: a word is learnt, looked at and sampled."""
    file, word = str(files["sdxl"]), str(tmp_path / "my-toy.safetensors")
    device = ["--device", "cpu"]
    training = ["--images", str(pictures), "--name", "my-toy", "--init", "toy", "--steps", "2", "--batch-size", "2"]
    assert main(["train", "--model", file, "--out", str(tmp_path), *training, *device, "--dtype", "float32"]) == 0
    assert {name: tuple(v.shape) for name, v in load_file(word).items()} == {"clip_l": (1, 32), "clip_g": (1, 48)}
    capsys.readouterr()
    assert main(["inspect", word, "--model", file, "--json"]) == 0
    encoders = json.loads(capsys.readouterr().out)["encoders"]
    assert {name: len(found["nearest words"]) for name, found in encoders.items()} == {"clip_l": 1, "clip_g": 1}
    sampling = ["--prompt", "a *", "--embedding", word, "--steps", "2", "--number", "1", "--out", str(tmp_path / "out")]
    assert main(["generate", "--model", file, *sampling, *device, "--prediction-type", "v_prediction"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a-0.png"]


@pytest.mark.parametrize("command", ["train", "generate", "inspect"])
def test_the_command_line_says_what_a_file_is_that_is_no_model(command, pictures, tmp_path, capsys):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1)}, tmp_path / "style.safetensors")
    save_file({"emb_params": torch.zeros(1, 32)}, tmp_path / "word.safetensors")
    rest = {
        "train": ["--images", str(pictures), "--name", "w", "--init", "toy", "--out", str(tmp_path)],
        "generate": ["--prompt", "a cat"],
        "inspect": [str(tmp_path / "word.safetensors")],
    }[command]
    assert main([command, "--model", str(tmp_path / "style.safetensors"), *rest]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "style.safetensors' looks like a LoRA. This needs a complete Stable Diffusion 1, 2 or XL model" in line


# --- CLIP's vocabulary ----------------------------------------------------------


def test_the_vocabulary_is_that_of_open_clips_own_tokenizer():
    from open_clip.tokenizer import SimpleTokenizer

    ours, theirs = clip_tokenizer(CONFIGS / "sd15" / "tokenizer"), SimpleTokenizer()
    assert (len(ours), ours.bos_token_id, ours.eos_token_id) == (49408, 49406, 49407)
    for text in ("a photo of a cat", "Katzenfüße 猫 🐈, isn't it?", "  MANY   words\n\there 1234 <|endoftext|"):
        assert ours(text, add_special_tokens=False).input_ids == theirs.encode(text)


def test_each_encoder_has_its_own_padding():
    padding = {
        (kind, place.name): clip_tokenizer(place).pad_token_id
        for kind in KINDS
        for place in (CONFIGS / kind).glob("tokenizer*")
    }
    assert padding == {
        ("sd15", "tokenizer"): 49407, ("sd21", "tokenizer"): 0, ("sd21-v", "tokenizer"): 0,
        ("sdxl", "tokenizer"): 49407, ("sdxl", "tokenizer_2"): 0,
    }  # fmt: skip


# --- The shipped configurations -------------------------------------------------

PUBLISHED = {  # numbers of weights: the U-Net, the VAE, the text encoders
    "sd15": (859_520_964, 83_653_863, 123_060_480),
    "sd21": (865_910_724, 83_653_863, 340_387_840),
    "sd21-v": (865_910_724, 83_653_863, 340_387_840),
    "sdxl": (2_567_463_684, 83_653_863, 123_060_480, 694_659_840),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_shipped_configuration_has_the_published_models_size(kind):
    index = json.loads((CONFIGS / kind / "model_index.json").read_text())
    parts = [part for part in ("unet", "vae", "text_encoder", "text_encoder_2") if part in index]
    modules = [skeleton(CONFIGS / kind / part, *index[part]) for part in parts]
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in modules]
    assert tuple(counts) == PUBLISHED[kind]


# --- Folders -------------------------------------------------------------------


# --- Folders --------------------------------------------------------------------


def test_a_folder_of_half_precision_alone_is_loaded(own_pipeline):
    """As `save_pretrained(variant="fp16")` leaves it, and as hubs offer it beside the whole."""
    whole = DiffusersHost.load(own_pipeline, "cpu", "float32")
    for file in list(own_pipeline.rglob("*.safetensors")):
        halves = {name: tensor.half() for name, tensor in load_file(file).items()}
        file.unlink()
        save_file(halves, file.with_name(f"{file.stem}.fp16.safetensors"), {"format": "pt"})
    half = DiffusersHost.load(own_pipeline, "cpu", "float32")
    for ours, theirs in zip(parts_of(half), parts_of(whole), strict=True):
        assert equal(
            ours.state_dict(),
            {n: usual(t).half().float() if t.is_floating_point() else t for n, t in theirs.state_dict().items()},
        )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"epsilon"', '"sample"', "DDIMScheduler, predicts 'sample'; supported are epsilon, v_prediction"),
        ("DDIMScheduler", "EDMEulerScheduler", "EDMEulerScheduler, predicts .*table of noise levels"),
    ],
)
def test_a_scheduler_of_another_kind_is_refused(own_pipeline, old, new, why):
    for config in (own_pipeline / "scheduler" / "scheduler_config.json", own_pipeline / "model_index.json"):
        config.write_text(config.read_text().replace(old, new))
    with pytest.raises(UserError, match=why):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


def test_a_word_of_stable_diffusion_1_is_no_start_on_xl(pipelines, pictures, settings, tmp_path):
    save_embedding(Embedding("cat", {"clip_l": torch.ones(1, 32)}), tmp_path / "cat.safetensors")
    host = DiffusersHost.load(pipelines(family="sdxl"), "cpu", "float32")
    run = train(host, dataset_of(host, pictures), settings(init=str(tmp_path / "cat.safetensors")), tmp_path)
    with pytest.raises(UserError, match=r"width 32, but the model's text encoder needs 32 \(clip_l\) \+ 48 \(clip_g\)"):
        next(run)
