"""Two ComfyUIs, and the command line, with one embeddings folder: one of them trains a name at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workflows as w
from comfyui_server import ROOT, Server, failure
from conftest import draw_pictures

from ti_train.formats import load_embedding

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
COMMAND = (  # in the repository
    "--model demo/model --images demo/concepts/teal-heart --init heart --steps 400 --batch-size 1 --resolution 32 "
    "--checkpoint-every 1 --device cpu --dtype float32"
)
BUSY = "is being trained by another run (process "


@pytest.fixture(scope="module")
def servers(comfyui, tmp_path_factory) -> Iterator[tuple[Server, Server]]:
    embeddings = tmp_path_factory.mktemp("embeddings")
    running = []
    for number in (1, 2):
        base = tmp_path_factory.mktemp(f"comfyui-{number}")
        (base / "custom_nodes").mkdir()
        (base / "custom_nodes" / "probe").symlink_to(HERE / "probe", target_is_directory=True)
        (base / "models").mkdir()
        (base / "models" / "embeddings").symlink_to(embeddings, target_is_directory=True)
        draw_pictures(base / "input" / "toys")
        running.append(Server(comfyui, base))
        running[-1].run(training(f"warm-{number}", 1))
    yield tuple(running)
    for server in running:
        server.stop()


def training(name: str, steps: int, if_exists: str = "replace", **settings: Any) -> w.Workflow:
    given = {"name": name, "steps": steps, "if_exists": if_exists, "learning_rate": 0.01} | settings
    return w.training(**given) | {"model": w.node("ProbeFamily", family="sdxl-vpred")}


def begun(server: Server, name: str, steps: int, **settings: Any) -> str:
    """A training that has made its first step."""
    prompt = server.queue(training(name, steps, **settings))
    while not (server.base / "models" / "embeddings" / f"{name}.resume").exists():
        assert prompt not in server.get(f"/history/{prompt}"), server.said()[-2000:]
        time.sleep(0.05)
    return prompt


def vectors(server: Server, name: str) -> list[list[list[float]]]:
    loaded = load_embedding(server.base / "models" / "embeddings" / f"{name}.safetensors")
    return [part.tolist() for part in loaded.vectors.values()]


def names(server: Server, start: str) -> list[str]:
    return sorted(path.name for path in (server.base / "models" / "embeddings").iterdir() if start in path.name)


@pytest.mark.parametrize("if_exists", ["replace", "continue"])
def test_the_second_to_train_a_name_is_refused_and_the_first_is_undisturbed(servers, if_exists):
    one, two = servers
    one.run(training(f"alone-{if_exists}", 100))
    name = f"shared-{if_exists}"
    prompt = begun(one, name, 100)
    refused = failure(two.wait(two.queue(training(name, 100, if_exists))))
    assert f"'{name}' {BUSY}{one.process.pid} on " in refused
    assert failure(one.wait(prompt)) == ""
    assert vectors(one, name) == vectors(one, f"alone-{if_exists}")
    assert names(one, name) == [f"{name}.csv", f"{name}.safetensors"]


def test_the_second_to_train_a_new_number_takes_the_next_one(servers):
    one, two = servers
    prompt = begun(one, "numbered", 100, if_exists="new number")
    assert failure(two.wait(two.queue(training("numbered", 3, "new number")))) == ""
    assert failure(one.wait(prompt)) == ""
    assert [name for name in names(one, "numbered") if name.endswith(".safetensors")] == [
        "numbered-2.safetensors", "numbered.safetensors",
    ]  # fmt: skip


def test_of_two_that_begin_at_once_each_has_a_file_of_its_own_or_is_refused(servers):
    for attempt in range(3):
        name = f"race{attempt}"
        prompts = [(server, server.queue(training(name, 5, "new number"))) for server in servers]
        ended = [failure(server.wait(prompt)) for server, prompt in prompts]
        files = [file for file in names(servers[0], name) if file.endswith(".safetensors")]
        assert len(files) == ended.count(""), (ended, files)
        assert files, ended
        assert all(end == "" or BUSY in end for end in ended)
        assert not [file for file in names(servers[0], name) if file.endswith((".lock", ".resume"))]


def test_a_name_in_training_is_neither_renamed_nor_removed_by_the_other_server(servers):
    one, two = servers
    one.run(training("kept", 2))
    prompt = begun(one, "kept", 100, seed=1)
    for route, body in (("rename", {"name": "gone"}), ("remove", {})):
        with pytest.raises(Exception, match="is being trained by another run"):
            two.post(f"/ti_train/embeddings/{route}", {"file": "kept.safetensors"} | body)
    assert failure(one.wait(prompt)) == ""


def test_the_command_line_is_refused_too_and_refuses(servers):
    one, _ = servers
    folder = one.base / "models" / "embeddings"
    command = [sys.executable, "-m", "ti_train", "train", "--out", str(folder), *COMMAND.split()]

    prompt = begun(one, "of-comfyui", 100_000)
    refused = subprocess.run(
        [*command, "--name", "of-comfyui", "--overwrite"], cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert f"'of-comfyui' {BUSY}{one.process.pid} on " in refused.stderr
    one.interrupt()
    assert failure(one.wait(prompt)) == "interrupted"

    mine = [*command, "--name", "of-the-line"]
    line = subprocess.Popen(mine, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not (folder / "of-the-line.resume").exists():
            assert line.poll() is None, line.communicate()
            time.sleep(0.05)
        refused = failure(one.wait(one.queue(training("of-the-line", 2))))
        assert f"'of-the-line' {BUSY}{line.pid} on " in refused
    finally:
        line.terminate()
        line.communicate()
