"""Load Embedding, Save Embedding and Embedding Info in a running ComfyUI."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import workflows as w
from comfyui_server import Server
from PIL import Image
from safetensors.torch import save_file

from ti_train.formats import load_embedding, read_embedding, write_embedding

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


def test_editability_goes_from_what_was_trained_to_the_initial_text(words):
    """In Load Embedding and in a file of Save Embedding, which other prompts call by the host's own syntax."""
    workflow = w.training(name="far", steps=2, learning_rate=0.05)
    workflow["save"] = w.node(
        "TITrain_SaveEmbedding", embedding=["train", 0], name="near", if_exists="replace", editability=0.5
    )
    words.run(workflow)
    workflow = {
        "nearer": load("far.safetensors", "*", ["model", 1], editability=0.5),
        "initial": load("far.safetensors", "*", ["model", 1], editability=1.0),
    }
    texts = {
        "near": (["nearer", 0], "a *"),
        "saved": (["model", 1], "a embedding:near"),
        "back": (["initial", 0], "a *"),
        "toy": (["model", 1], "a toy"),
        "far": (["model", 1], "a embedding:far"),
    }
    got = encoded(words, workflow, texts)
    assert torch.allclose(got["near"], got["saved"], atol=1e-5)
    assert torch.allclose(got["back"], got["toy"], atol=1e-2)
    assert not torch.allclose(got["far"], got["toy"], atol=0.1)
    with pytest.raises(AssertionError, match="does not record its initial vectors"):
        encoded(
            words, {"word": load("three.safetensors", "*", ["model", 1], editability=0.2)}, {"x": (["word", 0], "*")}
        )


def test_another_width_is_refused(words):
    with pytest.raises(AssertionError, match="vectors of width 1024, but the model's text encoder needs 768"):
        encoded(words, {"word": load("wide.safetensors", "*", ["model", 1])}, {"x": (["word", 0], "*")})


def test_save_and_info(words):
    workflow = w.training(name="unsaved", steps=1, save=False)
    workflow["save"] = w.node("TITrain_SaveEmbedding", embedding=["train", 0], name="kept-here", if_exists="new number")
    workflow["info"] = w.node("TITrain_EmbeddingInfo", clip=["model", 1], embedding_name="none", embedding=["train", 0])
    outputs = words.run(workflow)
    folder = words.base / "models" / "embeddings"
    assert (folder / "kept-here.safetensors").is_file()
    assert not (folder / "unsaved.safetensors").exists()
    (text,) = outputs["info"]["text"]
    assert "vector 1: norm" in text
    assert "nearest words: toy" in text


def test_a_subfolder_is_part_of_the_name(words):
    """The host finds the file with its folder and without."""
    folder = words.base / "models" / "embeddings"
    training = w.training(name="pets/nested.safetensors", steps=1)
    texts = {"typed": (["train", 1], "a <pets/nested>"), "bare": (["train", 1], "a <nested>")}
    ours = encoded(words, training, texts)
    assert (folder / "pets" / "nested.safetensors").is_file()
    texts = {"full": (["model", 1], "a embedding:pets/nested"), "stem": (["model", 1], "a embedding:nested")}
    theirs = encoded(words, {}, texts)
    assert all(one.equal(ours["typed"]) for one in (ours["bare"], *theirs.values()))
    saving = {"word": w.node("TITrain_LoadEmbedding", clip=["model", 1], embedding_name="pets/nested.safetensors",
                             placeholder="*", strength=1.0)}  # fmt: skip
    assert encoded(words, saving, {"x": (["word", 0], "a *")})["x"].equal(ours["typed"])


def test_save_embedding_into_a_subfolder(words):
    workflow = w.training(name="flat", steps=1, save=False)
    workflow["save"] = w.node(
        "TITrain_SaveEmbedding", embedding=["train", 0], name="pets/saved-below", if_exists="new number"
    )
    assert words.run(workflow)["save"]["text"] == ["embedding:pets/saved-below"]
    assert (words.base / "models" / "embeddings" / "pets" / "saved-below.safetensors").is_file()


# --- Other layouts, and merging -------------------------------------------------


@pytest.fixture(scope="module")
def layouts(words) -> Server:
    """The word of three vectors in other layouts, and pictures that are no words."""
    folder = words.base / "models" / "embeddings"
    word = load_embedding(folder / "three.safetensors")
    write_embedding(word, folder / "as-pt.pt", "a1111")
    write_embedding(word, folder / "as-card.png", "png")
    Image.new("RGB", (8, 8)).save(folder / "three.png")
    Image.new("RGB", (8, 8)).save(folder / "other.preview.png")
    return words


def test_every_file_that_can_be_read_is_offered(layouts):
    for node in ("TITrain_LoadEmbedding", "TITrain_EmbeddingInfo"):
        spec = layouts.get(f"/object_info/{node}")[node]["input"]["required"]["embedding_name"]
        options = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
        assert {"three.safetensors", "as-pt.pt", "as-card.png"} <= set(options)
        assert not {"three.png", "other.preview.png"} & set(options), "previews are no words"


def test_a_word_is_the_same_in_every_layout(layouts):
    files = ("three.safetensors", "as-pt.pt", "as-card.png")
    workflow = {file: load(file, "*", ["model", 1]) for file in files}
    got = encoded(layouts, workflow, {Path(file).stem: ([file, 0], "a *") for file in files})
    assert got["three"].equal(got["as-pt"])
    assert got["three"].equal(got["as-card"])


def test_the_layout_of_a_file_is_told(layouts):
    workflow = {"model": w.node("CheckpointLoaderSimple", ckpt_name="sd1.safetensors")}
    workflow["info"] = w.node("TITrain_EmbeddingInfo", clip=["model", 1], embedding_name="as-card.png")
    (text,) = layouts.run(workflow)["info"]["text"]
    assert text.endswith("file: PNG text chunk, A1111 string_to_param")


def test_of_several_words_in_a_file_one_is_chosen_by_its_name(layouts):
    folder = layouts.base / "models" / "embeddings"
    three, half = (load_embedding(folder / f"{name}.safetensors").vectors["emb_params"] for name in ("three", "half"))
    save_file({"bundle_emb.cat.clip_l": three, "bundle_emb.dog.clip_l": half}, folder / "bundle.safetensors")
    with pytest.raises(AssertionError, match=r"'cat' \(3 vector\(s\) of 768\); 'dog' \(1 vector\(s\) of 768\). Choose"):
        encoded(layouts, {"any": load("bundle.safetensors", "*", ["model", 1])}, {"x": (["any", 0], "a *")})
    workflow = {f"load {word}": load("bundle.safetensors", "*", ["model", 1], word=word) for word in ("cat", "dog")}
    texts = {word: ([f"load {word}", 0], "a *") for word in ("cat", "dog")}
    texts |= {name: (["model", 1], f"a embedding:{name}") for name in ("three", "half")}
    got = encoded(layouts, workflow, texts)
    assert got["cat"].equal(got["three"])
    assert got["dog"].equal(got["half"])


def test_info_on_one_of_several_words_in_a_file(layouts):
    save_file(
        {f"bundle_emb.{word}.clip_l": torch.randn(count, 768) for word, count in (("cat", 3), ("dog", 1))},
        layouts.base / "models" / "embeddings" / "lora.safetensors",
    )
    workflow = {"model": w.node("CheckpointLoaderSimple", ckpt_name="sd1.safetensors")}
    workflow["info"] = w.node("TITrain_EmbeddingInfo", clip=["model", 1], embedding_name="lora.safetensors", word="dog")
    (text,) = layouts.run(workflow)["info"]["text"]
    assert text.startswith("dog: 1 vector(s) of width 768")


def test_learning_goes_on_from_a_file_of_any_layout(layouts):
    folder = layouts.base / "models" / "embeddings"
    more = {"num_vectors": 3, "learning_rate": 1e-9}
    layouts.run(w.training(name="gone-on", steps=1, initial_text="as-pt.pt", **more))
    given, learnt = (load_embedding(folder / f"{name}.safetensors").vectors for name in ("three", "gone-on"))
    assert torch.allclose(given["emb_params"], next(iter(learnt.values())), atol=1e-7)
    with pytest.raises(AssertionError, match=r"There is no file 'absent\.pt' in ComfyUI's embeddings folders"):
        layouts.run(w.training(name="not-gone-on", steps=1, initial_text="absent.pt"))


def merged(how: str, first: str, second: str, weight_1: float = 1.0, weight_2: float = 1.0) -> dict:
    files = {"embedding_name_1": first, "embedding_name_2": second}
    return w.node("TITrain_MergeEmbeddings", **files, how=how, weight_1=weight_1, weight_2=weight_2)


def test_a_concatenation_reads_as_one_word_after_the_other(layouts):
    workflow = {
        "merge": merged("concatenate", "three.safetensors", "half.safetensors"),
        "word": load("none", "*", ["model", 1], embedding=["merge", 0]),
    }
    texts = {"ours": (["word", 0], "a *"), "theirs": (["model", 1], "a embedding:three embedding:half")}
    got = encoded(layouts, workflow, texts)
    assert got["ours"].equal(got["theirs"])


@pytest.mark.parametrize(
    ("format", "precision", "ending"),
    [("a1111", "bf16", ".pt"), ("png", "fp32", ".png"), ("diffusers", "fp32", ".safetensors")],
)
def test_a_merged_word_is_saved_in_the_layout_asked_for(layouts, format, precision, ending):
    more = {"format": format, "precision": precision, "strength": 2.0, "norm": 1.0}
    workflow = {
        "merge": merged("sum", "three.safetensors", "as-pt.pt", 0.25, 0.5),
        "save": w.node("TITrain_SaveEmbedding", embedding=["merge", 0], name=format, if_exists="replace", **more),
    }
    (text,) = layouts.run(workflow)["save"]["text"]
    folder = layouts.base / "models" / "embeddings"
    (path,) = folder.glob(f"{format}.*")
    assert path.name == f"{format}{ending}"
    assert path.name in text
    assert ("Rounding to bf16" in text) == (precision == "bf16")
    saved = load_embedding(path).vectors["emb_params"]
    three = load_embedding(folder / "three.safetensors").vectors["emb_params"]
    assert torch.allclose(
        saved, 2 * three / three.norm(dim=1, keepdim=True), rtol=1e-2 if precision == "bf16" else 1e-6
    )


def test_diffusers_two_files_do_not_overwrite_others(layouts):
    """The second one's name is taken: both move on to the next number."""
    folder = layouts.base / "models" / "embeddings"
    both = {"clip_l": torch.randn(1, 768), "clip_g": torch.randn(1, 1280)}
    save_file(both, folder / "xl-a.safetensors")
    save_file({"emb_params": torch.ones(1, 4)}, folder / "two_2.safetensors")
    workflow = {
        "merge": merged("concatenate", "xl-a.safetensors", "xl-a.safetensors"),
        "save": w.node(
            "TITrain_SaveEmbedding", embedding=["merge", 0], name="two", if_exists="new number", format="diffusers"
        ),
    }
    (text,) = layouts.run(workflow)["save"]["text"]
    assert text == "two-2.safetensors\ntwo-2_2.safetensors"
    assert load_embedding(folder / "two_2.safetensors").vectors["emb_params"].shape == (1, 4)
    read = read_embedding(folder / "two-2.safetensors", folder / "two-2_2.safetensors").embedding.vectors
    assert all(torch.equal(read[encoder], torch.cat([v, v])) for encoder, v in both.items())


def test_words_of_different_families_are_not_merged(layouts):
    workflow = {
        "merge": merged("sum", "three.safetensors", "wide.safetensors"),
        "save": w.node("TITrain_SaveEmbedding", embedding=["merge", 0], name="no", if_exists="replace"),
    }
    with pytest.raises(AssertionError, match="'three' has vectors of width 768 and 'wide' of 1024"):
        layouts.run(workflow)
