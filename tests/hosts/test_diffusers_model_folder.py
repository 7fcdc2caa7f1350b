"""Model folders: what is refused before it is loaded, and where libraries of other versions keep the weights."""

from __future__ import annotations

import json
import shutil
from inspect import signature

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")

from ti_train.errors import UserError
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.diffusers.model_folder import ModelFolder

# --- What is refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda folder: None, "' does not exist"),
        (lambda folder: folder.mkdir(), "is not a model folder: it has no model_index.json"),
    ],
)
def test_what_is_no_model_folder_is_refused(tmp_path, write, why):
    write(tmp_path / "model")
    with pytest.raises(UserError, match=f"{why}.*Stable Diffusion 1, 2 or XL model"):
        DiffusersHost.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ("{", "model_index.json' cannot be read"),
        ("[]", "model_index.json' cannot be read"),
        ("\xff", "model_index.json' cannot be read"),
        ("{}", "is a None; supported are StableDiffusionPipeline and StableDiffusionXLPipeline"),
        (json.dumps({"_class_name": "FluxPipeline"}), "is a FluxPipeline; supported are"),
        (json.dumps({"_class_name": ["code", "Pipeline"]}), r"is a \['code', 'Pipeline'\]; supported are"),
    ],
)
def test_a_folder_of_another_kind_is_refused_before_anything_is_loaded(tmp_path, index, why):
    (tmp_path / "model_index.json").write_bytes(index.encode("latin-1"))
    with pytest.raises(UserError, match=why):
        ModelFolder.read(tmp_path)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae", "tokenizer", "scheduler"])
def test_a_folder_that_lacks_a_part_is_refused(own_pipeline, part):
    shutil.rmtree(own_pipeline / part)
    with pytest.raises(UserError, match=f"own-model.*{part}"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


@pytest.mark.parametrize("place", ["scheduler", "unet/more", "."])
def test_a_folder_with_code_is_refused_and_none_of_it_is_run(own_pipeline, tmp_path, place):
    """diffusers 0.28 runs what model_index.json names in a part's folder."""
    code = own_pipeline / place / "code.py"
    code.parent.mkdir(exist_ok=True)
    code.write_text(
        f"open({str(tmp_path / 'was-run')!r}, 'w')\nfrom diffusers import DDIMScheduler\n", encoding="utf-8"
    )
    index = own_pipeline / "model_index.json"
    changed = json.loads(index.read_text(encoding="utf-8")) | {"scheduler": ["code", "DDIMScheduler"]}
    index.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(UserError, match="has Python code in it"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_a_folder_of_xl_needs_both_encoders(pipelines, tmp_path, part):
    folder = shutil.copytree(pipelines(family="sdxl"), tmp_path / "own-model")
    shutil.rmtree(folder / part)
    with pytest.raises(UserError, match=f"lacks {part}"):
        DiffusersHost.load(folder, "cpu", "float32")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b""], ids=["half", "empty"])
def test_damaged_weights_are_refused(own_pipeline, part, damage):
    (file,) = (own_pipeline / part).glob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"model folder '.*' cannot be loaded"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_pickled_weights_are_not_read(own_pipeline, part, tmp_path):
    (file,) = (own_pipeline / part).glob("*.safetensors")
    file.unlink()
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(Trap(tmp_path / "sprung"), own_pipeline / part / name)
    with pytest.raises(UserError, match=rf"own-model' has its {part} as a pickle \(.bin\), which can run code"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_part_without_weights_is_refused(own_pipeline):
    (file,) = (own_pipeline / "vae").glob("*.safetensors")
    file.unlink()
    with pytest.raises(UserError, match=r"own-model' has no weights in 'vae'\. Copy the model folder again"):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


@pytest.mark.parametrize("described", [["os", "system"], ["transformers", "GPT2Model"], ["x", 1], None])
def test_a_part_of_another_kind_is_refused_and_its_class_is_not_looked_up(own_pipeline, described):
    index = own_pipeline / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"text_encoder": described}))
    with pytest.raises(UserError, match=r"as its text_encoder; supported are CLIPTextModel"):
        ModelFolder.read(own_pipeline)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda name, tensor: {}, r"lacks 1 tensor\(s\) \(conv_in\.weight\)"),
        (lambda name, tensor: {name: tensor[:, :1]}, r"has 1 tensor\(s\) \(conv_in\.weight\) of another shape"),
    ],
    ids=["missing", "another shape"],
)
def test_weights_that_do_not_fit_the_configuration_are_named(own_pipeline, change, why):
    (file,) = (own_pipeline / "unet").glob("*.safetensors")
    tensors = load_file(file)
    first = tensors.pop("conv_in.weight")
    save_file({**tensors, **{k: t.contiguous() for k, t in change("conv_in.weight", first).items()}}, file)
    with pytest.raises(UserError, match=r"own-model' does not fit together: by its config\.json, its unet " + why):
        DiffusersHost.load(own_pipeline, "cpu", "float32")


# --- Where weights are ----------------------------------------------------------

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def in_old_names(name: str) -> str:
    """As the first folders on hubs have the VAE's attention."""
    for new, old in OLD_NAMES.items():
        name = name.replace(f"mid_block.attentions.0.{new}.", f"mid_block.attentions.0.{old}.")
    return name


def with_prefix(name: str) -> str:
    return name if name.startswith("text_model.") else "text_model." + name


SPELLINGS = {
    "the VAE's old attention": ("vae", in_old_names),
    "with text_model.": ("text_encoder", with_prefix),
    "without text_model.": ("text_encoder", lambda name: name.removeprefix("text_model.")),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_other_versions_of_the_libraries_are_the_same_model(own_pipeline, spelling):
    part, renamed = SPELLINGS[spelling]
    plain = DiffusersHost.load(own_pipeline, "cpu", "float32")
    (file,) = (own_pipeline / part).glob("*.safetensors")
    save_file({renamed(name): tensor for name, tensor in load_file(file).items()}, file)
    assert DiffusersHost.load(own_pipeline, "cpu", "float32").fingerprint == plain.fingerprint


def test_weights_in_several_files_are_the_same_model(own_pipeline):
    from diffusers import UNet2DConditionModel

    plain = DiffusersHost.load(own_pipeline, "cpu", "float32")
    if "max_shard_size" not in signature(UNet2DConditionModel.save_pretrained).parameters:
        pytest.skip("this diffusers writes one file, however large")
    unet = UNet2DConditionModel.from_pretrained(own_pipeline / "unet")
    shutil.rmtree(own_pipeline / "unet")
    unet.save_pretrained(own_pipeline / "unet", max_shard_size="100KB")
    assert len(ModelFolder.read(own_pipeline).weight_files("unet")) > 1
    assert DiffusersHost.load(own_pipeline, "cpu", "float32").fingerprint == plain.fingerprint


def test_files_of_half_precision_and_of_other_weights_are_left_beside_the_whole(own_pipeline):
    (file,) = (own_pipeline / "unet").glob("*.safetensors")
    others = [file.with_name(f"{file.stem}.{kind}.safetensors") for kind in ("fp16", "non_ema")]
    for other in others:
        save_file({"conv_in.weight": torch.zeros(1)}, other)
    assert ModelFolder.read(own_pipeline).weight_files("unet") == [file]
