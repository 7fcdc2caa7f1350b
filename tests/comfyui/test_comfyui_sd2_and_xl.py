"""Stable Diffusion 2 (v-prediction) and XL in a running ComfyUI: learning, the file, all ways of calling a word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import workflows as w
from PIL import Image
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow
FILES = {"sd2-v": {"emb_params": 1024}, "sdxl": {"clip_l": 768, "clip_g": 1280}}


def picture(server, family: str, text: str, clip: list, more: w.Workflow) -> np.ndarray:
    workflow = {"model": w.node("CheckpointLoaderSimple", ckpt_name=f"{family}.safetensors")} | more
    workflow |= w.sampling(text, clip, f"{family}-picture")
    return np.asarray(Image.open(server.files(server.run(workflow), "save")[0]))


@pytest.mark.parametrize("family", FILES)
def test_a_word_is_learnt_and_called(server, family):
    """By Train's CLIP, by the host's own syntax and by Load Embedding: one picture; the model is as it was."""
    stock = {"model": w.node("CheckpointLoaderSimple", ckpt_name=f"{family}.safetensors")}
    weights = {"probe": w.node("ProbeWeights", model=["model", 0], clip=["model", 1], file=f"{family}-before.txt")}
    server.run(stock | weights)
    before = picture(server, family, "a photo of a toy", ["model", 1], {})
    training = w.training(f"{family}.safetensors", name=f"{family}-toy", num_vectors=2, steps=2, preview_every=2)
    learnt = picture(server, family, "a photo of a *, red", ["train", 1], training)
    file = server.base / "models" / "embeddings" / f"{family}-toy.safetensors"
    assert {key: tensor.shape for key, tensor in load_file(file).items()} == {
        key: (2, width) for key, width in FILES[family].items()
    }
    word = w.node("TITrain_LoadEmbedding", clip=["model", 1], embedding_name=file.name, placeholder="<t>", strength=1.0)
    loaded = picture(server, family, "a photo of a <t>, red", ["word", 0], {"word": word})
    by_name = picture(server, family, f"a photo of a embedding:{family}-toy, red", ["model", 1], {})
    assert np.array_equal(learnt, loaded)
    assert np.array_equal(learnt, by_name)

    weights["probe"]["inputs"]["file"] = f"{family}-after.txt"
    server.run(stock | weights)
    output = server.base / "output"
    assert (output / f"{family}-before.txt").read_text() == (output / f"{family}-after.txt").read_text()
    assert np.array_equal(before, picture(server, family, "a photo of a toy ", ["model", 1], {}))


@pytest.fixture(scope="module")
def wide(server):
    torch.manual_seed(1)
    tensors = {key: torch.randn(2, width) * 0.02 for key, width in FILES["sdxl"].items()}
    save_file(tensors, server.base / "models" / "embeddings" / "wide-xl.safetensors")
    save_file({"emb_params": torch.randn(1, 768)}, server.base / "models" / "embeddings" / "narrow.safetensors")
    return server


def load(file: str) -> dict:
    return w.node("TITrain_LoadEmbedding", clip=["model", 1], embedding_name=file, placeholder="<t>", strength=1.0)


def test_in_the_encode_node_of_xl(wide):
    """Two texts, one for each encoder, and the sizes: the conditioning is the one of `embedding:name`, bit for bit."""
    sizes = {"width": 512, "height": 768, "crop_w": 8, "crop_h": 0, "target_width": 512, "target_height": 512}

    def encode(clip: list, word: str) -> dict:
        texts = {"text_g": f"a photo of {word}", "text_l": f"({word}:1.3), in the rain"}
        return w.node("CLIPTextEncodeSDXL", clip=clip, **sizes, **texts)

    wide.run(
        {
            "model": w.node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors"),
            "word": load("wide-xl.safetensors"),
            "ours": encode(["word", 0], "<t>"),
            "theirs": encode(["model", 1], "embedding:wide-xl"),
            "ours-probe": w.node("ProbeConditioning", conditioning=["ours", 0], file="xl-ours.pt"),
            "theirs-probe": w.node("ProbeConditioning", conditioning=["theirs", 0], file="xl-theirs.pt"),
        }
    )
    ours, theirs = (torch.load(wide.base / "output" / f"xl-{name}.pt") for name in ("ours", "theirs"))
    assert len(ours) == len(theirs) == 2, "the conditioning and the pooled output"
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize(
    ("family", "file", "message"),
    [
        ("sdxl", "narrow.safetensors", r"width 768, but the model's text encoder needs 768 \(clip_l\) \+ 1280"),
        ("sd2-v", "wide-xl.safetensors", r"768 \(clip_l\).*, but the model's text encoder needs 1024"),
    ],
)
def test_another_familys_word_is_refused(wide, family, file, message):
    workflow = {"model": w.node("CheckpointLoaderSimple", ckpt_name=f"{family}.safetensors"), "word": load(file)}
    with pytest.raises(AssertionError, match=message):
        wide.run(workflow | {"text": w.node("CLIPTextEncode", clip=["word", 0], text="<t>"),
                             "probe": w.node("ProbeConditioning", conditioning=["text", 0], file="x.pt")})  # fmt: skip
