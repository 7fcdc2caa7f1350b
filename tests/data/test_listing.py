"""The listing of a folder: what is trained on, and what belongs to it by its name."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path, PurePath

import pytest
from PIL import Image

from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.data.listing import Listing, subfolders
from ti_train.errors import UserError

DECOMPOSED = unicodedata.normalize("NFD", "café")
KINDS = [
    "-mask",
    "_mask",
    ".mask",
    "-Mask",
    "-MASK",
    "-masklabel",
    "-Masklabel",
    *(f"-masklabel{n}" for n in range(1, 10)),
]


def picture(path: Path, colour: int = 9) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (32, 32), (colour, 0, 0)).save(path, path.suffix[1:].lower().replace("jpg", "jpeg"))
    return path


def mask(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (32, 32), 255).save(path, path.suffix[1:].lower().replace("jpg", "jpeg"))
    return path


def test_the_picture_of_an_embedding_is_no_training_image(tmp_path):
    """Unless the embedding is not there, so that it may be anything."""
    for name in ("cat.png", "cat.preview.png", "dog.preview.png", "my.preview.cat.preview.jpg"):
        picture(tmp_path / name)
    for name in ("cat", "my.preview.cat"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert [path.name for path in find_pictures(tmp_path)] == ["cat.png", "dog.preview.png"]


@pytest.mark.parametrize("ending", [".png", ".PNG", ".jpg", ".webp"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_by_any_of_its_names_is_a_mask_and_no_image(tmp_path, kind, ending):
    image, its_mask = picture(tmp_path / "0.png"), mask(tmp_path / f"0{kind}{ending}")
    listing = Listing.of(tmp_path)
    assert (listing.images, listing.masks, listing.remarks(True, True)) == ([image], {image: its_mask}, [])
    (read,) = read_pictures(listing.images, 32, [])
    assert read.mask is not None


@pytest.mark.parametrize("name", ["masks/cat.png", "Masks/CAT.jpg", "MASKS/cat-mask.webp"])
def test_masks_may_lie_in_a_folder_of_their_own(tmp_path, name):
    image, its_mask = picture(tmp_path / "cat.jpg"), mask(tmp_path / name)
    assert Listing.of(tmp_path).masks == {image: its_mask}
    assert subfolders(tmp_path) == []


def test_the_first_of_several_masks_is_used_and_the_others_are_told(tmp_path):
    """OneTrainer takes -masklabel and -masklabel1 to 9 in turn."""
    image = picture(tmp_path / "a.png")
    for name in ("a-masklabel2.png", "a-masklabel.png", "a-masklabel1.png"):
        mask(tmp_path / name)
    listing = Listing.of(tmp_path)
    assert listing.masks == {image: tmp_path / "a-masklabel.png"}
    (remark,) = listing.remarks(captions=False, masks=True)
    assert remark.startswith("Not used as a mask: a-masklabel1.png, a-masklabel2.png.")
    assert listing.remarks(captions=True, masks=False) == []


def test_onetrainers_conditioning_images_are_not_trained_on(tmp_path):
    image = picture(tmp_path / "a.png")
    picture(tmp_path / "a-condlabel.png")
    listing = Listing.of(tmp_path)
    assert (listing.images, listing.masks, listing.remarks(True, True)) == ([image], {}, [])


def test_a_mask_without_its_image_is_an_image_only_where_it_may_be_one(tmp_path):
    lonely = picture(tmp_path / "cat-mask.png")
    listing = Listing.of(tmp_path)
    assert listing.images == [lonely]
    assert listing.remarks(False, True) == [
        "cat-mask.png is named like a mask, but there is no image of that name: it is trained as an image."
    ]
    image = picture(tmp_path / "dog.png")
    mask(tmp_path / "dog-mask.png")
    listing = Listing.of(tmp_path)
    assert listing.images == [image]
    assert listing.unused_masks == [lonely]


HIDDEN = ["._a.png", ".trashed-x.jpg", ".hidden.png", "Thumbs.db", "desktop.ini", ".DS_Store", ".a.txt", "._a-mask.png"]


def test_hidden_files_and_folders_are_not_there(tmp_path):
    image = picture(tmp_path / "a.png")
    for name in HIDDEN:
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    for name in (".ipynb_checkpoints", "__MACOSX", "masks", "Removed"):
        picture(tmp_path / name / "a.png")
    inner = picture(tmp_path / "more" / "b.png")
    listing = Listing.of(tmp_path)
    assert (listing.images, listing.captions, listing.remarks(True, False)) == ([image], {}, [])
    assert subfolders(tmp_path) == [inner.parent]


def test_a_link_to_nothing_is_skipped_and_told(tmp_path):
    image = picture(tmp_path / "a.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "dead.txt").symlink_to(tmp_path / "nothing.txt")
    warnings: list[str] = []
    assert [p.name for p in read_pictures(find_pictures(tmp_path), 32, warnings)] == [image.name]
    assert warnings == ["Skipped dead.png, dead.txt: there is no file, or the link leads to none."]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are files elsewhere only")
def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"Skipped pipe\.png"):
        find_pictures(tmp_path)


@pytest.mark.parametrize(
    ("image", "caption"),
    [
        ("IMG_1.PNG", "IMG_1.TXT"), ("IMG_1.png", "img_1.txt"), ("a.png", "a.caption"), ("x.jpg", "x.jpg.txt"),
        (f"{DECOMPOSED}.png", "café.txt"), ("café.png", f"{DECOMPOSED}.txt"), ("v1.5.png", "v1.5.txt"),
    ],
)  # fmt: skip
def test_a_caption_may_differ_in_letter_case_and_unicode_form(tmp_path, image, caption):
    (tmp_path / caption).write_text("toy")
    shown = picture(tmp_path / image)
    assert Listing.of(tmp_path).captions == {shown: tmp_path / caption}


def test_a_file_that_is_named_exactly_goes_first(tmp_path):
    image = picture(tmp_path / "a.png")
    for name in ("a.txt", "A.TXT"):
        (tmp_path / name).write_text(name)
    listing = Listing.of(tmp_path)
    if len(list(tmp_path.glob("*.[tT]*"))) == 2:  # where letter case makes two files
        assert listing.captions == {image: tmp_path / "a.txt"}
        assert listing.remarks(True, False)[0].startswith("Not used as a caption: A.TXT.")


def test_captions_and_masks_for_no_image_are_named(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("toy")
    mask(tmp_path / "masks" / "c.png")
    warnings: list[str] = []
    list(read_pictures(find_pictures(tmp_path), 32, warnings, captions=True))
    assert [warning.partition(". ")[0] for warning in warnings[:2]] == [
        "Not used as a caption: b.txt",
        "Not used as a mask: masks/c.png",
    ]


def test_kohyas_parent_folder_names_what_is_in_it(tmp_path):
    picture(tmp_path / "10_cat" / "a.png")
    with pytest.raises(UserError, match=r"Its subfolders have some: 10_cat \(1\).*10_cat:10$"):
        find_pictures(tmp_path)


def test_files_are_not_all_compared_with_one_another(tmp_path, monkeypatch):
    """Twice the images with captions and masks are twice the comparisons of paths."""

    def comparisons(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        for name in (f"{n}{ending}" for n in range(count) for ending in (".png", ".txt", "-mask.png")):
            (folder / name).touch()
        compared = []
        with monkeypatch.context() as patch:
            equal = PurePath.__eq__
            patch.setattr(PurePath, "__eq__", lambda a, b: (compared.append(1), equal(a, b))[1])
            Listing.of(folder)
        return len(compared)

    assert comparisons(100) < 3 * comparisons(50)
