"""Reading weights one at a time: the same tensors, and never the whole file in memory."""

from __future__ import annotations

import pytest
import torch
from old_libraries import needs_weights_alone
from safetensors.torch import save_file

pytest.importorskip("diffusers")

from ti_train.host import fingerprint
from ti_train.hosts.diffusers import tensor_files
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.diffusers.tensor_files import Stored


@pytest.fixture
def files(tmp_path):
    """Two files of four tensors each, and what is in them."""
    there = {f"{number}": torch.full((100,), float(number)) for number in range(8)}
    for start in (0, 4):
        save_file({name: there[name] for name in list(there)[start : start + 4]}, tmp_path / f"{start}.safetensors")
    return [tmp_path / "0.safetensors", tmp_path / "4.safetensors"], there


@pytest.mark.parametrize("mapped", [0, 500, 2**28])
def test_tensors_are_read_in_the_order_that_is_asked_for(files, mapped, monkeypatch):
    paths, there = files
    monkeypatch.setattr(tensor_files, "MAPPED", mapped)
    asked = ["7", "0", "5", "1", "1", "4"]
    for name, tensor in zip(asked, Stored.of(paths).read(asked), strict=True):
        assert torch.equal(tensor, there[name])


def test_a_file_is_opened_anew_before_more_of_it_is_mapped_than_is_allowed(files, monkeypatch):
    (path, _), there = files
    stored, opened = Stored.of([path]), []
    monkeypatch.setattr(tensor_files, "MAPPED", 2 * there["0"].nbytes - 1)
    own = tensor_files.safe_open
    monkeypatch.setattr(tensor_files, "safe_open", lambda *given, **named: opened.append(1) or own(*given, **named))
    list(stored.read(["0", "1", "2", "3"]))
    assert len(opened) == 2


@needs_weights_alone
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_the_one_that_diffusers_loads_whatever_the_precision(family, dtype, pipelines):
    """So that a run of another version, which loaded it so, can be continued."""
    import diffusers

    folder = pipelines(family=family)
    kind = {"sdxl": "StableDiffusionXLPipeline"}.get(family, "StableDiffusionPipeline")
    theirs = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)
    encoders = [theirs.text_encoder, *([theirs.text_encoder_2] if family == "sdxl" else [])]
    ours = DiffusersHost.load(folder, "cpu", dtype)
    assert ours.fingerprint == fingerprint(theirs.unet, *encoders, theirs.vae)
    kept = {parameter.dtype for parameter in ours.vae.parameters()}
    assert kept == {torch.float32}
    placed = DiffusersHost(theirs, ours.device, ours.dtype)
    for own, others in zip((ours.unet, *ours.text_encoders), (placed.unet, *placed.text_encoders), strict=True):
        for (name, weight), other in zip(own.named_parameters(), others.parameters(), strict=True):
            assert weight.dtype == other.dtype, name
            assert torch.equal(usual(weight), usual(other)), name


def usual(weight: torch.Tensor) -> torch.Tensor:
    """In the usual layout, which convolutions are packed out of."""
    return weight.to_dense() if weight.is_mkldnn else weight
