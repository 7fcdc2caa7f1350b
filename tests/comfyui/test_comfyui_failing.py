"""Calls into ComfyUI that fail, each in turn, inside of its process. See failing.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    ("family", "checkpointing"),
    [("sdxl-vpred", False), ("sdxl-vpred", True), ("flux", False), ("z-image", True)],
)
def test_whichever_call_fails_all_is_left_as_it_was(comfyui, comfyui_python, tmp_path, family, checkpointing):
    """With an error, and without memory. The next training has the same losses."""
    given = [family, str(int(checkpointing)), str(tmp_path)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [comfyui_python, str(HERE / "failing.py"), *given]
    done = subprocess.run(command, cwd=comfyui, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kinds"] >= 20
    assert [(kind, error) for kind, error, made, _, _ in found["tried"] if not made] == []
    assert [(kind, error, left) for kind, error, _, _, left in found["tried"] if left] == []
    assert found["again"]
