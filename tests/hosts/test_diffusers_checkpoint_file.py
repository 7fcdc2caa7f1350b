"""What a checkpoint file is told to be, by its header alone."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ti_train.errors import UserError
from ti_train.hosts.diffusers.checkpoint_file import FAMILIES, PREDICTION_WEIGHT, UNET, Checkpoint

ATTENTION = UNET + "input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
WIDTHS = {"sd15": 768, "sd21": 1024, "sdxl": 2048}


def torso(kind: str, channels: int = 4) -> dict[str, torch.Tensor]:
    """A tensor of each part of a model, with the shapes that tell its family."""
    parts = {prefix + "some.weight": torch.zeros(1) for prefix in FAMILIES[kind].prefixes.values()}
    first = 4 if kind == "sdxl" else 1
    return parts | {
        ATTENTION.format(first): torch.zeros(2, WIDTHS[kind]),
        UNET + "input_blocks.0.0.weight": torch.zeros(2, channels, 3, 3),
    }


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor], name: str = "m.safetensors", **metadata: str):
    save_file(tensors, folder / name, metadata or None)
    return Checkpoint.read(folder / name)


# --- Families -------------------------------------------------------------------


@pytest.mark.parametrize("kind", WIDTHS)
def test_a_family_is_told_by_the_text_that_its_unet_reads(kind, tmp_path):
    assert checkpoint(tmp_path, torso(kind)).kind == kind


@pytest.mark.parametrize("kind", WIDTHS)
def test_a_model_without_a_part_is_told(kind, tmp_path):
    for part, prefix in FAMILIES[kind].prefixes.items():
        if part != "unet":
            rest = {name: tensor for name, tensor in torso(kind).items() if not name.startswith(prefix)}
            with pytest.raises(UserError, match=f"looks like {FAMILIES[kind].name} without its {part}. This needs"):
                _ = checkpoint(tmp_path, rest).kind


OTHERS = {
    "a LoRA": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
    "a LoRA ": ["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight"],
    "a LoRA  ": ["lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a"],
    "a LoRA   ": ["base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"],
    r"an embedding": ["emb_params"],
    r"an embedding ": ["clip_l", "clip_g"],
    "a ControlNet": ["control_model.input_blocks.0.0.weight"],
    "a ControlNet ": ["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
    "Stable Diffusion 3": ["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"],
    "Flux": ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"],
    "a model of another family": [UNET + "blocks.0.attn.qkv.weight", "first_stage_model.encoder.conv_in.weight"],
    "a VAE": ["first_stage_model.encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight"],
    "a VAE ": ["encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.mid_block.resnets.0.conv1.weight"],
    "a VAE  ": ["encoder.down.0.block.0.conv1.weight", "decoder.mid.block_1.conv1.weight"],
    "a text encoder": ["text_model.encoder.layers.0.mlp.fc1.weight"],
    "a text encoder ": ["transformer.resblocks.0.attn.in_proj_weight"],
    "a text encoder  ": ["encoder.block.0.layer.0.SelfAttention.q.weight"],
    "a U-Net alone": ["down_blocks.0.resnets.0.conv1.weight", "mid_block.resnets.0.conv1.weight"],
    "an unknown model": ["layers.0.weight"],
}


@pytest.mark.parametrize("looks", OTHERS)
def test_what_is_no_whole_model_is_told_what_it_looks_like(looks, tmp_path):
    given = checkpoint(tmp_path, {name: torch.zeros(1) for name in OTHERS[looks]})
    with pytest.raises(
        UserError, match=rf"'.*m\.safetensors' looks like {looks.strip()}\. This needs a complete Stable"
    ):
        _ = given.kind


@pytest.mark.parametrize(
    ("tensors", "looks"),
    [
        (torso("sd15", 9), "an inpainting model"),
        (torso("sdxl", 8), "a model that edits images by instruction"),
        (torso("sd21", 5), "a model with 5 input channels"),
        (
            torso("sdxl") | {"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)},
            "a model with the noise levels of EDM",
        ),
        ({ATTENTION.format(4): torch.zeros(2, 1280)}, "the refiner of Stable Diffusion XL"),
        ({ATTENTION.format(1): torch.zeros(2, 640)}, "a model with text conditioning of width 640"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_relative_of_a_known_family_is_told(tensors, looks, tmp_path):
    with pytest.raises(UserError, match=f"looks like {looks}"):
        _ = checkpoint(tmp_path, tensors).kind


# --- What it predicts -----------------------------------------------------------


def spread(value: float) -> dict[str, torch.Tensor]:
    """The weight that tells Stable Diffusion 2's predictions apart, of this standard deviation."""
    return {PREDICTION_WEIGHT: torch.tensor([-value, value]).repeat(8)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "prediction"),
    [
        (torso("sd15"), {}, "epsilon"),
        (torso("sd15") | spread(0.2), {}, "epsilon"),
        (torso("sd21"), {}, "epsilon"),
        (torso("sd21") | spread(0.08), {}, "epsilon"),
        (torso("sd21") | spread(0.1), {}, "v_prediction"),
        (torso("sd21") | spread(0.1), {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        (torso("sd21") | spread(0.08), {"modelspec.prediction_type": "v"}, "v_prediction"),
        (torso("sdxl"), {}, "epsilon"),
        (torso("sdxl"), {"modelspec.prediction_type": "v_prediction"}, "v_prediction"),
        (torso("sdxl"), {"modelspec.prediction_type": "flow?"}, "epsilon"),
        (torso("sdxl") | {"v_pred": torch.zeros(1)}, {}, "v_prediction"),
        (torso("sdxl") | {"v_pred": torch.zeros(1)}, {"modelspec.prediction_type": "epsilon"}, "epsilon"),
    ],
)
def test_the_prediction_is_read_from_what_the_makers_wrote_or_from_a_weight(tensors, metadata, prediction, tmp_path):
    assert checkpoint(tmp_path, tensors, **metadata).prediction == prediction


def test_stable_diffusion_2_has_a_configuration_for_each_prediction(tmp_path):
    two, xl = (checkpoint(tmp_path, torso(kind), kind + ".safetensors") for kind in ("sd21", "sdxl"))
    names = [two.config("epsilon").name, two.config("v_prediction").name, xl.config("v_prediction").name]
    assert names == ["sd21", "sd21-v", "sdxl"]


def test_a_zero_terminal_snr_is_told_by_its_mark(tmp_path):
    assert not checkpoint(tmp_path, torso("sdxl")).zero_terminal_snr
    assert checkpoint(tmp_path, torso("sdxl") | {"ztsnr": torch.zeros(1)}).zero_terminal_snr


# --- Files that are none --------------------------------------------------------


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_a_pickle_is_never_opened(write, name, tmp_path):
    write(Trap(tmp_path / "sprung"), tmp_path / name)
    with pytest.raises(
        UserError, match=f"{name}' is a pickle, which can run code when it is loaded, so it is not loaded"
    ):
        Checkpoint.read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_file_by_another_name_is_told(tmp_path):
    save_file(torso("sd15"), tmp_path / "model.ckpt")
    with pytest.raises(UserError, match="a safetensors file with another extension"):
        Checkpoint.read(tmp_path / "model.ckpt")


@pytest.mark.parametrize("content", [b"GGUF" + bytes(99), bytes(8) + b"[1]"])
def test_what_is_no_safetensors_file_is_told(content, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"is not a safetensors file, or it is damaged\. This needs a complete"):
        Checkpoint.read(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><title>Log in</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"Invalid username or password.", "is a text, not the file itself: 'Invalid username or password.'"),
    ],
)
def test_what_a_download_left_in_place_of_a_model_is_told(content, why, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=rf"m\.safetensors' {why}.*\. This needs a complete"):
        Checkpoint.read(tmp_path / "m.safetensors")


def test_a_file_with_more_than_its_end_is_told(tmp_path):
    path = checkpoint(tmp_path, torso("sd15")).path
    path.write_bytes(path.read_bytes() + bytes(7))
    with pytest.raises(UserError, match="has 7 bytes after its end, which no tool accepts"):
        Checkpoint.read(path)


def test_a_half_downloaded_file_is_told_with_its_size(tmp_path):
    path = checkpoint(tmp_path, torso("sd15")).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(UserError, match=rf"is incomplete: 5 of {len(whole):,} bytes are missing"):
        Checkpoint.read(path)


def test_a_file_that_breaks_off_in_its_header_is_told(tmp_path):
    path = checkpoint(tmp_path, torso("sd15")).path
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="is incomplete or damaged"):
        Checkpoint.read(path)


@pytest.mark.parametrize("header", [[], {"a": 1}, {"a": {"shape": [1]}}, {"a": {"dtype": "F32", "shape": 2}}])
def test_a_header_of_another_form_is_told(header, tmp_path):
    text = json.dumps({"x": header}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(UserError, match="is incomplete or damaged"):
        Checkpoint.read(tmp_path / "m.safetensors")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2000), byte=st.integers(0, 255), length=st.integers(0, 2000))
def test_a_damaged_file_is_a_model_or_told(place, byte, length, tmp_path):
    path = checkpoint(tmp_path, torso("sdxl"), modelspec="x").path
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content[: -length or None])
    try:
        told = Checkpoint.read(path)
        assert told.prediction in ("epsilon", "v_prediction")
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
