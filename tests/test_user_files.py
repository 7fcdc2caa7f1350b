"""Files that a user hands over: a text that is too large to be one is refused in words, before it is read."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.abuse_parts.samples import IDENTITY, state
from ti_train.data.captions import CaptionReader
from ti_train.data.listing import Listing
from ti_train.errors import UserError
from ti_train.evaluation.evaluate import EvaluationPrompts
from ti_train.fleet.job_list import _entries
from ti_train.hosts.diffusers.model_folder import ModelFolder
from ti_train.prompts import Templates
from ti_train.text import Remarks, unicode_text
from ti_train.training.checkpoint import RunFiles
from ti_train.training.step_log import check_step_log, read_steps
from ti_train.user_files import LONGEST_TABLE, LONGEST_TEXT, PART, hashed

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "templates": ("1 MiB", lambda path: Templates.load(str(path))),
    "prompts": ("1 MiB", EvaluationPrompts("a *", ()).with_edits),
    "the list of a fleet": ("16 MiB", lambda path: list(_entries(path.rename(path.with_name("a.csv")), None))),
    "a step log": ("256 MiB", read_steps),
    "a model's index": ("1 MiB", lambda path: ModelFolder.read(path.rename(path.with_name("model_index.json")).parent)),
}


@pytest.fixture
def huge(tmp_path) -> Path:
    """A file of 512 MiB that takes no space where the system can do that."""
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(2**29)
    return tmp_path / "a.txt"


def peak(action: Callable[[], object]) -> int:
    """The most bytes that Python has allocated meanwhile."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("reader", READERS)
def test_a_text_that_is_too_large_is_refused_in_words(huge, reader):
    limit, read = READERS[reader]
    with pytest.raises(UserError, match=f"has more than {limit}, the limit of such a text. Is it another file?"):
        read(huge)


@pytest.mark.parametrize("name", ["a.txt", "metadata.csv", "metadata.jsonl"])
def test_captions_that_are_too_large_are_a_remark(huge, name):
    Image.new("RGB", (8, 8)).save(huge.with_name("a.png"))
    huge.rename(huge.with_name(name))
    remarks = Remarks()
    reader = CaptionReader(Listing.of(huge.parent), remarks)
    assert peak(lambda: reader.caption(huge.with_name("a.png"))) < 2 * LONGEST_TABLE + 2**20
    (remark,) = remarks
    assert remark.startswith(f"{name} is ignored: it has more than {'1 MiB' if name == 'a.txt' else '16 MiB'}")
    assert not reader.lacks(huge.with_name("a.png")) or name != "a.txt", "it is not to be replaced"


def test_a_line_of_json_that_is_too_large_is_ignored(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = (
        json.dumps({"file_name": "a.png", "text": "x", "more": "[]," * LONGEST_TEXT}),
        '{"file_name": "a", "text": "y"}',
    )
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    remarks = Remarks()
    assert CaptionReader(Listing.of(tmp_path), remarks).caption(tmp_path / "a.png") == "y"
    assert remarks == ["metadata.jsonl: entry 1 has no valid 'file_name' and 'text' and is ignored."]


def test_the_first_line_of_a_step_log_is_not_read_whole(huge):
    def check() -> None:
        with pytest.raises(UserError, match="is not the table of a training run"):
            check_step_log(huge)

    assert peak(check) < 2**20


def test_the_encoding_of_a_long_text_costs_little():
    """It was told by a list of all of its characters."""
    data = ("a red toy, " * 50_000).encode("utf-16-le")
    assert peak(lambda: unicode_text(data)) < 4 * len(data)
    assert unicode_text(data) == "a red toy, " * 50_000


def test_a_resume_file_with_a_picture_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    data = state(tmp_path)
    (length,) = struct.unpack_from("<Q", data)
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    header["picture.7"] = {"dtype": "U8", "shape": [2**26], "data_offsets": [len(tensors), len(tensors) + 2**26]}
    changed = json.dumps(header).encode()
    with (tmp_path / "cat.resume").open("wb") as file:
        file.write(struct.pack("<Q", len(changed)) + changed + tensors)
        file.truncate(8 + len(changed) + len(tensors) + 2**26)
    with pytest.raises(UserError, match=r"picture\.7 has more numbers than any run"):
        RunFiles(tmp_path, "cat", IDENTITY).load()


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 3 * PART])
def test_a_hash_is_that_of_the_whole_file(tmp_path, size):
    (tmp_path / "x").write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    assert hashed(tmp_path / "x").digest() == hashlib.sha256((tmp_path / "x").read_bytes()).digest()


def test_a_file_is_hashed_a_part_at_a_time(tmp_path):
    (tmp_path / "x").write_bytes(bytes(16 * PART))
    assert peak(lambda: hashed(tmp_path / "x")) < 3 * PART
