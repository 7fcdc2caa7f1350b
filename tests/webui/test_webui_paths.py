"""Whole paths of training images in a WebUI that others can reach: it is told its address, which is loopback here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs_over_http import API, QUICK, learn, write_toys
from tab_page import beside, chosen, expect, fill, new_page, upload
from webui_server import RefusedError, Server, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(webui, checkpoint, hub, tmp_path_factory) -> Iterator[Server]:
    running = start(webui, checkpoint, hub, tmp_path_factory.mktemp("webui"), ("--server-name", "127.0.0.1"))
    write_toys(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def allowed(server) -> Path:
    """A folder of images below a --gradio-allowed-path, but not in the training folder."""
    return Path(shutil.copytree(server.base / "ti-train" / "pictures" / "toys", server.base / "allowed"))


def test_only_allowed_paths_are_read(server, allowed, tmp_path):
    for folder in (tmp_path, server.base / "models"):  # the second is in the data folder, gradio's default
        with pytest.raises(RefusedError, match="is outside of"):
            server.post(f"{API}/train", QUICK | {"name": "mistaken", "pictures": str(folder)})
    learn(server, name="allowedtoy", pictures=str(allowed))


def test_nothing_is_written_there(browser, server, allowed, drawings):
    page, before = new_page(browser, server), sorted(allowed.iterdir())
    fill(page, "name", "allowedtoy")
    chosen(page, "folder", str(allowed))
    beside(page, "2 image(s)")
    done = page.locator("#ti_train_pictures_done").first
    upload(page, drawings[:1])
    expect(done).to_contain_text("is outside of")
    page.locator("#ti_train_thumbnails img").first.click()
    page.locator("#ti_train_remove_picture").click()
    expect(done).to_contain_text("is outside of")
    assert sorted(allowed.iterdir()) == before
