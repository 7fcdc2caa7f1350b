"""What the page asks the server, without a page: a run as it is seen, Stop and keep, and the pictures' files."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
import workflows as w
from comfyui_server import RefusedError, Server
from PIL import Image
from safetensors import safe_open

from ti_train.formats import load_embedding

pytestmark = pytest.mark.slow


def seen(server: Server, name: str) -> dict[str, Any]:
    """A run as a page that is opened now would show it; {} before it begins."""
    return next((run for run in server.get("/ti_train/runs") if run["name"] == name), {})


def test_stop_and_keep_keeps_the_best_word_and_the_graph_runs_on(server):
    training = w.training(name="kept", steps=2000, learning_rate=5e-4, preview_every=10)  # stays near "toy"
    workflow = training | w.sampling("a photo of a *", ["train", 1], "kept")
    prompt = server.queue(workflow)
    deadline = time.monotonic() + 300
    while "best" not in seen(server, "kept"):
        assert time.monotonic() < deadline, server.said()[-2000:]
        time.sleep(0.2)
    server.post(f"/ti_train/runs/{seen(server, 'kept')['id']}/stop", {})
    history = server.wait(prompt)
    assert history["status"]["status_str"] == "success"
    assert "save" in history["outputs"]

    run = seen(server, "kept")
    assert (run["status"], run["saved"]) == ("stopped", True)
    assert run["prompt"] == "a photo of embedding:kept"
    assert 12 <= run["step"] < 2000
    assert run["best"][0] == run["kept"]
    assert run["why"].startswith(f"Step {run['kept']} ")
    assert [p["step"] for p in run["previews"]][:2] == [0, 10]
    assert run["nearest"][0][0][0] == "toy"
    file = server.base / "models" / "embeddings" / "kept.safetensors"
    best = load_embedding(file)
    assert best.provenance["step"] == str(run["kept"])
    assert best.provenance["kept"] == run["why"]
    with safe_open(file.with_suffix(".resume"), framework="pt") as state:
        assert state.metadata()["step"] == str(run["step"]), "continue goes on from the last step"
        same = best.vectors["emb_params"].equal(state.get_tensor("vectors.clip_l").cpu())
    assert same == (run["kept"] == run["step"])


def wait_for_step(server: Server, name: str, step: int) -> dict[str, Any]:
    deadline = time.monotonic() + 300
    while (run := seen(server, name)).get("step", 0) < step:
        assert time.monotonic() < deadline, server.said()[-2000:]
        time.sleep(0.1)
    return run


def picture(server: Server, path: str) -> Image.Image:
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        return Image.open(io.BytesIO(answer.read()))


def test_a_continued_run_shows_its_earlier_curve_and_previews(server):
    workflow = w.training(name="continued", steps=3000, preview_every=5)
    prompt = server.queue(workflow)
    wait_for_step(server, "continued", 12)
    server.interrupt()
    server.wait(prompt)
    before = seen(server, "continued")
    assert (before["status"], before["prompt_id"]) == ("cancelled", prompt)
    workflow["train"]["inputs"]["if_exists"] = "continue"
    prompt = server.queue(workflow)
    after = wait_for_step(server, "continued", before["step"] + 6)
    server.interrupt()
    server.wait(prompt)
    assert after["id"] == before["id"]
    assert after["loss"][: len(before["loss"])] == [pytest.approx(point, rel=1e-4) for point in before["loss"]]
    assert [p["step"] for p in after["previews"]][:3] == [0, 5, 10]
    numbers = [p["number"] for p in seen(server, "continued")["previews"]]
    assert numbers == sorted(set(numbers))
    for number in (numbers[0], numbers[-1]):
        assert picture(server, f"/ti_train/runs/{after['id']}/previews/{number}").format == "JPEG"


def test_a_step_is_kept_by_its_preview(server):
    """With the vectors that the preview shows, of a run that has ended too; thumbnails are small."""
    server.run(w.training(name="stepped", steps=6, preview_every=3))
    run = seen(server, "stepped")
    address = f"/ti_train/runs/{run['id']}/previews"
    (third,) = (p["number"] for p in run["previews"] if p["step"] == 3)
    assert server.post(f"{address}/{third}/keep", {}) == {"name": "stepped-step3", "step": 3}
    folder = server.base / "models" / "embeddings"
    kept, last = load_embedding(folder / "stepped-step3.safetensors"), load_embedding(folder / "stepped.safetensors")
    assert (kept.name, kept.provenance["step"]) == ("stepped-step3", "3")
    assert not kept.vectors["emb_params"].equal(last.vectors["emb_params"])
    assert Image.open(folder / "stepped-step3.preview.png").size == picture(server, f"{address}/{third}").size
    assert server.post(f"{address}/{third}/keep", {})["name"] == "stepped-step3-2", "nothing is overwritten"
    full = picture(server, f"{address}/{third}")
    assert max(picture(server, f"{address}/{third}?small=1").size) == min(136, max(full.size))
    for number in ("99", "9" * 5000, "-1", "x"):
        with pytest.raises(RefusedError, match="preview"):
            server.post(f"{address}/{number}/keep", {})


def test_past_runs_are_recorded_with_curve_and_settings(server):
    server.run(w.training(name="recorded", steps=5, preview_every=2))
    (listed,) = (run for run in server.get("/ti_train/records") if run["name"] == "recorded")
    assert (listed["status"], listed["step"]) == ("done", 5)
    assert listed["settings"]["steps"] == 5
    run = server.get(f"/ti_train/runs/{listed['id']}")
    assert [step for step, _ in run["loss"]] == [1, 2, 3, 4, 5]
    assert [p["step"] for p in run["previews"]] == [0, 2, 4, 5]
    for unknown in ("0" * 32, "x", "%2e%2e%2f%2e%2e"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.get(f"/ti_train/runs/{unknown}")


def test_embeddings_are_renamed_and_removed_with_what_belongs_to_them(server):
    server.run(w.training(name="old-name", steps=2, preview_every=1) | {"options": w.options(copy_every=1)})
    folder = server.base / "models" / "embeddings"
    preview = (folder / "old-name.preview.png").read_bytes()
    old = load_embedding(folder / "old-name.safetensors")
    (folder / "taken.pt").write_bytes(b"another")
    assert "old-name.safetensors" in [one["file"] for one in server.get("/ti_train/embeddings")]
    renamed = server.post("/ti_train/embeddings/rename", {"file": "old-name.safetensors", "name": "new-name"})
    assert renamed == {"file": "new-name.safetensors"}
    assert (folder / "new-name.preview.png").read_bytes() == preview
    assert not list(folder.glob("old-name*"))
    new = load_embedding(folder / "new-name.safetensors")
    assert new.vectors["emb_params"].equal(old.vectors["emb_params"])
    assert "old-name" not in str(new.provenance)
    assert (folder / "new-name-steps" / "new-name-000001.safetensors").is_file()
    assert [run["name"] for run in server.get("/ti_train/records") if run["name"].endswith("-name")] == ["new-name"]
    (folder / "taken.safetensors").write_bytes(b"another")
    for file, name, message in (
        ("new-name.safetensors", "taken", "exists already"),
        ("new-name.safetensors", "../up", "The name '../up'"),
        ("../checkpoints/sd1.safetensors", "mine", "not in the embeddings folder"),
    ):
        with pytest.raises(RefusedError, match=message):
            server.post("/ti_train/embeddings/rename", {"file": file, "name": name})
    to = server.post("/ti_train/embeddings/remove", {"file": "new-name.safetensors"})["to"]
    assert to == "user/ti_train/removed/new-name.safetensors"
    assert load_embedding(server.base / to).vectors
    assert (server.base / to).with_name("new-name.preview.png").is_file()
    assert (server.base / to).with_name("new-name-steps").is_dir()
    assert not list(folder.glob("new-name*"))
    for name in ("taken.pt", "taken.safetensors"):
        (folder / name).unlink()


def test_an_embedding_that_is_being_trained_is_not_renamed(server):
    prompt = server.queue(w.training(name="busy", steps=3000))
    wait_for_step(server, "busy", 2)
    with pytest.raises(RefusedError, match="is being trained"):
        server.post("/ti_train/embeddings/rename", {"file": "busy.safetensors", "name": "idle"})
    server.interrupt()
    server.wait(prompt)


@pytest.mark.parametrize("resolution", ["-8", "999999", "1e9", "9" * 5000, "x"])
def test_a_resolution_out_of_range_is_refused(server, resolution):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        server.get(f"/ti_train/pictures?folder=toys&resolution={resolution}")


def test_the_ends_of_runs_are_told_apart(server):
    server.run(w.training(name="through", steps=1))
    assert seen(server, "through")["status"] == "done"
    with pytest.raises(AssertionError, match="num_vectors is 2"):
        server.run(w.training(name="not-through", steps=1, initial_text="through.safetensors", num_vectors=2))
    run = seen(server, "not-through")
    assert run["status"] == "failed"
    assert "num_vectors is 2" in run["message"]


def test_pictures_are_described_as_training_will_see_them(server):
    folder = server.base / "input" / "described"
    folder.mkdir()
    for name, size in (("a-wide", (640, 480)), ("b-tall", (300, 400))):
        Image.new("RGB", size, "teal").save(folder / f"{name}.png")
    (folder / "c-same.png").write_bytes((folder / "a-wide.png").read_bytes())
    (folder / "d-broken.png").write_bytes(b"no picture")
    (folder / "a-wide.txt").write_text("a wide one", encoding="utf-8")
    answer = server.get("/ti_train/pictures?folder=described&resolution=512")
    wide, tall, same, broken = answer["pictures"]
    assert answer["side"] == 512
    assert (wide["caption"], wide["warnings"]) == ("a wide one", [])
    kept = (576 / 448) / (640 / 480)  # of four by three, the nearest bucket of 512 x 512 pixels is 576 x 448
    assert wide["crop"] == pytest.approx([(1 - kept) / 2, 0, kept, 1])
    assert tall["crop"] == pytest.approx([0, (1 - kept) / 2, 1, kept])
    assert tall["warnings"] == [{"kind": "small", "width": 300, "height": 400, "resolution": 512}]
    assert same["warnings"] == [{"kind": "copy", "of": "a-wide.png"}]
    assert broken["warnings"] == [{"kind": "unreadable"}]

    own = server.get("/ti_train/pictures?folder=described&resolution=0")
    assert own["side"] == 0, "the model's own resolution, which the page does not know"
    assert own["pictures"][:2] == [wide, tall]
    square = server.get("/ti_train/pictures?folder=described&resolution=512&square=1")["pictures"][0]
    assert square["crop"] == pytest.approx([0.125, 0, 0.75, 1])


def test_a_folder_as_it_comes_from_a_phone_or_a_mac_is_listed_and_loaded(server):
    """Hidden files, dead links, masks by every name, and a caption in an old encoding fail nothing."""
    folder = server.base / "input" / "habits"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.png", ".trashed-1-b.png", ".ipynb_checkpoints/a.png"):
        Image.new("RGB", (64, 64), "teal").save(folder / name)
    for name in ("a_mask.PNG", "b-mask.jpg"):
        Image.new("L", (64, 64), 64).save(folder / name, "PNG")
    for name in ("._a.png", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "dead.png").symlink_to(folder / "nothing.png")
    (folder / "A.TXT").write_bytes("赤いソファ".encode("shift_jis"))
    answer = server.get("/ti_train/pictures?folder=habits&subfolders=1&resolution=64")
    assert [picture["file"] for picture in answer["pictures"]] == ["habits/a.png"]
    told = " ".join(answer["remarks"])
    for what in ("Skipped dead.png", "Not used as a mask: b-mask.jpg", "A.TXT cannot be read as text"):
        assert what in told
    loading = {"pictures": w.node("TITrain_LoadTrainingImages", folder="habits", subfolders=True)}
    loading["show"] = w.node("MaskToImage", mask=["pictures", 2])
    loading["save"] = w.node("SaveImage", images=["show", 0], filename_prefix="habits")
    (shown,) = server.files(server.run(loading), "save")
    assert Image.open(shown).convert("L").getextrema() == (64, 64)


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_images_that_are_linked_into_the_input_directory_are_shown_and_captioned(server, tmp_path, linked):
    """As ComfyUI itself loads them; they may lie on another disk."""
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "a.png")
    folder = server.base / "input" / f"linked-{linked}"
    if linked == "folder":
        folder.symlink_to(tmp_path, target_is_directory=True)
    else:
        folder.mkdir()
        (folder / "a.png").symlink_to(tmp_path / "a.png")
    file = f"{folder.name}/a.png"
    (shown,) = server.get(f"/ti_train/pictures?folder={folder.name}")["pictures"]
    assert shown["file"] == file
    assert picture(server, f"/ti_train/thumbnail?file={file}").size == (64, 48)
    assert server.post("/ti_train/caption", {"file": file, "text": "a teal one"}) == {"caption": "a teal one"}
    assert (folder / "a.txt").read_text(encoding="utf-8") == "a teal one"
    assert server.post("/ti_train/remove", {"file": file})["to"] == f"{folder.name}/removed/a.png"


@pytest.mark.parametrize(
    "path", ["/ti_train/thumbnail?file=../server.log", "/ti_train/thumbnail?file=/etc/passwd",
             "/ti_train/runs/none/previews/0"],
)  # fmt: skip
def test_files_outside_of_the_input_directory_are_not_shown(server, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        server.get(path)


def test_what_is_linked_into_the_input_directory_is_shown_and_captioned_like_the_rest(server, tmp_path):
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.png")
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "b.png")
    folder = server.base / "input" / "links"
    folder.mkdir()
    (folder / "one.png").symlink_to(tmp_path / "a.png")
    (folder / "all").symlink_to(tmp_path, target_is_directory=True)
    listed = server.get("/ti_train/pictures?folder=links&subfolders=1")["pictures"]
    files = [each["file"] for each in listed]
    assert files == ["links/one.png", "links/all/a.png", "links/all/b.png"]
    for file in files:
        assert picture(server, f"/ti_train/thumbnail?file={file}").size == (64, 64)
        assert server.post("/ti_train/caption", {"file": file, "text": "a caption"}) == {"caption": "a caption"}
    assert (folder / "one.txt").read_text(encoding="utf-8") == "a caption"
    assert server.post("/ti_train/remove", {"file": "links/one.png"}) == {"to": "links/removed/one.png"}
    assert (tmp_path / "a.png").is_file()


def test_clearing_a_caption_of_a_table_clears_it(server):
    folder = server.base / "input" / "table"
    folder.mkdir()
    Image.new("RGB", (64, 64), "teal").save(folder / "a.png")
    (folder / "metadata.csv").write_text("file_name,text\na.png,a toy\n", encoding="utf-8")
    assert server.post("/ti_train/caption", {"file": "table/a.png", "text": ""}) == {"caption": ""}
    (found,) = server.get("/ti_train/pictures?folder=table")["pictures"]
    assert found["caption"] == ""


def test_captions_are_written_beside_pictures_only(server):
    outside = server.base / "models" / "embeddings" / "outside.png"
    outside.write_bytes(b"")
    for file in ("../models/embeddings/outside.png", "toys/missing.png", "toys/red.txt"):
        with pytest.raises(RefusedError):
            server.post("/ti_train/caption", {"file": file, "text": "a caption"})
    assert not outside.with_suffix(".txt").exists()
    assert "outside of ComfyUI's input directory" in server.get("/ti_train/pictures?folder=../models")["error"]


def test_a_removed_picture_is_put_aside_with_its_caption_and_mask(server):
    """Nothing is replaced or deleted, and what lies aside is not read, with subfolders neither."""
    folder = server.base / "input" / "aside"
    for name in ("one.png", "one.webp", "two.png", "two-mask.png", "masks/one.png", "inner/three.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "white").save(folder / name)
    for name in ("one", "two"):
        (folder / f"{name}.txt").write_text(f"picture {name}", encoding="utf-8")

    def remove(file: str) -> str:
        return server.post("/ti_train/remove", {"file": f"aside/{file}"})["to"]

    def left() -> list[str]:
        seen = server.get("/ti_train/pictures?folder=aside&subfolders=1")["pictures"]
        return [picture["file"].removeprefix("aside/") for picture in seen]

    def aside() -> list[str]:
        return sorted(file.relative_to(folder / "removed").as_posix() for file in (folder / "removed").rglob("*.*"))

    assert left() == ["one.png", "one.webp", "two.png", "inner/three.png"], "masks are no pictures"
    assert remove("two.png") == "aside/removed/two.png"
    assert aside() == ["two-mask.png", "two.png", "two.txt"]
    Image.new("RGB", (64, 64), "navy").save(folder / "two.png")
    assert remove("two.png") == "aside/removed/two-2.png"
    assert remove("one.png") == "aside/removed/one.png"
    assert left() == ["one.webp", "inner/three.png"]
    assert (folder / "one.txt").read_text(encoding="utf-8") == "picture one", "the other picture one keeps its caption"
    assert (folder / "masks" / "one.png").is_file()
    assert remove("one.webp") == "aside/removed/one-2.webp"
    assert remove("inner/three.png") == "aside/inner/removed/three.png"
    assert aside() == [
        "masks/one-2.png", "masks/one.png", "one-2.txt", "one-2.webp", "one.png", "one.txt",
        "two-2.png", "two-mask.png", "two.png", "two.txt",
    ]  # fmt: skip
    for file in ("aside/two.png", "../models/checkpoints/sd1.safetensors", "aside/removed/one.txt"):
        with pytest.raises(RefusedError):
            server.post("/ti_train/remove", {"file": file})
