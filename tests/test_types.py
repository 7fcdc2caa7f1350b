"""mypy over what runs inside a host: `nodes/` and `webui_tab/`, against the stubs in `typings/`.

Both import `..ti_train`, which is beyond their own top level wherever the clone's folder has no Python name; so mypy is
shown a copy inside of a package, as the hosts load it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_hosts_parts_are_typed(tmp_path):
    pytest.importorskip("mypy", reason="mypy comes with the newest libraries only")
    pytest.importorskip("pydantic", reason="the API's models are pydantic's")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    for folder in ("ti_train", "nodes", "webui_tab"):
        shutil.copytree(ROOT / folder, tmp_path / "pack" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "typings" / "mypy.ini")]
    command += ["-p", "pack.nodes", "-p", "pack.webui_tab"]
    ran = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT / "typings")}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
