"""The example workflows against the frozen interface of the nodes; no ComfyUI is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
NODES = json.loads((ROOT / "tests" / "comfyui" / "nodes.json").read_text(encoding="utf-8"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_nodes_fit_their_interface(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    ours = [node for node in workflow["nodes"] if node["type"].startswith("TITrain_")]
    assert ours
    for node in ours:
        frozen = NODES[node["type"]]
        widgets = [i for i in frozen["inputs"] if i[1] in WIDGETS and i[0] != "captions"]
        assert len(node["widgets_values"]) <= len(widgets), "a workflow of before may lack what was appended"
        known = [i[0] for i in frozen["inputs"]]
        assert all(socket["name"] in known for socket in node["inputs"])
        outputs = [[s["type"], s["name"]] for s in node["outputs"]]
        assert outputs == frozen["outputs"][: len(outputs)], "a workflow of before may lack what was appended"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_links_hold(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, output, target, place, kind in workflow["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][place]["link"] == number
        assert nodes[source]["outputs"][output]["type"] == nodes[target]["inputs"][place]["type"] == kind


def test_every_node_has_a_help_page():
    assert {path.stem for path in (ROOT / "web" / "docs").glob("*.md")} == set(NODES)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_has_a_thumbnail_and_an_id_of_its_own(path):
    """By the id the page tells to which workflow's node a run belongs."""
    assert path.with_suffix(".jpg").is_file()
    ids = [json.loads(other.read_text(encoding="utf-8"))["id"] for other in WORKFLOWS]
    assert len(set(ids)) == len(ids)
