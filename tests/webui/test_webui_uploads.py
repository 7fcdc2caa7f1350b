"""What the tab takes as an upload, by the gradio of the WebUI's Python; no WebUI is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from webui_server import PYTHON, ROOT

PROGRAM = """
import asyncio, sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

root, data, file = sys.argv[1:]
sys.modules["modules"] = webui = MagicMock()
webui.shared.opts = SimpleNamespace(ti_train_folder=data)
webui.shared.cmd_opts = SimpleNamespace(webui_is_non_local=False, hide_ui_dir_config=False)
pack = spec_from_file_location("pack", Path(root, "__init__.py"), submodule_search_locations=[root])
sys.modules["pack"] = module_from_spec(pack)
from pack.webui_tab.pictures import uploaded

import gradio

taken = []
with gradio.Blocks() as blocks:
    button, said = gradio.UploadButton("x", file_count="multiple", file_types=["image"]), gradio.Textbox()
    button.upload(lambda files: uploaded(files, "cat", "cat")[1], [button], [said])
asked = [{"name": file, "data": "", "is_file": True, "path": file, "meta": {"_type": "gradio.FileData"}}]
print(asyncio.run(blocks.process_api(0, [asked], state={}))["data"][0])
"""


@pytest.fixture
def send(webui, tmp_path):
    """Names a file to the tab as a page names its upload, which is in gradio's folder; what it says, and the images."""

    def send(file: Path) -> tuple[str, list[str]]:
        ran = subprocess.run(
            [PYTHON, "-c", PROGRAM, str(ROOT), str(tmp_path / "data"), str(file)],
            env=os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "gradio"), "GRADIO_ANALYTICS_ENABLED": "False"},
            capture_output=True,
            text=True,
        )
        return ran.stdout + ran.stderr, sorted(path.name for path in (tmp_path / "data").rglob("*.png"))

    return send


def drawn(file: Path) -> Path:
    file.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), "teal").save(file)
    return file


def test_what_a_page_has_sent_is_taken(send, tmp_path):
    said, there = send(drawn(tmp_path / "gradio" / "0123" / "toy.png"))
    assert "Added 1 file(s) to 'cat'." in said
    assert there == ["toy.png"]


def test_another_file_of_the_server_is_not(send, tmp_path):
    said, there = send(drawn(tmp_path / "private" / "secret.png"))
    assert "was not uploaded" in said or "is not in the upload folder" in said, said
    assert there == []
