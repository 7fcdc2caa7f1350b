"""What saved workflows rely on: node ids, inputs in their order, defaults and outputs. Append; never reorder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FROZEN = Path(__file__).parent / "nodes.json"
PACK = tuple(json.loads(FROZEN.read_text(encoding="utf-8")))


def interface(definition: dict[str, Any]) -> dict[str, Any]:
    """What of a node's definition is frozen: [name, type, default], and the outputs."""
    inputs = []
    for group in ("required", "optional"):
        for name, spec in definition["input"].get(group, {}).items():
            kind, details = spec[0], spec[1] if len(spec) > 1 else {}
            kind = "COMBO" if isinstance(kind, list) else kind
            inputs.append([name, kind, details.get("default"), group])
    return {
        "inputs": inputs,
        "outputs": list(zip(definition["output"], definition["output_name"], strict=True)),
        "output_is_list": definition["output_is_list"],
        "output_node": definition["output_node"],
    }


def test_the_nodes_are_as_frozen(server):
    now = {name: interface(server.get(f"/object_info/{name}")[name]) for name in PACK}
    assert json.loads(json.dumps(now)) == json.loads(FROZEN.read_text(encoding="utf-8"))


def test_everything_has_a_tooltip(server):
    for name in PACK:
        definition = server.get(f"/object_info/{name}")[name]
        for group in ("required", "optional"):
            for key, spec in definition["input"].get(group, {}).items():
                assert len(spec[1]["tooltip"]) > 15, f"{name}.{key}"
        assert all(definition["output_tooltips"]), name


def test_the_english_texts_are_the_nodes_own(server):
    """What locales/en says would hide a tooltip that has changed since."""
    english = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    for name in PACK:
        definition, texts = server.get(f"/object_info/{name}")[name], english[name]
        assert (texts["display_name"], texts["description"]) == (definition["display_name"], definition["description"])
        inputs = {key: spec[1]["tooltip"] for group in definition["input"].values() for key, spec in group.items()
                  if isinstance(spec, list) and len(spec) > 1 and "tooltip" in spec[1]}  # fmt: skip
        assert {key: text["tooltip"] for key, text in texts["inputs"].items()} == inputs, name
        outputs = [texts["outputs"][str(i)]["tooltip"] for i in range(len(texts["outputs"]))]
        assert outputs == definition["output_tooltips"], name


def test_at_most_twelve_widgets(server):
    definition = server.get("/object_info/TITrain_TrainEmbedding")["TITrain_TrainEmbedding"]
    specs = [spec for group in definition["input"].values() for spec in group.values()]
    widgets = [
        spec
        for spec in specs
        if (isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"))
        and not (len(spec) > 1 and spec[1].get("forceInput"))
    ]
    assert len(widgets) <= 12


def test_the_help_pages_are_served(server):
    import urllib.request

    for name in PACK:
        with urllib.request.urlopen(f"{server.url}/extensions/ti-train/docs/{name}.md", timeout=60) as answer:
            assert answer.read().decode().startswith("# ")
