"""Load Embedding, Save Embedding and Embedding Info in a running ComfyUI."""

from __future__ import annotations

import pytest
import torch
import workflows as w
from comfyui_server import Server
from safetensors.torch import save_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(server) -> Server:
    """Two words in the embeddings folder, one of three vectors; and one of another family."""
    folder = server.base / "models" / "embeddings"
    torch.manual_seed(0)
    save_file({"emb_params": torch.randn(3, 768) * 0.02}, folder / "three.safetensors")
    save_file({"emb_params": (torch.randn(1, 768) * 0.02).half()}, folder / "half.safetensors")
    save_file({"emb_params": torch.randn(1, 1024)}, folder / "wide.safetensors")
    return server


def load(file: str, placeholder: str, clip: list, **more) -> dict:
    given = {"clip": clip, "embedding_name": file, "placeholder": placeholder, "strength": 1.0}
    return w.node("TITrain_LoadEmbedding", **given | more)


def encoded(server: Server, workflow: dict, texts: dict[str, tuple[list, str]]) -> dict[str, torch.Tensor]:
    """The conditioning of each text, by name: (clip, text)."""
    workflow = {"model": w.node("CheckpointLoaderSimple", ckpt_name="sd1.safetensors")} | workflow
    for name, (clip, text) in texts.items():
        workflow[name] = w.node("CLIPTextEncode", clip=clip, text=text)
        workflow[f"{name}-probe"] = w.node("ProbeConditioning", conditioning=[name, 0], file=f"{name}.pt")
    server.run(workflow)
    return {name: torch.load(server.base / "output" / f"{name}.pt")[0] for name in texts}


PAIRS = [
    ("*", "a photo of a *", "a photo of a embedding:three"),
    ("*", "a photo of a *, in the rain", "a photo of a embedding:three, in the rain"),
    ("*", "*", "embedding:three"),
    ("<my-cat>", "a <my-cat> on the moon", "a embedding:three on the moon"),
    ("my-cat", "cats, my-cats, my-cat", "cats, my-cats, embedding:three"),
    ("my-cat", "a (my-cat:1.3) and a dog", "a ( embedding:three:1.3) and a dog"),
    ("my-cat", "a ((my-cat)) and [a dog]", "a (( embedding:three)) and [a dog]"),
    ("a cat of mine", "this is a cat of mine.", "this is embedding:three ."),
    ("*", "*\n* " + "word " * 90 + "*", "embedding:three\nembedding:three " + "word " * 90 + "embedding:three"),
]


@pytest.mark.parametrize(("placeholder", "ours", "theirs"), PAIRS, ids=[pair[1][:20] for pair in PAIRS])
def test_the_conditioning_is_that_of_the_hosts_own_syntax(words, placeholder, ours, theirs):
    workflow = {"word": load("three.safetensors", placeholder, ["model", 1])}
    got = encoded(words, workflow, {"ours": (["word", 0], ours), "theirs": (["model", 1], theirs)})
    assert got["ours"].equal(got["theirs"])


def test_words_chain_and_the_incoming_clip_stays_ignorant(words):
    workflow = {
        "first": load("three.safetensors", "<a>", ["model", 1]),
        "second": load("half.safetensors", "<b>", ["first", 0]),
    }
    texts = {
        "both": (["second", 0], "<a> and <b>"),
        "host": (["model", 1], "embedding:three and embedding:half"),
        "one": (["first", 0], "<a> and <b>"),
        "none": (["model", 1], "<a> and <b>"),
        "other": (["model", 1], "<a> and <b> "),
    }
    got = encoded(words, workflow, texts)
    assert got["both"].equal(got["host"])
    assert not got["one"].equal(got["both"])
    assert not got["one"].equal(got["none"])
    assert got["none"].equal(got["other"])


def test_a_trained_word_needs_no_file(words):
    training = w.training(name="fresh", steps=1)
    workflow = training | {"word": load("none", "<f>", ["model", 1], embedding=["train", 0])}
    got = encoded(words, workflow, {"ours": (["word", 0], "a <f>"), "node": (["train", 1], "a <fresh>")})
    assert got["ours"].equal(got["node"])


def test_strength(words):
    workflow = {
        "as learnt": load("three.safetensors", "*", ["model", 1]),
        "weaker": load("three.safetensors", "*", ["model", 1], strength=0.5),
    }
    got = encoded(words, workflow, {"full": (["as learnt", 0], "a *"), "half": (["weaker", 0], "a *")})
    assert not got["full"].equal(got["half"])


def test_another_width_is_refused(words):
    with pytest.raises(AssertionError, match="vectors of width 1024, but the model's text encoder wants 768"):
        encoded(words, {"word": load("wide.safetensors", "*", ["model", 1])}, {"x": (["word", 0], "*")})


def test_save_and_info(words):
    workflow = w.training(name="kept", steps=1, save=False)
    workflow["save"] = w.node("TITrain_SaveEmbedding", embedding=["train", 0], name="kept-here", if_exists="new number")
    workflow["info"] = w.node("TITrain_EmbeddingInfo", clip=["model", 1], embedding_name="none", embedding=["train", 0])
    outputs = words.run(workflow)
    folder = words.base / "models" / "embeddings"
    assert (folder / "kept-here.safetensors").is_file()
    assert not (folder / "kept.safetensors").exists()
    (text,) = outputs["info"]["text"]
    assert "vector 1: length" in text
    assert "nearest words: toy" in text
