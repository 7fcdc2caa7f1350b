"""Training over HTTP in a running WebUI."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_requests import JSON, Request, foreign
from jobs_over_http import API, QUICK, begin, learn, status, until, vectors, write_toys
from option_values import other_than_default
from PIL import Image
from safetensors import safe_open
from webui_server import USER, RefusedError, Server

from ti_train.editability import initial_of
from ti_train.embedding import Embedding
from ti_train.formats import config_of, layout_for, load_embedding, save_embedding, write_embedding
from ti_train.training.config import OPTIONS
from webui_tab.option_names import NOT_OFFERED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def toys(server):
    write_toys(server)


def test_a_word_is_learnt_and_everything_else_is_as_it_was(server):
    untouched = server.picture("a photo of a toy")
    unknown = server.picture("a photo of a apitoy")
    before = server.get("/ti-train-test/state")
    asked = time.monotonic()
    job = begin(server, name="apitoy", num_vectors=2, preview_every=3)
    assert time.monotonic() - asked < 5, "train answers at once"
    done = until(server, job, "done")
    assert (done["step"], done["error"]) == (3, "")
    assert [m["step"] for m in status(server, job, history=True)["history"]] == [0, 1, 2, 3]

    after = server.get("/ti-train-test/state")
    assert after.pop("words") == sorted([*before.pop("words"), "apitoy"])
    assert after.pop("lookup") == sorted([*before.pop("lookup"), "apitoy"])
    assert after == before
    assert server.picture("a photo of a toy") == untouched
    learnt = server.picture("a photo of a apitoy")
    assert learnt != unknown, "the word works in the next prompt"
    assert server.picture("a photo of a apitoy") == learnt

    assert vectors(server, "apitoy").shape == (2, 768)
    records = server.base / "ti-train" / "runs" / "apitoy"
    assert {path.name for path in records.iterdir()} == {"loss.csv", "loss.png", "step00000-0.png", "step00003-0.png"}
    (row,) = [word for word in server.get(f"{API}/list") if word["name"] == "apitoy"]
    assert (row["vectors"], row["widths"], row["step"]) == (2, [768], 3)
    assert "nearest words: toy" in server.get(f"{API}/info?name=apitoy")["text"]


HIRES = {
    "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 2, "denoising_strength": 0.9,
    "hr_additional_modules": ["Use same choices"],  # Forge's own page sends it always
}  # fmt: skip


def test_a_word_that_is_learnt_again_is_not_remembered_as_it_was(server):
    """Not in the second pass of hires. fix either, whose prompt the WebUI remembers apart."""
    in_hires = {**HIRES, "hr_prompt": "a photo of a twice"}
    learn(server, name="twice")
    first, first_hires = server.picture("a photo of a twice"), server.picture("a photo", **in_hires)
    assert server.picture("a photo", **in_hires) == first_hires != server.picture("a photo", **HIRES)
    learn(server, name="twice", seed=1, overwrite=True, learning_rate="0.5")
    assert server.picture("a photo of a twice") != first
    assert server.picture("a photo", **in_hires) != first_hires


@pytest.mark.parametrize("file", ["given.pt", "given.png"])
def test_learning_goes_on_from_a_file_of_any_layout(server, file):
    rows = 0.1 * np.random.default_rng(0).standard_normal((2, 768), dtype=np.float32)
    word = Embedding("given", {"emb_params": torch.from_numpy(rows)}, {})
    write_embedding(word, server.base / "embeddings" / file, layout_for(Path(file)))
    learn(server, name="gone-on", init=file, num_vectors=2, learning_rate="0", overwrite=True)
    assert np.array_equal(vectors(server, "gone-on"), rows)


def test_an_interrupted_run_resumes_to_the_result_of_an_uninterrupted_one(server):
    learn(server, name="whole", steps=12)
    untouched = server.picture("a photo of a toy")
    job = begin(server, name="broken", steps=12)
    until(server, job, "running", step=2)
    server.post(f"{API}/interrupt", {"id": job})
    stopped = until(server, job, "interrupted")
    assert 2 <= stopped["step"] < 12
    assert server.picture("a photo of a toy") == untouched
    with safe_open(server.base / "embeddings" / "broken.resume", framework="pt") as file:
        assert int(file.metadata()["step"]) == stopped["step"]

    again = server.post(f"{API}/resume", {"id": job})["id"]
    until(server, again, "done")
    assert np.array_equal(vectors(server, "broken"), vectors(server, "whole"))
    steps = [m["step"] for m in status(server, again, history=True)["history"]]
    assert steps == list(range(13)), "the table goes on where it ended"
    with pytest.raises(RefusedError, match="There is nothing to resume"):
        server.post(f"{API}/resume", {"id": again})


def test_an_interrupted_run_says_which_step_is_kept_and_a_second_interruption_replaces_only_its_own(server):
    job = begin(server, name="kepttoy", steps=500)
    until(server, job, "running", step=14)
    server.post(f"{API}/interrupt", {"id": job})
    last = until(server, job, "interrupted")["step"]
    file = server.base / "embeddings" / "kepttoy.safetensors"
    (told,) = status(server, job)["messages"]
    assert re.match(rf"Step \d+ is saved in '.*kepttoy.*'.* Continue from step {last} with Resume", told)
    if file.exists():  # the model's weights are random: it need not be better than untrained
        assert load_embedding(file).provenance["kept"].startswith("Step ")

    learn(server, name="replacedtoy", steps=2)
    earlier = (server.base / "embeddings" / "replacedtoy.safetensors").read_bytes()
    job = begin(server, name="replacedtoy", steps=500, overwrite=True, seed=1)
    until(server, job, "running", step=2)
    server.post(f"{API}/interrupt", {"id": job})
    until(server, job, "interrupted")
    assert (server.base / "embeddings" / "replacedtoy.safetensors").read_bytes() == earlier
    assert "the earlier 'replacedtoy.safetensors' is unchanged" in status(server, job)["messages"][-1]


def test_stop_and_keep_ends_a_run_as_if_it_were_complete_and_it_can_still_be_resumed(server):
    learn(server, name="bystander", steps=2)
    earlier, unknown = vectors(server, "bystander"), server.picture("a photo of a stoptoy")
    job, waiting = begin(server, name="stoptoy", steps=500), begin(server, name="waitingtoy")
    with pytest.raises(RefusedError, match="'waitingtoy' has not begun: there is nothing to keep yet"):
        server.post(f"{API}/stop-and-keep", {"id": waiting})
    server.post(f"{API}/interrupt", {"id": waiting})
    until(server, job, "running", step=3)
    server.post(f"{API}/stop-and-keep", {"id": job})
    stopped = until(server, job, "done")
    assert 3 <= stopped["step"] < 500
    kept = load_embedding(server.base / "embeddings" / "stoptoy.safetensors")
    assert kept.provenance["finished"]
    assert kept.provenance["kept"].startswith("Step ")
    assert server.picture("a photo of a stoptoy") != unknown, "it works in the next prompt"
    assert np.array_equal(vectors(server, "bystander"), earlier)

    again = server.post(f"{API}/resume", {"id": job})["id"]
    until(server, again, "running", step=stopped["step"] + 1)
    server.post(f"{API}/interrupt", {"id": again})
    until(server, again, "interrupted")
    assert "is saved" in status(server, again)["messages"][-1]


def test_it_resumes_after_a_restart_by_id_and_by_name(server):
    learn(server, name="steady", steps=12)
    job = begin(server, name="restarted", steps=12)
    until(server, job, "running", step=2)
    server.post(f"{API}/interrupt", {"id": job})
    until(server, job, "interrupted")
    server.restart()
    again = server.post(f"{API}/resume", {"id": job})["id"]
    until(server, again, "running", step=4)
    server.post(f"{API}/interrupt", {"id": again})
    first = until(server, again, "interrupted")["step"]
    last = until(server, server.post(f"{API}/resume", {"name": "restarted"})["id"], "done")
    assert 4 <= first < last["step"] == 12
    assert np.array_equal(vectors(server, "restarted"), vectors(server, "steady"))
    assert not list((server.base / "ti-train" / "unfinished").glob("restarted*"))
    with pytest.raises(RefusedError, match="no training of 'restarted' was interrupted"):
        server.post(f"{API}/resume", {"name": "restarted"})


def test_the_hosts_own_interrupt_ends_a_preview_and_keeps_the_word(server):
    job = begin(server, name="previewed", preview_every=1, steps=50)
    until(server, job, "running", step=1)
    server.post("/sdapi/v1/interrupt")
    assert until(server, job, "interrupted")["step"] >= 1
    assert server.get("/sdapi/v1/progress")["state"]["interrupted"] is False
    assert (server.base / "embeddings" / "previewed.safetensors").is_file()


def test_after_a_failure_within_a_step_everything_is_as_it_was(server):
    learn(server, name="failing")  # the word's file is there before and after
    untouched, before = server.picture("a photo of a toy"), server.get("/ti-train-test/state")
    server.post("/ti-train-test/break")
    failed = until(server, begin(server, name="failing", overwrite=True), "failed")
    assert "RuntimeError: broken by the test" in failed["error"]
    assert server.get("/ti-train-test/state") == before
    assert server.picture("a photo of a toy") == untouched


def test_a_full_memory_is_met_with_smaller_passes(server):
    calm = learn(server, name="calmtoy", batch_size=2)
    before = server.get("/ti-train-test/state")
    server.post("/ti-train-test/fill-memory", {"passes": 1})
    done = learn(server, name="calmtoy", batch_size=2, overwrite=True, steps=3)
    assert calm["messages"] == []
    (message,) = done["messages"]
    assert (
        "The GPU ran out of memory. Continuing with gradient checkpointing, batch size 1 and gradient accumulation 2"
        in message
    )
    assert done["noise_free_loss"] == pytest.approx(calm["noise_free_loss"], abs=1e-4)
    assert server.get("/ti-train-test/state") == before


def test_a_memory_that_stays_full_is_told_in_words(server):
    server.post("/ti-train-test/fill-memory", {"passes": 2})
    failed = until(server, begin(server, name="toofull", batch_size=2), "failed")
    assert "Batch size 1 at 64 pixels does not fit" in failed["error"]
    assert server.get("/ti-train-test/state")["gradients"] == 0


def test_a_generation_waits_its_turn_and_a_training_too(server):
    untouched = server.picture("a photo of a toy")
    pictures: list[bytes] = []
    job = begin(server, name="queue-a", steps=4)
    until(server, job, "running")
    generation = threading.Thread(target=lambda: pictures.append(server.picture("a photo of a toy")))
    generation.start()
    time.sleep(1)
    waiting = begin(server, name="queue-b")
    assert status(server, waiting)["state"] == "queued"
    generation.join()
    assert status(server, job)["state"] == "done", "the generation came before the training had ended"
    assert pictures == [untouched]
    until(server, waiting, "done")


def test_a_waiting_job_can_be_called_off(server):
    first, second = begin(server, name="called-a", steps=6), begin(server, name="called-b")
    server.post(f"{API}/interrupt", {"id": second})
    assert status(server, second)["state"] == "interrupted", "at once"
    told = server.post("/internal/progress", {"id_task": second, "live_preview": False})
    assert told["completed"]
    assert not told["queued"]
    again = begin(server, name="called-b")
    until(server, first, "done")
    until(server, again, "done")


def test_a_clean_up_that_fails_ends_the_job_and_frees_its_name(server):
    server.post("/ti-train-test/break-clean-up")
    (message,) = learn(server, name="unclean")["messages"]
    assert "The clean-up after the training failed: RuntimeError: broken by the test" in message
    learn(server, name="unclean", overwrite=True)


def test_nothing_waits_for_a_training_but_generations(server, cat):
    job = begin(server, name="busy", steps=2000)
    until(server, job, "running", step=1)
    asked = time.monotonic()
    text = server.get(f"{API}/info?name=cat-word")["text"]
    assert "vector 2: norm" in text
    assert "The nearest words need the model, which a training or captioning uses" in text
    assert "cat-word" in [row["name"] for row in server.post(f"{API}/refresh")]
    assert status(server, job)["state"] == "running"
    assert time.monotonic() - asked < 30
    server.post(f"{API}/interrupt", {"id": job})
    until(server, job, "interrupted")
    assert "nearest words" in server.get(f"{API}/info?name=cat-word")["text"]


def test_what_a_training_computes_with_is_not_listed_among_the_webuis_embeddings(server, cat):
    """It has no file: the extra networks of a page that is loaded meanwhile would fail."""
    job = begin(server, name="unlisted", steps=2000)
    until(server, job, "running", step=1)
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        listed = server.get("/sdapi/v1/embeddings")["loaded"]
        assert not [name for name in listed if name.startswith("titrainprivateword")]
    server.post(f"{API}/interrupt", {"id": job})
    until(server, job, "interrupted")


def test_previews_are_sampled_as_asked(server):
    sampled = {"preview_sampler": "Euler a", "preview_steps": 1, "preview_cfg": 2, "preview_width": 72}
    learn(server, name="sampled", preview_every=3, **sampled)
    with Image.open(server.base / "ti-train" / "runs" / "sampled" / "step00003-0.png") as preview:
        assert preview.size == (72, 64)
    shown = server.picture("a photo of a sampled")
    (server.base / "embeddings" / "sampled.safetensors").unlink()
    shutil.copy(server.base / "ti-train" / "runs" / "sampled" / "step00003-0.png", server.base / "embeddings")
    server.post(f"{API}/refresh")
    assert server.picture("a photo of a sampled") == shown, "a preview is an embedding too"
    with pytest.raises(RefusedError, match="There is no sampler 'Oiler'"):
        begin(server, name="mistaken", preview_sampler="Oiler")


def test_prompts_of_previews_that_are_off_are_told(server):
    assert any(
        "preview_prompts has no effect: preview_every is 0" in message
        for message in learn(server, name="unseen", preview_prompts=["a * in the rain"])["messages"]
    )


def test_more_embeddings_than_the_alphabet_has_letters(server):
    """Of which each is read as if it were alone."""
    assert server.get("/ti-train-test/many-words")["difference"] < 1e-4


def test_on_ones_own_computer_images_may_be_anywhere(server, tmp_path):
    shutil.copytree(server.base / "ti-train" / "pictures" / "toys", tmp_path / "elsewhere")
    learn(server, name="elsewhere", pictures=str(tmp_path / "elsewhere"))


def test_progress_is_the_hosts_own(server):
    job = begin(server, name="seen", steps=8)
    until(server, job, "running", step=2)
    told = server.post("/internal/progress", {"id_task": job, "live_preview": False})
    assert told["active"]
    assert told["progress"] >= 2 / 8
    assert "Training 'seen': step" in told["textinfo"]
    until(server, job, "done")
    assert server.post("/internal/progress", {"id_task": job, "live_preview": False})["completed"]


def test_every_option_reaches_the_training(server):
    given = {name: other_than_default(OPTIONS[name]) for name in {*OPTIONS} - {*NOT_OFFERED, *QUICK}}
    given |= {"name": "all-options", "steps": 4, "preview_every": 4}
    learn(server, **given)
    learnt = load_embedding(server.base / "embeddings" / "all-options.safetensors")
    assert config_of(learnt).items() >= json.loads(json.dumps(given)).items()


def test_a_mask_says_what_is_learnt_and_folders_are_weighed(server):
    toys = server.base / "ti-train" / "pictures" / "toys"
    masked, more = toys.with_name("masked"), toys.with_name("more")
    for folder in (masked, more):
        shutil.copytree(toys, folder)
    Image.new("L", (64, 64), "black").save(masked / "blue-mask.png")
    left_half = Image.new("L", (80, 64), "black")
    left_half.paste("white", (0, 0, 40, 64))
    left_half.save(masked / "red-mask.png")
    done = learn(server, name="masked", pictures="masked")
    assert any("blue.png (mask blue-mask.png): the mask is black" in message for message in done["messages"])
    learn(server, name="unmasked", pictures="masked", mask="none")
    assert not np.array_equal(vectors(server, "masked"), vectors(server, "unmasked"))
    twice = learn(server, name="weighed", more_pictures=["more:2"])
    assert any("is the same image as" in message for message in twice["messages"])


def test_a_folder_as_it_comes_from_a_phone_or_a_mac_is_listed_as_in_every_host(server):
    folder = server.base / "ti-train" / "pictures" / "habits"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.png", ".trashed-1-b.png", ".ipynb_checkpoints/a.png"):
        Image.new("RGB", (64, 64), "teal").save(folder / name)
    for name in ("a_mask.PNG", "c-mask.jpg"):
        Image.new("L", (64, 64), 64).save(folder / name, "PNG")
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / "dead.png").symlink_to(folder / "nothing.png")
    messages = " ".join(learn(server, name="habits", pictures="habits")["messages"])
    for what in ("Skipped dead.png", "Not used as a mask: c-mask.jpg"):
        assert what in messages
    assert "is the same image" not in messages, "only a.png is trained on"


def test_a_file_of_ours_that_is_dropped_into_the_folder_works(server):
    unknown = server.picture("a photo of a dropped")
    values = 0.1 * np.random.default_rng(0).standard_normal((2, 768), dtype=np.float32)
    word = Embedding("dropped", {"emb_params": torch.from_numpy(values)}, {})
    save_embedding(word, server.base / "embeddings" / "dropped.safetensors")
    assert "dropped" in [row["name"] for row in server.post(f"{API}/refresh")]
    assert server.picture("a photo of a dropped") != unknown


def test_a_word_in_a_subfolder_is_used_by_its_own_name(server):
    unknown = server.picture("a photo of a subtoy")
    learn(server, name="pets/subtoy")
    assert (server.base / "embeddings" / "pets" / "subtoy.safetensors").is_file()
    assert (server.base / "ti-train" / "runs" / "pets" / "subtoy" / "loss.csv").is_file()
    assert "subtoy" in server.get("/ti-train-test/state")["words"]
    assert server.picture("a photo of a subtoy") != unknown
    job = begin(server, name="pets/subtoy", steps=500, overwrite=True)
    until(server, job, "running", step=2)
    server.post(f"{API}/interrupt", {"id": job})
    until(server, job, "interrupted")
    again = server.post(f"{API}/resume", {"name": "pets/subtoy"})["id"]
    until(server, again, "running", step=4)
    server.post(f"{API}/interrupt", {"id": again})
    until(server, again, "interrupted")
    with pytest.raises(RefusedError, match="Prompts of the WebUI use an embedding by its name without folders"):
        begin(server, name="subtoy")


def test_numbered_copies_are_words_of_their_own(server):
    unknown = server.picture("a photo of a copied-000002")
    learn(server, name="copied", steps=4, copy_every=2)
    copies = sorted(path.name for path in (server.base / "embeddings" / "copied-steps").iterdir())
    assert copies == ["copied-000002.safetensors", "copied-000004.safetensors"]
    of_step = {row["file"]: row["step"] for row in server.get(f"{API}/list")}
    assert [of_step[f"copied-steps/{copy}"] for copy in copies] == [2, 4]
    assert server.picture("a photo of a copied-000002") != unknown
    learn(server, name="gone-back", init="copied-steps/copied-000002.safetensors", learning_rate="0")
    copy = load_embedding(server.base / "embeddings" / "copied-steps" / "copied-000002.safetensors")
    assert np.array_equal(vectors(server, "gone-back"), copy.vectors["emb_params"].numpy())


def test_a_preview_is_the_picture_of_the_words_card(server):
    """In the WebUI's own extra networks."""
    learn(server, name="carded", preview_every=3)
    with Image.open(io.BytesIO(server.picture_of_card("carded"))) as shown:
        assert shown.size == (64, 64)
    assert "carded" in server.get("/ti-train-test/state")["words"]


# --- Words in other layouts, and of others ---------------------------------------


@pytest.fixture(scope="module")
def cat(server) -> Embedding:
    values = 0.1 * np.random.default_rng(1).standard_normal((2, 768), dtype=np.float32)
    word = Embedding("cat-word", {"emb_params": torch.from_numpy(values)}, {"step": "7"})
    save_embedding(word, server.base / "embeddings" / "cat-word.safetensors")
    server.post(f"{API}/refresh")
    return word


def known(server: Server, name: str) -> None:
    """Waits until prompts can use an embedding."""
    deadline = time.monotonic() + 60
    while name not in server.get("/ti-train-test/state")["words"]:
        assert time.monotonic() < deadline, f"prompts cannot use '{name}'"
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("layout", "file"),
    [("a1111", "as-pt.pt"), ("png", "as-png.png"), ("onetrainer", "as-onetrainer.safetensors")],
)
def test_a_word_is_converted_listed_and_used_in_any_layout(server, cat, layout, file):
    name = file.partition(".")[0]
    written = server.post(f"{API}/convert", {"word": "cat-word", "name": name, "format": layout})
    assert written["files"] == [file]
    assert f"2 x 768 (emb_params), fp32, as {layout}" in written["text"]
    (row,) = [row for row in server.get(f"{API}/list") if row["file"] == file]
    assert (row["name"], row["vectors"], row["widths"], row["step"]) == (name, 2, [768], 7)
    assert server.get(f"{API}/info?name={name}")["text"].startswith(f"{name}: 2 vector(s) of width 768")
    known(server, name)
    assert server.picture(f"a photo of a {name}") == server.picture("a photo of a cat-word")


def test_a_trained_embedding_is_made_editable(server):
    """Its initial text is chosen, and condensed through the WebUI's text encoder."""
    settings = {
        "init": "red toy | toy",
        "num_vectors": 1,
        "initial_vectors": "condensed",
        "steps": 2,
    }
    done = learn(server, name="far", **settings)
    assert "with the lowest validation loss" in json.dumps(done)
    trained = load_embedding(server.base / "embeddings" / "far.safetensors")
    server.post(f"{API}/convert", {"word": "far", "name": "near", "editability": 1})
    assert np.allclose(vectors(server, "near"), initial_of(trained)["emb_params"].numpy(), atol=1e-4)
    assert not np.allclose(vectors(server, "far"), vectors(server, "near"), atol=1e-4)
    learn(server, name="crossed", init="red toy", initial_vectors="cross", steps=1)


def test_words_are_merged(server, cat):
    body = {"words": ["cat-word", "cat-word.safetensors"], "how": "sum", "weights": [1, 0.5], "name": "merged"}
    assert server.post(f"{API}/merge", body | {"precision": "fp16"})["files"] == ["merged.safetensors"]
    assert np.allclose(vectors(server, "merged"), 1.5 * cat.vectors["emb_params"].numpy(), atol=1e-3)
    known(server, "merged")
    with pytest.raises(RefusedError, match=r"The file 'merged\.safetensors' exists"):
        server.post(f"{API}/merge", body)
    server.post(f"{API}/merge", body | {"overwrite": True, "how": "concatenate"})
    assert vectors(server, "merged").shape == (4, 768)


def test_a_picture_that_shows_a_word_is_none(server, cat):
    folder = server.base / "embeddings"
    for name in ("cat-word.png", "cat-word.preview.png"):
        Image.new("RGB", (64, 64), "teal").save(folder / name)
    assert {row["file"] for row in server.get(f"{API}/list") if row["name"].startswith("cat-word")} == {
        "cat-word.safetensors"
    }


def test_two_files_of_one_name_are_told_apart(server, cat):
    body = {"word": "cat-word", "name": "double", "strength": 2}
    server.post(f"{API}/convert", body)
    told = server.post(f"{API}/convert", body | {"format": "a1111"})["text"]
    assert "There is double.safetensors too" in told
    with pytest.raises(RefusedError, match=r"several embeddings 'double': double\.pt, double\.safetensors"):
        server.get(f"{API}/info?name=double")
    assert "double: 2 vector(s)" in server.get(f"{API}/info?name=double.pt")["text"]


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        ("convert", {"word": "../config"}, "There is no embedding '../config'"),
        ("convert", {"word": "/etc/passwd"}, "There is no embedding '/etc/passwd'"),
        ("convert", {"word": "cat-word", "name": "../up"}, "one of dots only. Use a name such as up"),
        ("convert", {"word": "cat-word", "name": "a//b"}, "an empty folder.*Use a name such as a/b"),
        ("convert", {"word": "cat-word", "name": "cat-word"}, "The file 'cat-word.safetensors' exists"),
        ("convert", {"word": "cat-word", "format": "ckpt"}, "safetensors.*a1111"),
        ("convert", {"word": "cat-word", "stength": 2}, "did you mean 'strength'"),
        ("merge", {"words": ["cat-word"]}, "Give two or more embeddings"),
        ("merge", {"words": ["cat-word", "absent"]}, "There is no embedding 'absent'"),
    ],
)
def test_mistakes_with_files_are_told(server, cat, route, body, message):
    before = sorted(path.name for path in server.base.rglob("embeddings/**/*"))
    with pytest.raises(RefusedError, match=message):
        server.post(f"{API}/{route}", {"name": "mistaken"} | body)
    assert sorted(path.name for path in server.base.rglob("embeddings/**/*")) == before


# --- Mistakes, and who may ask ----------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "my cat"}, "Use a name such as my-cat"),
        ({"name": "../up"}, "one of dots only. Use a name such as up"),
        ({"pictures": "../.."}, "is outside of"),
        ({"pictures": "/etc"}, "has no images"),
        ({"pictures": "absent"}, "absent' does not exist"),
        ({"init": "../../secret.safetensors"}, "is outside of the embeddings folder"),
        ({"init": "../../secret.pt"}, "is outside of the embeddings folder"),
        ({"templates": "/etc/passwd"}, "There are no templates '/etc/passwd'"),
        ({"learning_rate": "fast"}, "has an invalid part, 'fast'"),
        ({"preset": "Best"}, "Unknown preset 'Best'"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"mask": "beta"}, "files.*alpha.*none"),
        ({"more_pictures": ["../up:2"]}, "is outside of"),
        ({"learnig_rate": "1e-3"}, "unknown field 'learnig_rate', did you mean 'learning_rate'?"),
        ({"zzz": 1}, r"unknown field 'zzz' \(known: name, "),
    ],
)
def test_mistakes_are_told_at_once(server, settings, message):
    with pytest.raises(RefusedError, match=message):
        server.post(f"{API}/train", QUICK | {"name": "mistaken"} | settings)


def test_a_word_is_not_overwritten_unasked(server):
    (server.base / "embeddings" / "kept.safetensors").write_bytes(b"")
    with pytest.raises(RefusedError, match="'kept' already exists"):
        server.post(f"{API}/train", QUICK | {"name": "kept"})


def test_unknown_jobs_are_404(server):
    with pytest.raises(RefusedError, match="404"):
        server.get(f"{API}/status?id=nobody")


@pytest.mark.parametrize("user", ["tester:wrong", "nobody:secret", ":"])
def test_the_hosts_api_auth_holds(server, user):
    with pytest.raises(RefusedError, match="401"):
        server.get(f"{API}/list", user)


def test_a_page_of_another_site_starts_nothing(server):
    """Also in a browser that knows the password."""
    body, user = json.dumps(QUICK | {"name": "foreigntoy"}).encode(), base64.b64encode(USER.encode()).decode()
    for path, sent in ((f"{API}/train", body), (f"{API}/refresh", b"")):
        for other in foreign(Request("POST", path, sent, {"Content-Type": JSON})):
            if other.headers.get("Origin") == "http://[":  # gradio 4 itself fails to read this one
                continue
            connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
            headers = {**other.headers, "Authorization": f"Basic {user}"}
            connection.request("POST", path, other.body, headers)
            assert connection.getresponse().status == 403, other
            connection.close()
    assert not (server.base / "ti-train" / "runs" / "foreigntoy").exists()


def test_the_api_is_described_in_the_hosts_own_docs(server):
    described = server.get("/openapi.json")
    names = {"train", "status", "interrupt", "stop-and-keep", "resume", "list", "info", "refresh", "convert", "merge"}
    assert {f"{API}/{name}" for name in names} <= set(described["paths"])
    for schema in ("TrainRequest", "ConvertRequest", "MergeRequest", "Written"):
        properties = described["components"]["schemas"][schema]["properties"]
        assert all("description" in field for field in properties.values())
