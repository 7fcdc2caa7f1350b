"""The list of a fleet: what it may look like, and that all its faults are found before anything is trained."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ti_train.errors import UserError
from ti_train.fleet.job_list import Common, read_jobs, shard_of

COMMON = Common("model", "Balanced", {"steps": 7})


@pytest.fixture
def listed(tmp_path, pictures):
    """Writes a list beside a copy of the pictures in `toy`, and reads it."""
    shutil.copytree(pictures, tmp_path / "toy")

    def listed(text: str, name: str = "list.csv", encoding: str = "utf-8", common: Common = COMMON):
        (tmp_path / name).write_text(text, encoding=encoding)
        return read_jobs(tmp_path / name, common)

    return listed


def test_a_csv_file_gives_options_by_column_and_the_command_line_the_rest(listed, tmp_path):
    first, second = listed("name,init,images,lr,steps\nred-toy,toy,toy,1e-3,\npets/dog,dog,toy:3,,9\n")
    assert (first.name, first.config.init, first.config.steps, first.config.learning_rate) == (
        "red-toy",
        "toy",
        7,
        1e-3,
    )
    assert (second.name, second.config.steps, second.config.learning_rate) == ("pets/dog", 9, 0.01)
    assert dict(second.folders) == {tmp_path / "toy": 3}


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_spreadsheet_may_save_it_in_its_own_way(listed, separator, encoding):
    (job,) = listed(f"name{separator}init{separator}images\ncafé{separator}toy{separator}toy\n", encoding=encoding)
    assert job.name == "café"


def test_json_lines_have_the_same_names_with_types_of_their_own(listed, tmp_path):
    entry = {"name": "toy", "init": "toy", "images": ["toy", str(tmp_path / "toy") + ":2"], "flip": True, "steps": 3}
    (job,) = listed(json.dumps({**entry, "preview_prompts": ["a *", "the *"], "seed": None}), "list.jsonl")
    assert (job.config.flip, job.config.steps, job.config.preview_prompts) == (True, 3, ("a *", "the *"))


def test_a_json_string_may_contain_what_ends_lines_elsewhere(listed):
    entry = {"name": "toy", "init": "toy", "images": "toy", "preview_negative": "dark\u2028blurred"}
    (job,) = listed(json.dumps(entry, ensure_ascii=False), "list.jsonl")
    assert job.config.preview_negative == "dark\u2028blurred"


def test_a_folder_has_one_folder_for_each_embedding(tmp_path, pictures):
    for name in ("red", "pets/blue"):
        shutil.copytree(pictures, tmp_path / name)
    jobs = read_jobs(tmp_path, Common("model", "Style", {"init": "toy"}))
    assert [(job.name, job.config.templates) for job in jobs] == [("pets/blue", "style"), ("red", "style")]


def test_each_line_may_have_a_preset_and_an_initial_file_beside_the_list(listed, tmp_path):
    (tmp_path / "start.safetensors").write_bytes(b"")
    (job,) = listed("name,init,images,preset\ntoy,start.safetensors,toy,Paper\n")
    assert job.config.init == str(tmp_path / "start.safetensors")
    assert job.config.batch_size == 1
    (job,) = listed("name,init,images\ntoy,toy | start.safetensors,toy\n")
    assert job.config.init == f"toy | {tmp_path / 'start.safetensors'}", "one of several to choose from"


def test_all_faults_are_told_at_once_with_their_lines(listed):
    with pytest.raises(UserError) as caught:
        listed(
            "name,init,images,steps\n"
            "toy,toy,toy,3\n"
            "TOY,toy,toy,3\n"
            "my toy,toy,toy,3\n"
            "a,toy,nowhere,3\n"
            "b,,toy,3\n"
            "c,toy,toy,many\n"
            "d,toy,toy,0\n"
            "e,toy,toy,3,surplus\n"
        )
    head, *faults = str(caught.value).splitlines()
    assert "8 entries" not in head
    assert "7 entries" in head
    beginnings = [
        "line 3: the name 'TOY' is used by line 2 too",
        "line 4: The name 'my toy' cannot be used",
        "line 5: The folder ",
        "line 6: init missing",
        "line 7: steps is 'many'; it must be a whole number",
        "line 8: steps is 0; it must be at least 1",
        "line 9: it has more cells than the first line has columns",
    ]
    for fault, beginning in zip(faults, beginnings, strict=True):
        assert fault.startswith(beginning)


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        ("name,init,images,stepz\na,toy,toy,3\n", "list.csv", "there is no option 'stepz'. Do you mean 'steps'"),
        ("name,init,images,dtype\na,toy,toy,float32\n", "list.csv", "Give it as --dtype"),
        ("name,init,images,flip\na,toy,toy,perhaps\n", "list.csv", "it must be true or false"),
        ("name,init,images\n", "list.csv", "lists no embedding"),
        ("name,init,images,steps,steps\na,toy,toy,3,4\n", "list.csv", "has these columns twice: steps"),
        ("name,init,images,lr,learning_rate\na,toy,toy,3,4\n", "list.csv", "gives learning_rate a second time"),
        ("name,init,images,\na,toy,toy,3\n", "list.csv", "more cells than the first line has columns: 3"),
        ("name,init,images\na,none.safetensors,toy\n", "list.csv", "there is no file 'none.safetensors' in "),
        ("name,init,images\na,toy|none.pt,toy\n", "list.csv", "there is no file 'none.pt' in "),
        ("name,init,images,templates\na,toy,toy,none.txt\n", "list.csv", "there is no file 'none.txt' in "),
        ("name,init,images,templates\na,toy,toy,toy/red.txt\n", "list.csv", "which lacks .name."),
        (f"name,init,images\na,toy,{'x' * 300}\n", "list.csv", "The folder .* does not exist"),
        ('{"name": "a", "init": "toy", "images": []}', "list.jsonl", "images missing"),
        ('{"name": "a", "init": ["cat", "dog"], "images": "toy"}', "list.jsonl", "Write | between several"),
        (
            '{"name": "a", "init": "toy", "images": "toy", "steps": {}}',
            "list.jsonl",
            "steps is {}; it must be one value",
        ),
        ('{"name": "a"', "list.jsonl", "line 1: it is not JSON"),
        ("[1]", "list.jsonl", "line 1: it is not an object"),
        ('{"name": 3, "init": "toy", "images": "toy", "preset": "Best"}', "list.jsonl", "Unknown preset 'Best'"),
    ],
)
def test_what_cannot_be_read_is_told(listed, text, name, sentence):
    with pytest.raises(UserError, match=sentence.replace("'", ".")):
        listed(text, name)


def test_what_spreadsheets_leave_is_no_fault(listed, tmp_path):
    (job,) = listed("name,init,images,,\ntoy,toy,toy|,,\n,,,,\n\n")
    assert (job.name, dict(job.folders)) == ("toy", {tmp_path / "toy": 1})


def test_a_line_that_is_not_json_hides_no_other_fault(listed):
    with pytest.raises(UserError, match=r"(?s)2 entries.*line 1: it is not JSON.*line 3: images missing"):
        listed('{"name":\n\n{"name": "a", "init": "toy"}', "list.jsonl")


@pytest.mark.parametrize(
    "other",
    [
        "cat-worse",
        "Cat-WORSE",
        "cat.json",
        "cat.claim-12",
        "cat/samples",
        "cat/samples/x",
        "cat/loss.csv",
        "cat.resume/x",
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_names_do_not_share_files(listed, other, order):
    """Each is also that of a file which the training of the other may write."""
    first, second = ("cat", other)[::order]
    with pytest.raises(UserError, match=f"line 3: the name '{second}' is that of a file of '{first}' .line 2"):
        listed(f"name,init,images\n{first},toy,toy\n{second},toy,toy\n")


def test_names_may_be_folders_of_each_other(listed):
    names = ("pets", "pets/cat", "pets/cat2", "pets/cat/red", "claims", "pets-worse/cat")
    assert len(listed("name,init,images\n" + "".join(f"{name},toy,toy\n" for name in names))) == len(names)


def test_results_are_no_training_images(tmp_path, pictures):
    """Those of this fleet and of earlier ones, whose folders are below that of the images."""
    common = Common("model", "Balanced", {"init": "toy"})
    for name in ("red", "pets", "pets/blue", "embeddings", "embeddings/red"):
        shutil.copytree(pictures, tmp_path / name, dirs_exist_ok=True)
    (tmp_path / "embeddings" / ".fleet").mkdir()
    (tmp_path / "further").mkdir()
    jobs = read_jobs(tmp_path, common, tmp_path / "further")
    assert [job.name for job in jobs] == ["pets", "pets/blue", "red"]
    (tmp_path / "further").rmdir()
    with pytest.raises(UserError, match="pets' has training images"):
        read_jobs(tmp_path, common, tmp_path)
    with pytest.raises(UserError, match="red' has training images"):
        read_jobs(tmp_path, common, tmp_path / "red")
    for file in (tmp_path / "pets").glob("*.*"):
        file.unlink()
    for name in ("red", "pets/blue", "red-steps/red-000100"):  # beside their folders
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
        shutil.copy(pictures / "red.png", tmp_path / f"{name}.preview.png")
    assert [job.name for job in read_jobs(tmp_path, common, tmp_path)] == ["pets/blue", "red"]


def test_a_folder_that_was_meant_to_have_images_is_told(tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "pets" / "red")
    (tmp_path / "pets" / "blue").mkdir()
    (tmp_path / "pets" / "blue" / "cat.psd").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"1 entry that cannot be used:\nfolder 'pets/blue': The folder .* has no images"
    ):
        read_jobs(tmp_path, Common("model", "Balanced", {"init": "toy"}))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs the rights of another user")
def test_folders_that_may_not_be_read_are_told_with_all_other_faults(tmp_path, pictures):
    for name in ("closed", "names only", "names only/inner", "red"):
        shutil.copytree(pictures, tmp_path / name, dirs_exist_ok=True)
    (tmp_path / "empty").mkdir()
    ours = [folder for folder in tmp_path.parents if "pytest-of" in str(folder)]
    for folder in (tmp_path, *ours, tmp_path / "red"):
        folder.chmod(folder.stat().st_mode | 0o755)
    (tmp_path / "closed").chmod(0)
    (tmp_path / "names only").chmod(0o744)
    os.seteuid(65534)
    try:
        with pytest.raises(UserError) as caught:
            read_jobs(tmp_path, Common("model", "Balanced", {"init": "toy"}))
    finally:
        os.seteuid(0)
    assert [line.split("'")[1] for line in str(caught.value).splitlines()[1:]] == [
        "closed",
        "empty",
        "names only",
        "names only/inner",
    ]


def test_preview_prompts_of_a_line_are_drawn(listed):
    first, second = listed("name,init,images,preview_prompts,preview_every\na,toy,toy,a red *,\nb,toy,toy,a red *,7\n")
    assert (first.config.preview_every, second.config.preview_every) == (100, 7)


def test_shards_share_a_list_without_overlap(listed):
    jobs = listed("name,init,images\n" + "".join(f"toy{i},toy,toy\n" for i in range(7)))
    parts = [shard_of(jobs, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(job.name for part in parts for job in part) == [job.name for job in jobs]
    assert [len(part) for part in parts] == [3, 2, 2]
    with pytest.raises(UserError, match="must be i/n"):
        shard_of(jobs, "4/3")
