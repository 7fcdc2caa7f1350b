"""The package alone, as an installation has it: every command works where there is nothing else of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ti_train"
EVERY_HELP = """
from ti_train.__main__ import COMMANDS, main
for command in COMMANDS:
    try:
        main([command.__name__.rpartition(".")[2], "--help"])
    except SystemExit as ended:
        assert ended.code == 0
"""


@pytest.fixture
def python(tmp_path) -> Callable[..., str]:
    """Runs Python in a folder beside a copy of the package; returns what it printed."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "ti_train", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "elsewhere").mkdir()

    def python(*arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


def test_every_command_says_what_it_takes(python):
    said = python("-c", EVERY_HELP)
    assert said.count("usage: python -m ti_train ") == 7


def test_a_word_is_learnt_and_used(python, pipeline_folder, pictures, tmp_path):
    model = ("--model", str(pipeline_folder), "--device", "cpu")
    images = ("--images", str(pictures), "--name", "my-toy", "--init", "toy")
    commands = [
        ("train", *model, *images, "--steps", "1", "--batch-size", "1"),
        ("inspect", "my-toy.safetensors"),
        ("generate", *model, "--embedding", "my-toy.safetensors", "--prompt", "a *", "--steps", "1", "--number", "1"),
    ]
    said = python("-c", f"from ti_train.__main__ import main\nfor command in {commands}: assert main(command) == 0")
    assert "vectors: 1" in said
    assert (tmp_path / "elsewhere" / said.split()[-1]).is_file()
