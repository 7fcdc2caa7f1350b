"""The translations against the frozen interface of the nodes; no ComfyUI is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NODES = json.loads((ROOT / "tests" / "comfyui" / "nodes.json").read_text(encoding="utf-8"))
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())


def read(language: str, file: str) -> dict:
    return json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8"))


def texts(part: object) -> list[str]:
    return [part] if isinstance(part, str) else [text for value in part.values() for text in texts(value)]


def test_english_and_chinese_are_there():
    assert LANGUAGES == ["en", "zh"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_is_translated(language):
    translated = read(language, "nodeDefs.json")
    assert set(translated) == set(NODES)
    for name, node in NODES.items():
        words = translated[name]
        assert set(words) == {"display_name", "description", "inputs", "outputs"}
        assert set(words["inputs"]) == {i[0] for i in node["inputs"]}, name
        assert set(words["outputs"]) == {str(i) for i in range(len(node["outputs"]))}, name
        for part in [*words["inputs"].values(), *words["outputs"].values()]:
            assert set(part) == {"name", "tooltip"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_what_the_page_would_read_as_its_own_syntax(language):
    """vue-i18n takes { } | and @ for placeholders, plurals and links."""
    for file in ("nodeDefs.json", "settings.json"):
        for text in texts(read(language, file)):
            assert text.strip()
            assert not set("{}|@") & set(text), text


def test_the_settings_are_the_same_in_all_languages():
    assert len({tuple(read(language, "settings.json")) for language in LANGUAGES}) == 1
