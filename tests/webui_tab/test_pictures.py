"""Folders of training images in the WebUIs' tab; no WebUI is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def data(load_in_webui, tmp_path) -> Path:
    """The WebUI's data folder, as its options say: pictures/cat of an embedding that is trained, and embeddings/."""
    webui = sys.modules["modules"]
    webui.paths_internal.data_path = str(tmp_path)
    webui.shared.opts = SimpleNamespace(ti_train_folder="")
    webui.shared.cmd_opts = SimpleNamespace(
        embeddings_dir=str(tmp_path / "embeddings"),
        webui_is_non_local=False,
        hide_ui_dir_config=False,
        gradio_allowed_path=[str(tmp_path / "allowed")],
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


def test_an_upload_overwrites_no_other_image_of_its_name(pictures, data):
    folder = data / "ti-train" / "pictures" / "cat"
    before = (folder / "one.png").read_bytes()
    other = str(drawn(data / "one.png", "red"))
    pictures.uploaded([other], "cat", "cat")
    pictures.uploaded([other], "cat", "cat")  # it is there already
    assert names(folder) == {"one.png", "one-2.png"}
    assert (folder / "one.png").read_bytes() == before


def test_the_images_of_another_trained_embedding_are_not_mixed_with_these(pictures, data):
    folder, note = pictures.uploaded([str(drawn(data / "two.png"))], "dog", "cat")
    assert folder == "dog"
    assert "'cat' holds the images of another embedding" in note
    assert names(data / "ti-train" / "pictures" / "cat") == {"one.png"}


def test_a_mask_replaces_the_mask_of_an_image(pictures, data):
    mask = drawn(data / "one-mask.png", "black")
    pictures.uploaded([str(mask)], "dog", "cat")
    drawn(mask, "white")
    pictures.uploaded([str(mask)], "dog", "cat")
    folder = data / "ti-train" / "pictures" / "cat"
    assert names(folder) == {"one.png", "one-mask.png"}
    assert (folder / "one-mask.png").read_bytes() == mask.read_bytes()


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


def test_on_ones_own_computer_any_whole_path_is_allowed_as_in_the_webuis_own_batch_tabs(folders, tmp_path):
    assert folders.picture_folder(str(tmp_path), write=True) == tmp_path
    with pytest.raises(ValueError, match="is outside of"):
        folders.picture_folder("../..")
    sys.modules["modules"].shared.cmd_opts.hide_ui_dir_config = True
    with pytest.raises(ValueError, match="is outside of"):
        folders.picture_folder(str(tmp_path))
