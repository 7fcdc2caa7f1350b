"""python -m ti_train, as people start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ti_train.__main__ import main
from ti_train.formats import load_embedding
from ti_train.training.step_log import read_steps

ROOT = Path(__file__).resolve().parent.parent


def started(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **variables}
    command = [sys.executable, "-m", "ti_train", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, encoding="utf-8")


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: python -m ti_train" in capsys.readouterr().err


def test_help(capsys):
    """Of the commands themselves: test_installed_package.py."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "{train,fleet,generate,evaluate,inspect,convert,merge}" in capsys.readouterr().out


def test_a_mistake_is_no_traceback(tmp_path):
    process = started("inspect", tmp_path / "none.safetensors")
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(r"ti_train: The embedding file '[^\n]*' does not exist\. Check its name and folder\.\n", err)


def encoding(name: str) -> dict[str, str]:
    return {"PYTHONIOENCODING": name, "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    ("terminal", "shown"),
    [
        (encoding("cp1252"), "\\U0001f408"),
        (encoding("ascii"), "\\U0001f408"),
        (encoding("utf-8"), "🐈"),
        ({"LC_ALL": "C", "PYTHONUTF8": "", "PYTHONIOENCODING": ""}, "🐈"),
    ],
    ids=["cp1252", "ascii", "utf-8", "locale C"],
)
def test_text_that_a_terminal_cannot_show_ends_no_command(pipeline_folder, pictures, tmp_path, terminal, shown):
    """A Windows console, a pipe or a log file with another encoding than the names in it."""
    name = "猫🐈1"
    train = ["train", "--model", pipeline_folder, "--images", pictures, "--out", tmp_path, "--name", name]
    embedding = tmp_path / f"{name}.safetensors"
    generate = ["generate", "--model", pipeline_folder, "--embedding", embedding, "--prompt", f"<{name}>"]
    for command in (
        [*train, "--init", "toy", "--steps", "1", "--device", "cpu"],
        [*generate, "--number", "2", "--steps", "1", "--out", tmp_path / "images"],
        ["inspect", embedding],
        ["convert", embedding, tmp_path / "ねこ.pt"],
    ):
        process = started(*command, **terminal)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert shown in out or command[0] in ("generate", "convert")
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert (tmp_path / "ねこ.pt").is_file()


NO_SIGINT = os.name == "nt" or signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # ignored by jobs in the background


@pytest.mark.skipif(NO_SIGINT, reason="no SIGINT can be sent to a single process here")
def test_ctrl_c_in_mid_run_keeps_the_word_and_resume_completes_it(pipeline_folder, pictures, tmp_path):
    command = ["train", "--model", pipeline_folder, "--images", pictures, "--out", tmp_path, "--name", "my-toy"]
    command += ["--init", "toy", "--steps", "100", "--batch-size", "1", "--device", "cpu", "--dtype", "float32"]
    process = started(*command)
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(r" [1-9]\d*/100 ", line):
            break
    process.send_signal(signal.SIGINT)
    *more, kept, interrupted = process.communicate()[1].splitlines()
    assert process.returncode == 130
    ours = ("[", "Warning: 2 image(s) have a caption")
    assert all(line.startswith(ours) for line in said + more), "no library and no traceback adds to the progress"
    assert interrupted == "Interrupted."
    step = int(re.findall(r"Step (\d+)(?: \(.*\))? is saved in", kept)[0])
    assert 0 < step < 100
    assert load_embedding(tmp_path / "my-toy.safetensors").provenance["step"] == str(step)
    assert main([*map(str, command), "--resume"]) == 0
    assert [step.step for step in read_steps(tmp_path / "my-toy.csv")] == list(range(101))
