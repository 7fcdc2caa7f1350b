"""Train Embedding in a running ComfyUI."""

from __future__ import annotations

import io
import re
import shutil
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import workflows as w
from comfyui_server import RefusedError, Server, failure
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ti_train.editability import initial_of
from ti_train.embedding import Embedding
from ti_train.formats import config_of, load_embedding, save_embedding
from ti_train.training.step_log import read_steps

pytestmark = pytest.mark.slow


def word(server: Server, name: str) -> Path:
    return server.base / "models" / "embeddings" / f"{name}.safetensors"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def last_step(state: Path) -> int:
    try:
        with safe_open(state, framework="pt") as file:
            return int(file.metadata()["step"])
    except OSError:
        return -1


def cancelled(server: Server, workflow: w.Workflow, state: Path, step: int) -> dict:
    """Queues a training and presses Cancel once it has got to a step."""
    prompt = server.queue(workflow)
    deadline = time.monotonic() + 300
    while last_step(state) < step:
        assert time.monotonic() < deadline, server.said()[-2000:]
        assert prompt not in server.get(f"/history/{prompt}"), server.said()[-2000:]
        time.sleep(0.05)
    server.interrupt()
    return server.wait(prompt)


def test_quick_start(server):
    """Nothing but stock nodes and Train Embedding; the picture before is the picture after, bit for bit."""
    stock = {"model": w.training()["model"]} | w.sampling("a photo of a toy", ["model", 1], "before")
    weights = {"probe": w.node("ProbeWeights", model=["model", 0], clip=["model", 1], file="before.txt")}
    before = server.files(server.run(stock | weights), "save")[0]
    workflow = w.training(name="quick", preview_every=2) | w.sampling("a photo of a *", ["train", 1], "learnt")
    outputs = server.run(workflow)
    assert len(outputs["train"]["images"]) == 3, "previews at steps 0, 2 and 3"
    assert word(server, "quick").is_file()
    assert not word(server, "quick").with_suffix(".resume").exists()
    vectors = load_embedding(word(server, "quick"))
    assert vectors.vectors["emb_params"].shape == (1, 768)
    assert vectors.provenance["step"] == "3"

    # a blank at the end changes no token, and makes ComfyUI sample anew
    stock = {"model": w.training()["model"]} | w.sampling("a photo of a toy ", ["model", 1], "after")
    weights = {"probe": w.node("ProbeWeights", model=["model", 0], clip=["model", 1], file="after.txt")}
    after = server.files(server.run(stock | weights), "save")[0]
    assert np.array_equal(pixels(before), pixels(after))
    output = server.base / "output"
    assert (output / "before.txt").read_text() == (output / "after.txt").read_text()
    learnt = server.files(outputs, "save")[0]
    by_name = {"model": w.training()["model"]} | w.sampling("a photo of a embedding:quick", ["model", 1], "name")
    assert np.array_equal(pixels(learnt), pixels(server.files(server.run(by_name), "save")[0]))


EVERY_OPTION = {
    "templates": "lines.txt", "batch_size": 2, "accumulation": 2, "resolution": 64, "flip": True,
    "schedule": "constant", "learning_rates": "5e-3:2, 1e-3", "warmup": 1, "gradient_clip": 0.5,
    "gradient_checkpointing": True, "checkpoint_every": 2, "crop": "square", "shuffle_tags": True, "drop_tags": 0.25,
    "keep_tags": 1, "preview_negative": "dark", "preview_seed": 7, "progressive_every": 2, "per_image_words": 0.25,
    "coarse_weight": 0.5, "evaluate_every": 2, "deterministic": True, "checkpoint_seconds": 5, "copy_every": 2,
    "timesteps": "logsnr -3 2", "weighting": "sigma", "optimizer": "sphere", "pull": 0.5, "average": 0.5,
    "exclusion": 0.5, "context": 0.5, "initial_vectors": "condensed",
}  # fmt: skip


def test_every_option_reaches_the_training(server):
    lines = server.base / "models" / "textual_inversion_templates" / "lines.txt"
    lines.parent.mkdir()
    lines.write_text("a [name] on a table", encoding="utf-8")
    workflow = w.training(name="all-options", num_vectors=2, learning_rate=0.5, seed=3)
    workflow["options"] = w.options(**EVERY_OPTION)
    server.run(workflow)
    config = config_of(load_embedding(word(server, "all-options")))
    apart = {"learning_rate": EVERY_OPTION["learning_rates"], "square": True}
    same = {name: value for name, value in EVERY_OPTION.items() if name not in ("learning_rates", "crop")}
    assert config.items() >= (same | apart | {"num_vectors": 2, "seed": 3, "steps": 3}).items()


def test_a_plain_number_in_learning_rates_takes_schedule_and_warmup(server):
    workflow = w.training(name="plain-rate", steps=4)
    workflow["options"] = w.options(learning_rates="0.004", warmup=1)
    server.run(workflow)
    log = read_steps(word(server, "plain-rate").with_suffix(".csv"))
    assert [step.learning_rate for step in log if step.step] == pytest.approx([0.002, 0.003, 0.002, 0.001])


@pytest.mark.parametrize("how", ["condensed", "cross"])
def test_initial_vectors_are_made_and_chosen_through_the_hosts_text_encoder(server, how):
    settings = {"name": how, "initial_text": "hexagon toy|a red toy car", "num_vectors": 1, "steps": 1}
    workflow = w.training(**settings, learning_rate=1e-9)
    workflow["options"] = w.options(initial_vectors=how)
    server.run(workflow)
    made = load_embedding(word(server, how))
    assert made.provenance["init"] in ("hexagon toy", "a red toy car")
    (row,) = made.vectors["emb_params"]
    assert torch.allclose(row, initial_of(made)["emb_params"][0], atol=1e-2)
    remarks = " ".join(run_of(server, how)["warnings"])
    assert f"The initial text is '{made.provenance['init']}', with the lowest validation loss" in remarks
    assert ("Condensed through the text encoder clip_l" in remarks) == (how == "condensed")


def test_cancel_keeps_what_was_learnt_and_continue_ends_as_if_uninterrupted(server):
    whole = word(server, "whole")
    server.run(w.training(name="whole", steps=8))
    state = word(server, "broken").with_suffix(".resume")
    history = cancelled(server, w.training(name="broken", steps=8), state, 2)
    assert failure(history) == "interrupted"
    assert 2 <= last_step(state) < 8
    assert word(server, "broken").is_file()
    assert "if_exists = continue" in server.said()
    run = run_of(server, "broken")
    assert run["status"] == "cancelled"
    assert run["message"].endswith("with the same settings and if_exists = continue.")
    assert str(server.base) not in run["message"]

    server.run(w.training(name="broken", steps=1))
    assert "A run of 'broken' has not ended." in server.said(), "it is not forgotten behind broken-2"
    with pytest.raises(AssertionError, match=r"num_vectors was 1, now 2"):
        server.run(w.training(name="broken", steps=8, if_exists="continue", num_vectors=2))
    server.run(w.training(name="broken", steps=8, if_exists="continue"))
    log = word(server, "broken").with_suffix(".csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step", *map(str, range(9))], "both parts, each step once"
    ours, theirs = (load_embedding(file).vectors["emb_params"] for file in (word(server, "broken"), whole))
    assert ours.equal(theirs)
    assert not state.exists()


def test_a_cancelled_replacement_leaves_the_earlier_embedding_and_can_be_continued(server):
    server.run(w.training(name="replaced", steps=2))
    earlier = word(server, "replaced").read_bytes()
    state = word(server, "replaced").with_suffix(".resume")
    again = w.training(name="replaced", steps=8, seed=1, if_exists="replace")
    again["options"] = w.options(checkpoint_every=1)
    assert failure(cancelled(server, again, state, 2)) == "interrupted"
    assert word(server, "replaced").read_bytes() == earlier
    assert "the earlier 'replaced.safetensors' is unchanged" in server.said()
    again["train"]["inputs"]["if_exists"] = "continue"
    server.run(again)
    assert load_embedding(word(server, "replaced")).provenance["step"] == "8"
    assert not state.exists()


def test_an_initial_text_may_name_an_embedding_as_in_a_prompt(server):
    start = Embedding("in-prompt", {"emb_params": torch.full((2, 768), 0.01)})
    save_embedding(start, word(server, "in-prompt"))
    server.run(w.training(name="from-prompt", initial_text="embedding:in-prompt", num_vectors=0, learning_rate=1e-9))
    trained = load_embedding(word(server, "from-prompt")).vectors["emb_params"]
    assert torch.allclose(trained, start.vectors["emb_params"], atol=1e-6)


def test_a_taken_name_gets_a_number_unless_told_otherwise(server):
    server.run(w.training(name="twice", steps=1))
    first = word(server, "twice").read_bytes()
    server.run(w.training(name="twice", steps=1, seed=1))
    assert word(server, "twice-2").is_file()
    assert word(server, "twice").read_bytes() == first
    server.run(w.training(name="twice", steps=1, seed=2, if_exists="replace"))
    assert word(server, "twice").read_bytes() != first
    assert not word(server, "twice-3").exists()
    server.run(w.training(name="twice", steps=1, seed=2, if_exists="replace"))  # cached: nothing has changed


def trained(server: Server) -> list[str]:
    """The words whose training has run to its end, by what the log says."""
    return re.findall(r"Trained '(.+?)' in", server.said())


def test_what_is_queued_behind_a_training_waits_and_what_has_not_changed_is_not_learnt_again(server):
    prompts = [server.queue(w.training(name=name, steps=2)) for name in ("first", "first", "second")]
    assert [failure(server.wait(prompt)) for prompt in prompts] == ["", "", ""]
    learnt = trained(server)
    assert learnt[-2:] == ["first", "second"], "the second prompt is the first one again"
    assert not word(server, "first-2").exists()
    server.run(w.training(name="second", steps=2))
    assert trained(server) == learnt


def test_a_word_that_is_gone_on_from_and_has_changed_is_learnt_from_anew(server):
    start = Embedding("start", {"emb_params": torch.full((1, 768), 0.01)})
    save_embedding(start, word(server, "start"))
    workflow = w.training(name="from-start", initial_text="start.safetensors", steps=1)
    for _ in range(2):
        server.run(workflow)
    assert trained(server)[-1] == "from-start"
    save_embedding(start.scaled(2.0), word(server, "start"))
    server.run(workflow)
    assert trained(server)[-1] == "from-start-2"


def test_two_trainings_of_one_name_in_a_graph_get_two_files(server):
    workflow = w.training(name="double", steps=1)
    workflow["other"] = w.training(name="double", steps=1, seed=5)["train"]
    workflow |= w.sampling("a photo of a *", ["train", 1], "one")
    other = w.sampling("a photo of a *", ["other", 1], "two")
    links = {name: f"other-{name}" for name in other}
    for name, node in other.items():
        node["inputs"] = {
            key: [links.get(value[0], value[0]), value[1]] if isinstance(value, list) else value
            for key, value in node["inputs"].items()
        }
        workflow[links[name]] = node
    outputs = server.run(workflow)
    one, two = (load_embedding(word(server, name)).vectors["emb_params"] for name in ("double", "double-2"))
    assert not one.equal(two)
    pictures = [pixels(server.files(outputs, name)[0]) for name in ("save", "other-save")]
    assert not np.array_equal(*pictures), "each branch has the word of its own training"


def test_a_lora_is_trained_with_and_stays_as_it_is(server):
    """Another embedding than without it; and the patched model samples the same picture after as before."""
    lora = {
        "lora": w.node(
            "LoraLoader", model=["model", 0], clip=["model", 1], lora_name="sd1-lora.safetensors",
            strength_model=1.0, strength_clip=1.0,
        )
    }  # fmt: skip
    patched = {"model": ["lora", 0], "clip": ["lora", 1]}
    stock = {"model": w.training()["model"]} | lora

    def picture(text: str, prefix: str) -> np.ndarray:
        workflow = stock | w.sampling(text, ["lora", 1], prefix, model=["lora", 0])
        return pixels(server.files(server.run(workflow), "save")[0])

    before = picture("a toy", "lora-before")
    server.run(w.training(name="without", steps=2))
    # previews load the VAE and sample between the steps
    server.run(w.training(name="patched", steps=2, preview_every=1, **patched) | lora)
    assert np.array_equal(before, picture("a toy ", "lora-after"))
    with_lora, without = (load_embedding(word(server, name)).vectors["emb_params"] for name in ("patched", "without"))
    assert not with_lora.equal(without)


def test_clip_skip_is_respected(server):
    skip = {"skip": w.node("CLIPSetLastLayer", clip=["model", 1], stop_at_clip_layer=-2)}
    server.run(w.training(name="skipped", steps=2, clip=["skip", 0]) | skip)
    server.run(w.training(name="not-skipped", steps=2))
    skipped, plain = (load_embedding(word(server, n)).vectors["emb_params"] for n in ("skipped", "not-skipped"))
    assert not skipped.equal(plain)


def test_captions_and_their_number(server):
    server.run(w.training(name="captioned", steps=1, captions=["pictures", 1]))
    three = {
        f"batch{i}": w.node("ImageBatch", image1=["one", 0], image2=["one", 0] if i == 0 else ["batch0", 0])
        for i in range(2)
    }
    one = {"one": w.node("EmptyImage", width=64, height=64, batch_size=1, color=255)}
    workflow = w.training(name="x", steps=1, images=["batch1", 0], captions=["pictures", 1]) | one | three
    with pytest.raises(AssertionError, match="3 images and 2 captions"):
        server.run(workflow)


def run_of(server: Server, name: str) -> dict:
    """A run as the page shows it."""
    return next(run for run in server.get("/ti_train/runs") if run["name"] == name)


def test_the_wire_of_the_images_brings_captions_and_masks(server):
    """As captions and masks wired one by one do; and what is wired is used instead."""
    folder = server.base / "input" / "one-wire"
    shutil.copytree(server.base / "input" / "toys", folder)
    half = Image.new("L", (64, 64), "black")
    half.paste(255, (0, 0, 32, 64))
    half.save(folder / "blue-mask.png")

    def vectors(name: str, **wires: list) -> torch.Tensor:
        server.run(w.training(folder="one-wire", name=name, steps=2, **wires))
        return load_embedding(word(server, name)).vectors["emb_params"]

    one = vectors("one-wire")
    assert config_of(load_embedding(word(server, "one-wire")))["templates"] == "captions"
    assert run_of(server, "one-wire")["data"] == {"images": 2, "captions": 1, "masks": 1, "side": 64}
    assert vectors("three-wires", captions=["pictures", 1], masks=["pictures", 2]).equal(one)
    scaled = {"scaled": w.node("ImageScaleBy", image=["pictures", 0], upscale_method="bilinear", scale_by=2.0)}
    scaling = w.training(folder="one-wire", name="scaled", steps=1, images=["scaled", 0], resolution=64) | scaled
    server.run(scaling)
    assert run_of(server, "scaled")["data"] == {"images": 2, "captions": 0, "masks": 0, "side": 64}
    lost = (
        "The captions and masks of Load Training Images do not pass Upscale Image By. Connect its outputs captions and"
    )
    assert any(remark.startswith(lost) for remark in run_of(server, "scaled")["warnings"])
    scaling["train"]["inputs"] |= {"captions": ["pictures", 1], "masks": ["pictures", 2]}
    server.run(scaling)
    assert run_of(server, "scaled-2")["data"] == {"images": 2, "captions": 1, "masks": 2, "side": 64}
    assert run_of(server, "scaled-2")["warnings"] == []


def test_what_a_node_in_between_loses_is_said_where_there_is_something_to_lose(server):
    through = w.training(folder="one-wire", name="in-between", steps=1, resolution=64, images=["chosen", 0])
    through |= {
        "inverted": w.node("ImageInvert", image=["pictures", 0]),
        "batch": w.node("ImageBatch", image1=["inverted", 0], image2=["inverted", 0]),
        "chosen": w.node("ImageFromBatch", image=["batch", 0], batch_index=0, length=1),
    }
    through["train"]["inputs"]["masks"] = ["pictures", 2]
    server.run(through)
    (said,) = run_of(server, "in-between")["warnings"]
    assert re.match(  # the node's name is another one in ComfyUI 0.3
        r"The captions of Load Training Images do not pass Invert Image( Colors)?\. Connect its output captions", said
    )
    (server.base / "input" / "plain").mkdir()
    shutil.copy(server.base / "input" / "one-wire" / "blue.png", server.base / "input" / "plain")
    del through["train"]["inputs"]["masks"]
    through["pictures"]["inputs"]["folder"] = "plain"
    server.run(through)
    assert run_of(server, "in-between-2")["warnings"] == []


def test_what_is_given_and_not_used_is_said(server):
    workflow = w.training(folder="one-wire", name="unused", steps=1)
    workflow["options"] = w.options(templates="object")
    workflow["pictures"]["inputs"]["use_masks"] = False
    server.run(workflow)
    run = run_of(server, "unused")
    assert run["data"] == {"images": 2, "captions": 0, "masks": 0, "side": 64}
    said = " ".join(run["warnings"])
    assert "1 image(s) have a caption, which the templates 'object' do not use. To use them, choose" in said
    assert "masks of 1 images are not used: use_masks is off" in said


def test_so_is_what_other_inputs_replace_or_switch_off(server):
    workflow = w.training(
        folder="one-wire", name="overridden", steps=1, preview_prompts="a * at night", learning_rate=0.1,
        resolution=128, captions=["caption", 0], masks=["inverted", 0],
    )  # fmt: skip
    workflow["options"] = w.options(learning_rates="0.2:1", resolution=64)
    workflow["caption"] = w.node("PrimitiveString", value="another caption")
    workflow["inverted"] = w.node("InvertMask", mask=["pictures", 2])
    server.run(workflow)
    said = run_of(server, "overridden")["warnings"]
    for start in (
        "The captions that 1 images bring are not used: others are connected to captions.",
        "The masks that 1 images bring are not used: others are connected to masks.",
        "learning_rate 0.1 of Train Embedding has no effect: Training Options give 0.2:1.",
        "resolution 128 of Train Embedding has no effect: Training Options give 64.",
        "preview_prompts has no effect: preview_every is 0",
    ):
        assert any(remark.startswith(start) for remark in said), start


def test_a_run_with_a_name_of_an_older_version_is_continued(server):
    workflow = w.training(name="old-one", steps=4000)
    cancelled(server, workflow, word(server, "old-one").with_suffix(".resume"), 2)
    for file in word(server, "old-one").parent.glob("old-one.*"):
        file.rename(file.with_name(file.name.replace("old-one", "old one")))
    state = word(server, "old one").with_suffix(".resume")
    for if_exists in ("continue", "use it if it is there"):
        workflow["train"]["inputs"] |= {"name": "old one", "if_exists": if_exists}
        cancelled(server, workflow, state, last_step(state) + 1)
        run = run_of(server, "old one")
        assert any("rename it to old-one." in remark for remark in run["warnings"])
        assert run["prompt"] == "a photo of *", "for Load Embedding: embedding:old one would not be found"


def test_a_small_models_resolution_is_unknown_and_can_be_set_in_the_node(server):
    server.run(w.training(name="guessed", steps=1))
    small = "so the resolution that it was trained at is not known. The images are trained at 64 x 64."
    assert small in " ".join(run_of(server, "guessed")["warnings"])
    server.run(w.training(name="given", steps=1, resolution=48))
    assert run_of(server, "given")["data"]["side"] == 48
    assert run_of(server, "given")["warnings"] == []
    workflow = w.training(name="given-there", steps=1, resolution=48)
    workflow["options"] = w.options(resolution=56)
    server.run(workflow)
    assert run_of(server, "given-there")["data"]["side"] == 56, "Training Options have the last word"


def test_what_was_trained_is_used_if_it_is_there(server):
    """After a restart too, where ComfyUI's own cache is empty; anything else is trained under a new number."""
    use = {"name": "there", "steps": 2, "if_exists": "use it if it is there", "preview_every": 1}
    server.run(w.training(**use))
    first, before = word(server, "there").read_bytes(), run_of(server, "there")
    server.stop()
    server.start()
    again = w.training(**use) | w.sampling("a photo of a *", ["train", 1], "there")
    again["previews"] = w.node("SaveImage", images=["train", 2], filename_prefix="there-previews")
    outputs = server.run(again)
    assert server.files(outputs, "save")
    assert len(server.files(outputs, "previews")) == 3, "those of its training"
    assert trained(server).count("there") == 1
    assert word(server, "there").read_bytes() == first
    run = run_of(server, "there")
    assert (run["status"], run["step"], run["saved"]) == ("used", 2, True)
    assert "so the resolution that it was trained at is not known" in " ".join(run["warnings"]), (
        "as when it was trained"
    )
    for shown in ("id", "previews", "best", "norm", "nearest"):
        assert run[shown] == before[shown], shown
    assert [step for step, _ in run["evaluations"]] == [step for step, _ in before["evaluations"]]
    assert run["loss"] == [pytest.approx(point, rel=1e-4) for point in before["loss"]]
    server.run(w.training(**use | {"seed": 1}))
    assert trained(server)[-1] == "there-2"
    shutil.copy(word(server, "there").with_suffix(".csv"), word(server, "there-2").with_suffix(".csv"))
    server.stop()
    server.start()
    server.run(w.training(**use | {"seed": 1}))
    assert not word(server, "there-3").exists(), "it is the run of there-2"
    assert run_of(server, "there-2")["evaluations"] == [], "the table is another run's"
    state = word(server, "halfway").with_suffix(".resume")
    cancelled(server, w.training(**use | {"name": "halfway", "steps": 8}), state, 2)
    server.run(w.training(**use | {"name": "halfway", "steps": 8}))
    assert not state.exists()
    assert not word(server, "halfway-2").exists(), "an interrupted run is resumed"


def test_masks(server):
    """White all over is no mask; a half one learns something else; and what cannot be a mask is told."""

    shutil.copytree(server.base / "input" / "toys", server.base / "input" / "square")
    (server.base / "input" / "square" / "red.png").unlink()

    def vectors(name: str, **nodes: dict) -> torch.Tensor:
        server.run(w.training(folder="square", name=name, steps=2, masks=["mask", 0]) | nodes)
        return load_embedding(word(server, name)).vectors["emb_params"]

    server.run(w.training(folder="square", name="unmasked", steps=2))
    unmasked = load_embedding(word(server, "unmasked")).vectors["emb_params"]
    assert vectors("white", mask=w.node("SolidMask", value=1.0, width=64, height=64)).equal(unmasked)
    assert vectors("empty", mask=w.node("SolidMask", value=0.0, width=8, height=8)).equal(unmasked)
    half = {
        "white": w.node("SolidMask", value=1.0, width=32, height=64),
        "black": w.node("SolidMask", value=0.0, width=64, height=64),
        "mask": w.node("MaskComposite", destination=["black", 0], source=["white", 0], x=0, y=0, operation="add"),
    }
    assert not vectors("half", **half).equal(unmasked)
    with pytest.raises(AssertionError, match="Image 1: the mask has 64 x 16 pixels, but the image 64 x 64"):
        vectors("askew", mask=w.node("SolidMask", value=1.0, width=64, height=16))


def test_mask_files_and_transparency(server):
    """A picture's mask file comes with it; so does its transparency where asked for."""
    folder = server.base / "input" / "masked"
    folder.mkdir()
    picture = Image.new("RGBA", (64, 64), (200, 40, 40, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 32, 64))
    picture.save(folder / "a.png")
    picture.convert("RGB").save(folder / "b.png")
    Image.new("L", (64, 64), 64).save(folder / "b-mask.png")
    means = {}
    for alpha in (False, True):
        loading = {"pictures": w.node("TITrain_LoadTrainingImages", folder="masked", subfolders=False,
                                      alpha_as_mask=alpha)}  # fmt: skip
        loading["show"] = w.node("MaskToImage", mask=["pictures", 2])
        loading["save"] = w.node("SaveImage", images=["show", 0], filename_prefix=f"mask-{alpha}")
        means[alpha] = [pixels(file).mean() for file in server.files(server.run(loading), "save")]
    assert means[False] == [255, 64]
    assert means[True] == [pytest.approx(127.5), 64]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "my cat"}, "Use a name such as my-cat"),
        ({"initial_text": " "}, "init is empty"),
        ({"name": "con"}, "reserved on Windows"),
    ],
)
def test_mistakes_are_told(server, settings, message):
    with pytest.raises(AssertionError, match=message):
        server.run(w.training(**settings))


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("../..", "outside of ComfyUI's input directory"),
        ("", "has no images yet. Drop 3 to 5 on it"),
        ("not-there", "input directory has no folder 'not-there'. Drop 3 to 5 images"),
    ],
)
def test_a_folder_without_images_is_told_before_anything_runs(server, folder, message):
    with pytest.raises(RefusedError, match=message) as refusal:
        server.run(w.training(folder=folder))
    assert str(server.base) not in str(refusal.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("first_stage_model.", "does not contain a valid VAE"),
        ("cond_stage_model.", "a valid clip or text encoder"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_told(server, part, message):
    checkpoints = server.base / "models" / "checkpoints"
    whole = load_file(checkpoints / "sd1.safetensors")
    save_file({key: v for key, v in whole.items() if not key.startswith(part)}, checkpoints / f"no-{part}safetensors")
    with pytest.raises(AssertionError, match=message):
        server.run(w.training(checkpoint=f"no-{part}safetensors", name="partless"))


def alike(one: Image.Image, other: Image.Image) -> float:
    """The correlation of two pictures' grey values."""
    grey = [np.asarray(picture.convert("L"), dtype=float).ravel() for picture in (one, other)]
    return float(np.corrcoef(*grey)[0, 1])


def test_the_model_library_shows_the_header_and_the_last_preview(server):
    """Of the embedding and of its numbered copies, by the routes of the host's own library."""
    server.run(w.training(name="pictured", steps=4, preview_every=2) | {"options": w.options(copy_every=2)})
    for name in ("pictured", "pictured-steps/pictured-000002", "pictured-steps/pictured-000004"):
        address = f"{server.url}/experiment/models/preview/embeddings/0/{name}.safetensors"
        with urllib.request.urlopen(address, timeout=60) as answer:
            shown = Image.open(io.BytesIO(answer.read())).convert("RGB")
        beside = Image.open(server.base / "models" / "embeddings" / f"{name}.preview.png")
        assert alike(shown, beside) > 0.8, "as WebP, which is lossy"
        header = server.get(f"/view_metadata/embeddings?filename={name}.safetensors")
        assert header["modelspec.title"] == header["modelspec.trigger_phrase"] == Path(name).name
        assert header["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
        assert header["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
