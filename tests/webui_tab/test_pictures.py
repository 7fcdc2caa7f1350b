"""Folders of training images in the WebUIs' tab; no WebUI is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ti_train.data.listing import Listing


@pytest.fixture
def data(load_in_webui, tmp_path, monkeypatch) -> Path:
    """The WebUI's data folder, as its options say: pictures/cat of an embedding that is trained, and embeddings/.

    What is in it counts as uploaded.
    """
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    webui = sys.modules["modules"]
    webui.paths_internal.data_path = str(tmp_path)
    webui.shared.opts = SimpleNamespace(ti_train_folder="")
    webui.shared.cmd_opts = SimpleNamespace(
        embeddings_dir=str(tmp_path / "embeddings"),
        webui_is_non_local=False,
        hide_ui_dir_config=False,
        gradio_allowed_path=[str(tmp_path), str(tmp_path / "allowed")],  # the first is the option's default
    )
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "cat.safetensors").touch()
    drawn(tmp_path / "ti-train" / "pictures" / "cat" / "one.png")
    return tmp_path


def drawn(path: Path, colour: str = "teal") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


@pytest.fixture
def pictures(load_in_webui, data) -> Any:
    return load_in_webui("webui_tab.pictures")


@pytest.fixture
def folders(load_in_webui, data) -> Any:
    return load_in_webui("webui_tab.folders")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_names_in_another_encoding_are_not_sent_to_the_page(pictures, folders, data):
    """As an archive of Windows leaves them; gradio cannot write them, so that the whole WebUI would not start."""
    modules, root = sys.modules["modules"], data / "ti-train" / "pictures"
    modules.shared.cmd_opts.textual_inversion_templates_dir = str(data)
    other = os.fsdecode("Häuschen".encode("cp1252"))
    try:
        drawn(root / other / "one.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    drawn(root / "cat" / f"{other}.png")
    for file in (data / "embeddings" / f"{other}.pt", data / "embeddings" / other / "dog.pt", data / f"{other}.txt"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert folders.picture_folders() == ["cat"]
    assert [path.name for path in folders.embedding_files()] == ["cat.safetensors"]
    assert folders.template_files() == {}
    found = pictures.shown("cat", "none")
    assert [name for _, name in found.thumbnails] == [name for name, _ in found.captions] == ["one.png"]
    assert found.problems == [
        "H\\udce4uschen.png is trained but not shown: its name is in another encoding. Rename it."
    ]


def test_uploads_join_the_chosen_folder(pictures, data):
    folder, note = pictures.uploaded([str(drawn(data / "two.png"))], "cat", "cat")
    assert (folder, note) == ("cat", "Added 1 file(s) to 'cat'.")
    assert names(data / "ti-train" / "pictures" / "cat") == {"one.png", "two.png"}


def test_nothing_but_images_is_uploaded(pictures, data):
    """The page's own filter is not asked by who speaks to the server directly."""
    (data / "script.py").write_text("print()")
    with pytest.raises(ValueError, match=r"script\.py: no image"):
        pictures.uploaded([str(drawn(data / "two.png")), str(data / "script.py")], "cat", str(data))
    assert names(data / "ti-train" / "pictures" / "cat") == {"one.png"}


@pytest.mark.parametrize("of_gradio_3", [True, False])
def test_nothing_is_uploaded_but_what_a_page_has_sent(pictures, data, tmp_path_factory, of_gradio_3):
    """Not another file of the server, which who speaks to it directly names; see test_webui_uploads.py too."""
    outside = drawn(tmp_path_factory.mktemp("elsewhere") / "secret.png")
    copy = drawn(data / "copies" / "secret.png")
    for named in (outside, os.path.relpath(outside), data / ".." / outside.parent.name / outside.name):
        file = SimpleNamespace(name=str(copy), orig_name=str(named)) if of_gradio_3 else str(named)
        with pytest.raises(ValueError, match=r"secret\.png was not uploaded"):
            pictures.uploaded([file], "cat", "cat")
    assert names(data / "ti-train" / "pictures" / "cat") == {"one.png"}


def test_an_upload_overwrites_no_other_image_of_its_name(pictures, data):
    folder = data / "ti-train" / "pictures" / "cat"
    before = (folder / "one.png").read_bytes()
    other = str(drawn(data / "one.png", "red"))
    pictures.uploaded([other], "cat", "cat")
    pictures.uploaded([other], "cat", "cat")  # it is there already
    assert names(folder) == {"one.png", "one-2.png"}
    assert (folder / "one.png").read_bytes() == before


@pytest.mark.parametrize("name", ["dog", ""])
def test_the_chosen_folder_gets_the_upload_whoever_it_belongs_to(pictures, data, name):
    folder, note = pictures.uploaded([str(drawn(data / "two.png"))], name, "cat")
    assert folder == "cat"
    assert "'cat' holds the images of another embedding. For a folder of its own press New folder first." in note
    assert names(data / "ti-train" / "pictures" / "cat") == {"one.png", "two.png"}


def test_only_without_a_chosen_folder_there_is_a_new_one(pictures, data):
    two = str(drawn(data / "two.png"))
    assert pictures.uploaded([two], "cat", "") == ("cat-2", "Added 1 file(s) to 'cat-2'.")
    assert names(data / "ti-train" / "pictures" / "cat-2") == {"two.png"}
    with pytest.raises(ValueError, match="The name '' cannot be used"):
        pictures.uploaded([two], "", "")


def test_a_mask_replaces_the_mask_of_an_image(pictures, data):
    mask = drawn(data / "ONE_mask.png", "black")
    for colour in ("black", "white"):
        drawn(mask, colour)
        assert pictures.uploaded([str(mask)], "dog", "cat") == ("cat", "Added 1 file(s) to 'cat'.")
    folder = data / "ti-train" / "pictures" / "cat"
    assert names(folder) == {"one.png", "one_mask.png"}
    assert (folder / "one_mask.png").read_bytes() == mask.read_bytes()


def masks_of(folder: Path) -> dict[str, str]:
    """Every image that is trained, with the colour of its mask or ""."""
    listing = Listing.of(folder)
    return {image.name: colour_of(listing.masks[image]) if image in listing.masks else "" for image in listing.images}


def colour_of(image: Path) -> str:
    return "white" if Image.open(image).convert("L").getpixel((0, 0)) else "black"


@pytest.mark.parametrize("order", [1, -1])
def test_a_mask_follows_its_image_to_a_new_name(pictures, data, order):
    """As cameras name the images of two folders alike."""
    folder = data / "ti-train" / "pictures" / "cat"
    drawn(folder / "one-mask.png", "black")
    uploads = [drawn(data / "new" / "one.png", "red"), drawn(data / "new" / "one-mask.png", "white")]
    for _ in range(2):
        pictures.uploaded([str(file) for file in uploads[::order]], "cat", "cat")
    assert masks_of(folder) == {"one.png": "black", "one-2.png": "white"}
    drawn(uploads[1], "black")
    pictures.uploaded([str(file) for file in uploads], "cat", "cat")
    assert masks_of(folder) == {"one.png": "black", "one-2.png": "black"}


def test_an_image_takes_no_mask_or_caption_of_an_image_with_another_ending(pictures, data):
    folder = data / "ti-train" / "pictures" / "cat"
    drawn(folder / "one-mask.png", "black")
    (folder / "one.txt").write_text("a red one")
    pictures.uploaded([str(drawn(data / "One.bmp", "red"))], "cat", "cat")
    assert masks_of(folder) == {"One-2.bmp": "", "one.png": "black"}
    assert [row[1] for row in pictures.shown("cat", "files").captions] == ["", "a red one"]


def test_a_mask_without_an_image_is_never_numbered_into_an_image(pictures, data):
    folder = data / "ti-train" / "pictures" / "cat"
    for colour in ("black", "white"):
        pictures.uploaded([str(drawn(data / "b-mask.png", colour))], "cat", "cat")
    assert names(folder) == {"one.png", "b-mask.png", "b-2-mask.png"}
    pictures.uploaded([str(drawn(data / "b.png", "red")), str(drawn(data / "b-mask.png", "white"))], "cat", "cat")
    assert masks_of(folder) == {"b-3.png": "white", "one.png": ""}


def test_a_full_disk_is_reported_and_leaves_the_images_as_they_were(pictures, data, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    folder = data / "ti-train" / "pictures" / "cat"
    mask = drawn(folder / "one-mask.png", "black")
    before, other = mask.read_bytes(), drawn(data / "one-mask.png", "white")
    monkeypatch.setattr("os.fsync", full)
    for write in (
        lambda: pictures.uploaded([str(other)], "cat", "cat"),
        lambda: pictures.write_captions("cat", [["one.png", "a caption"]], [["one.png", ""]]),
    ):
        with pytest.raises(ValueError, match=r"cat' cannot be written to \(No space left on device\)"):
            write()
    assert names(folder) == {"one.png", "one-mask.png"}
    assert mask.read_bytes() == before


def test_only_captions_that_were_edited_are_written(pictures, data):
    """What the table cannot show as it is, and what has changed since, stays on disk bit for bit."""
    folder = data / "ti-train" / "pictures" / "cat"
    contents = {
        "another": b"a toy",
        "emptied": b"a toy",
        "edited": b"a toy",
        "gbk": "红猫".encode("gbk"),  # shown as Windows-1252
        "lines": b"a red toy\non a table\n",
        "newer": b"a toy",
        "shift-jis": "赤い猫".encode("shift-jis"),  # shown as nothing
    }
    for name, content in contents.items():
        drawn(folder / f"{name}.png")
        (folder / f"{name}.txt").write_bytes(content)
    shown = pictures.shown("cat", "none").captions
    (folder / "newer.txt").write_bytes(b"by another program")
    edits = {"edited.png": "a red toy", "emptied.png": "", "one.png": "a first caption"}
    rows = [[name, edits.get(name, caption)] for name, caption in shown] + [["", ""]]
    assert pictures.write_captions("cat", rows, shown) == 3
    kept = {path.stem: path.read_bytes() for path in folder.glob("*.txt")}
    del contents["emptied"]
    changed = {"edited": b"a red toy", "newer": b"by another program", "one": b"a first caption"}
    assert kept == contents | changed


def test_a_folder_that_cannot_be_read_is_listed_and_tells_so(pictures, folders, data, monkeypatch):
    locked, listed = data / "ti-train" / "pictures" / "locked", Path.iterdir
    locked.mkdir()

    def iterdir(self: Path) -> Any:
        if self == locked:
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert folders.picture_folders() == ["cat", "locked"]
    with pytest.raises(ValueError, match=r"locked' cannot be read \(Permission denied\)"):
        pictures.shown("locked", "files")


def test_a_removed_image_is_kept_aside(pictures, folders, data):
    folder = data / "ti-train" / "pictures" / "cat"
    drawn(folder / "two.png")
    assert pictures.remove("cat", "two.png") == "Moved two.png to 'cat/removed'."
    assert names(folder) == {"one.png", "removed"}
    assert folders.picture_folders() == ["cat"]


@pytest.mark.parametrize("name", ["..", "../..", "", "../cat", "/etc"])
def test_on_a_server_no_name_leads_outside(folders, name):
    sys.modules["modules"].shared.cmd_opts.webui_is_non_local = True
    with pytest.raises(ValueError, match="is outside of"):
        folders.picture_folder(name)


def test_a_server_may_allow_a_path_for_reading(folders, data):
    sys.modules["modules"].shared.cmd_opts.webui_is_non_local = True
    allowed = str(data / "allowed" / "dogs")
    assert folders.picture_folder(allowed) == Path(allowed)
    with pytest.raises(ValueError, match="is outside of"):
        folders.picture_folder(allowed, write=True)


def test_the_webuis_data_folder_is_not_allowed_by_the_default_of_gradios_option(folders, data):
    sys.modules["modules"].shared.cmd_opts.webui_is_non_local = True
    with pytest.raises(ValueError, match="is outside of"):
        folders.picture_folder(str(data / "outputs" / "txt2img-images"))


def test_on_ones_own_computer_any_whole_path_is_allowed_as_in_the_webuis_own_batch_tabs(folders, tmp_path):
    assert folders.picture_folder(str(tmp_path), write=True) == tmp_path
    with pytest.raises(ValueError, match="is outside of"):
        folders.picture_folder("../..")
    sys.modules["modules"].shared.cmd_opts.hide_ui_dir_config = True
    with pytest.raises(ValueError, match="is outside of"):
        folders.picture_folder(str(tmp_path))


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "cat/../../../elsewhere", "cat\0"])
def test_what_is_outside_by_its_name_is_not_looked_at(folders, data, monkeypatch, name):
    """On Windows it can be on another computer."""
    sys.modules["modules"].shared.cmd_opts.webui_is_non_local = True
    looked, resolve = [], Path.resolve
    monkeypatch.setattr(Path, "resolve", lambda path, *given: looked.append(str(path)) or resolve(path, *given))
    for ask in (folders.picture_folder, folders.existing_embedding):
        with pytest.raises(ValueError, match="is outside of"):
            ask(name)
    assert not [path for path in looked if "elsewhere" in path]


def test_a_link_leads_to_no_embedding_outside(folders, data, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (data / "embeddings" / "link").symlink_to(outside / "deep", target_is_directory=True)
    (outside / "deep").mkdir()
    with pytest.raises(ValueError, match="is outside of"):
        folders.existing_embedding("link/secret.pt")
    assert folders.existing_embedding("link/../cat.pt") == data / "embeddings" / "cat.pt"
