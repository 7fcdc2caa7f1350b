"""Captions: found, decoded, and told about where they are missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from ti_train.data.captions import write_caption, write_table
from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.data.listing import Listing
from ti_train.text import Remarks


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the picture a.png."""
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    return tmp_path


def captions(folder: Path) -> tuple[list[str], list[str]]:
    """What the pictures of a folder are captioned with, and what was warned of."""
    warnings = Remarks()
    read = read_pictures(find_pictures(folder), 32, warnings, captions=True)
    return [picture.caption for picture in read], warnings


def test_captions_are_one_line_of_the_text_file_beside_a_picture(pictures, tmp_path):
    warnings: list[str] = []
    read = list(read_pictures(find_pictures(pictures), 32, warnings, captions=True))
    assert [(p.name, p.caption) for p in read] == [("blue.png", "blue dog"), ("green.png", ""), ("red.png", "red toy")]
    assert warnings == ["green.png has no caption (green.txt is missing): it is trained with the template alone."]


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"a red\n  toy\n", "a red toy"),
        ("\ufeffrot".encode(), "rot"),
        ("猫".encode(), "猫"),
        ("rot, 猫".encode("utf-16"), "rot, 猫"),  # with its mark, as Windows' Notepad saves it
        ("\ufeffrot".encode("utf-16-be"), "rot"),
        ("red toy".encode("utf-16-le"), "red toy"),
        ("red toy".encode("utf-16-be"), "red toy"),
        ("red toy".encode("utf-32"), "red toy"),
        (b"red toy\0", "red toy"),
        (b"", ""),
    ],
)
def test_a_captions_encoding_is_told_by_its_bytes(folder, content, caption):
    (folder / "a.txt").write_bytes(content)
    assert captions(folder) == ([caption], [])


def test_an_encoding_that_is_guessed_is_told_with_what_it_gives(folder):
    (folder / "a.txt").write_bytes("ein Café, «blau»".encode("cp1252"))
    (caption,), (warning,) = captions(folder)
    assert caption == "ein Café, «blau»"
    assert warning.startswith("a.txt is not UTF-8. As Windows-1252 it reads 'ein Café, «blau»'")


@pytest.mark.parametrize("content", [b"\xff\xfea", b"caf\x81\xff", b"a\0b", b"red\0toy "])
def test_a_caption_that_is_no_text_is_named_and_left_out(folder, content):
    (folder / "a.txt").write_bytes(content)
    (caption,), (warning,) = captions(folder)
    assert caption == ""
    assert warning.startswith("a.txt cannot be read as text")


# --- Tables ---------------------------------------------------------------------


def test_a_table_of_the_hub_captions_a_folder(folder):
    """One object a line, as datasets writes it; a line separator within a text is no end of the line."""
    lines = ['{"file_name": "a.png", "text": "a red\u2028toy", "n": 1}', "", '{"file_name": "in/b.png", "text": "x"}']
    (folder / "in").mkdir()
    (folder / "in" / "b.png").touch()
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert captions(folder) == (["a red toy"], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_table_may_come_from_a_spreadsheet(folder, encoding):
    rows = 'n,file_name,text\r\n1,a.png,"red, ""big""\r\ntoy"\r\n'
    (folder / "metadata.csv").write_bytes(rows.encode(encoding))
    assert captions(folder) == (['red, "big" toy'], [])


def test_a_pictures_own_file_goes_before_the_table(folder):
    (folder / "metadata.csv").write_text("file_name,text\na.png,table\n", encoding="utf-8")
    (folder / "a.txt").write_text("own", encoding="utf-8")
    assert captions(folder) == (["own"], [])


def test_a_picture_that_the_table_does_not_name_is_told(folder):
    (folder / "metadata.csv").write_text("file_name,text\nb.png,text\n", encoding="utf-8")
    assert captions(folder)[1] == [
        "metadata.csv has captions for images that are not in the folder: b.png.",
        "a.png has no caption (a.txt is missing, and metadata.csv has no entry for it): "
        "it is trained with the template alone.",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "text": "toy"}\n{"file_name": "b.png"\n[1]\n{"text": "x"}\n'),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "toy"}\n' + '{"file_name": 3, "text": "x"}\n' * 3),
        ("metadata.csv", "file_name,text\na.png,toy\nb.png\nc.png\nd.png\n"),
    ],
)
def test_entries_that_cannot_be_read_are_told_once(folder, name, content):
    (folder / name).write_text(content, encoding="utf-8")
    assert captions(folder) == (["toy"], [f"{name}: entry 2, 3, 4 has no valid 'file_name' and 'text' and is ignored."])


@pytest.mark.parametrize("row", ["./a.png", "A.PNG", "a", "{folder}/a.png", "/home/me/{folder}/a.png", ".\\\\a.png"])
def test_a_tables_name_may_be_written_in_any_way_that_means_one_image(folder, row):
    name = row.format(folder=folder.name)
    (folder / "metadata.jsonl").write_text('{"file_name": "' + name + '", "text": "toy"}', encoding="utf-8")
    assert captions(folder) == (["toy"], [])


def test_a_tables_entry_for_no_image_is_named(folder):
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "toy"}\n{"file_name": "gone.png", "text": "x"}', encoding="utf-8"
    )
    assert captions(folder) == (
        ["toy"],
        ["metadata.jsonl has captions for images that are not in the folder: gone.png."],
    )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheet_may_separate_columns_by_other_signs(folder, separator):
    (folder / "Metadata.CSV").write_text(f"file_name{separator}text\na.png{separator}toy, red\n", encoding="utf-8")
    assert captions(folder) == (["toy, red"], [])


# --- Writing --------------------------------------------------------------------


def test_a_caption_that_is_written_is_read_back_as_one_line(folder):
    assert write_caption(folder / "a.png", " großer\n roter Hund ") == "großer roter Hund"
    assert captions(folder) == (["großer roter Hund"], [])


@pytest.mark.parametrize(
    ("given", "caption"),
    [
        ("a\0red\0 toy\0", "a red toy"),
        ("\ufeffa toy", "a toy"),
        ("\ufeff\ufeffa\ufefftoy", "a toy"),
        ("\ufffe toy", "\ufffe toy"),
        ("a \ud83d toy", "a \ufffd toy"),
        ("\x1b[2J toy", "\x1b[2J toy"),
        ("a\x85toy\u2028\x1c", "a toy"),
        ("\0", ""),
        ("\ufeff", ""),
    ],
)
def test_any_caption_that_is_written_is_read_back(folder, given, caption):
    """Without what no text file can hold: zeros, half characters, and marks of an encoding."""
    assert write_caption(folder / "a.png", given) == caption
    assert captions(folder) == ([caption], []) if caption else not (folder / "a.txt").exists()


@pytest.mark.parametrize("place", range(0, sys.maxunicode, 0x8000))
def test_any_character_of_a_caption_is_written_and_read_back(folder, place):
    for start in range(place, place + 0x8000, 0x1000):
        written = write_caption(folder / "a.png", "x" + "".join(map(chr, range(start, start + 0x1000))))
        assert captions(folder) == ([written], [])


def test_an_entry_of_a_table_with_any_character_is_written_beside_its_image(folder):
    table = json.dumps({"file_name": "a.png", "text": "a\0 \ud83d \ufefftoy"}).encode()
    assert write_table("metadata.jsonl", table, {"a.png": folder / "a.png"}) == []
    assert captions(folder) == (["a \ufffd toy"], [])


def test_an_empty_caption_removes_the_file(folder):
    write_caption(folder / "a.png", "toy")
    assert write_caption(folder / "a.png", " \n") == ""
    assert not (folder / "a.txt").exists()
    assert write_caption(folder / "a.png", "") == "", "there is nothing to remove"


@pytest.mark.parametrize("other", ["metadata.csv", "a.caption"])
def test_an_empty_caption_hides_that_of_a_table_or_another_file(folder, other):
    text = "file_name,text\na.png,toy\n" if other == "metadata.csv" else "toy"
    (folder / "a.txt").write_text("cat", encoding="utf-8")
    (folder / other).write_text(text, encoding="utf-8")
    assert write_caption(folder / "a.png", "dog") == "dog"
    assert write_caption(folder / "a.png", "") == ""
    assert captions(folder)[0] == [""]
    assert (folder / other).read_text(encoding="utf-8") == text


def test_a_caption_is_written_to_the_file_that_it_was_read_from(folder):
    (folder / "a.TXT").write_text("toy", encoding="utf-8")
    write_caption(folder / "a.png", "dog")
    assert captions(folder) == (["dog"], [])
    assert [path.name for path in folder.glob("*.[tT]*")] == ["a.TXT"]


def test_a_table_is_written_beside_the_images_that_its_entries_call_by_their_paths(tmp_path):
    """Images may have been renamed and gathered in one folder; what they are captioned with is not replaced."""
    placed = {"one.png": "one.png", "train/One.png": "one (1).png", "two.png": "two.png", "three.png": "three.png"}
    for file in placed.values():
        Image.new("RGB", (8, 8)).save(tmp_path / file)
    (tmp_path / "two.txt").write_text("its own", encoding="utf-8")
    entries = {"./one.png": "first", "train\\one.png": "second", "two.png": "other", "set/three.png": "third"}
    lines = [{"file_name": name, "text": text} for name, text in entries.items()]
    table = "\n".join(map(json.dumps, [*lines, {"file_name": "gone.png", "text": "x"}, {"file_name": "one.png"}]))
    remarks = write_table("metadata.jsonl", table.encode("utf-16"), {k: tmp_path / v for k, v in placed.items()})
    assert {file.stem: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.txt")} == {
        "one": "first",
        "one (1)": "second",
        "two": "its own",
        "three": "third",
    }
    assert remarks == [
        "metadata.jsonl: entry 6 has no valid 'file_name' and 'text' and is ignored.",
        "metadata.jsonl has captions for images that are not in the folder: gone.png.",
    ]


def test_the_images_folder_is_listed_once_for_a_table_however_many_entries_it_has(tmp_path, monkeypatch):
    pictures = {f"{n}.png": tmp_path / f"{n}.png" for n in range(20)}
    for file in pictures.values():
        file.touch()
    lines = [{"file_name": name, "text": "toy" if n % 2 else ""} for n, name in enumerate(pictures)]
    listed, of = [], Listing.of
    monkeypatch.setattr(Listing, "of", lambda folder: (listed.append(folder), of(folder))[1])
    assert write_table("metadata.jsonl", "\n".join(map(json.dumps, lines)).encode(), pictures) == []
    assert listed == [tmp_path]
    assert len(list(tmp_path.glob("*.txt"))) == 10


def test_so_is_one_with_separators_and_an_old_encoding(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    table = 'file_name;text\r\na.png;"ein Café; blau"\r\n'.encode("cp1252")
    (remark,) = write_table("Metadata.CSV", table, {"a.png": tmp_path / "a.png"})
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ein Café; blau"
    assert remark.startswith("Metadata.CSV is not UTF-8.")


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("metadata.jsonl", "[" * 100_000),
        ("metadata.jsonl", '{"file_name": "b.png", "text": ' + "9" * 5000 + "}"),
        ("metadata.csv", 'file_name,text\na.png,toy\nb.png,"' + "never closed " * 20_000),
    ],
    ids=["nested too deeply", "a number too long", "a quotation mark that is not closed"],
)
def test_what_no_parser_takes_is_an_entry_like_any_other_that_is_none(folder, table, rows):
    good = '{"file_name": "a.png", "text": "toy"}\n' if table.endswith("jsonl") else ""
    (folder / table).write_text(good + rows, encoding="utf-8")
    assert captions(folder) == (["toy"], [f"{table}: entry 2 has no valid 'file_name' and 'text' and is ignored."])


def test_half_a_character_in_a_table_is_marked(folder):
    """As programs write that cut texts by UTF-16 units; no tokenizer takes it, and no file."""
    row = {"file_name": "a.png", "text": "toy \ud83d \U0001f600"}
    (folder / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert captions(folder) == (["toy \ufffd \U0001f600"], [])


def test_a_name_that_no_file_can_have_is_an_image_that_is_not_there(folder):
    names = ["x" * 5000, "b\0.png", "\udcff.png"]
    rows = [{"file_name": name, "text": "x"} for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    _, (remark, _) = captions(folder)
    assert remark.startswith("metadata.jsonl has captions for images that are not in the folder: xxx")


# --- Control characters -----------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.txt", b"\x1b[2Jred \xff"),
        ("metadata.csv", b"file_name,text\n\x1b[2Jb.png,red\na.png,red\n"),
        ("metadata.jsonl", rb'{"file_name": "\u001b[2J\u202eb.png", "text": "red"}'),
        ("b\x1b[2J.txt", b"red"),
        ("c\u202egnp.txt", b"red"),
    ],
)
def test_no_text_or_name_of_a_file_acts_on_the_terminal_that_shows_the_remark_on_it(folder, file, content):
    (folder / file).write_bytes(content)
    _, warnings = captions(folder)
    assert any(r"\x1b[2J" in warning or r"\u202e" in warning for warning in warnings)
    assert all(warning.isprintable() for warning in warnings)
