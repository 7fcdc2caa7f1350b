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
    """By the id the page tells to which workflow's node a run belongs; by the thumbnail a user finds the template."""
    others = [other for other in WORKFLOWS if other != path]
    assert path.with_suffix(".jpg").read_bytes() not in [other.with_suffix(".jpg").read_bytes() for other in others]
    ids = [json.loads(other.read_text(encoding="utf-8"))["id"] for other in WORKFLOWS]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_template_that_trains_is_ready_for_the_users_own_images(path):
    """No folder that other images may be in, no second training of what is there, images named after the embedding."""
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    training = [node for node in nodes if node["type"] == "TITrain_TrainEmbedding"]
    named = [f"%{node['properties']['Node name for S&R']}.name%" for node in training]
    widgets = [i[0] for i in NODES["TITrain_TrainEmbedding"]["inputs"] if i[1] in WIDGETS and i[0] != "captions"]
    for node in training:
        assert dict(zip(widgets, node["widgets_values"], strict=True))["if_exists"] == "use it if it is there"
    for node in nodes:
        if node["type"] == "TITrain_LoadTrainingImages":
            assert node["widgets_values"][0] == ""
        if node["type"] == "SaveImage":
            assert all(name in node["widgets_values"][0] for name in named)
