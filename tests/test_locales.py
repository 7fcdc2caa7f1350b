"""The translations against the frozen interface of the nodes; no ComfyUI is needed."""

from __future__ import annotations

import json
import re
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


@pytest.fixture(params=LANGUAGES)
def page_words(request) -> dict[str, str]:
    """The panel's own texts: locales/LANGUAGE/main.json has them under a key of the pack's own."""
    file = read(request.param, "main.json")
    assert list(file) == ["tiTrain"]
    return file["tiTrain"]


def keys_of_the_page() -> set[str]:
    """Every key that the page's scripts ask for; `ended.` stands for all that begin so."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "web").glob("*.js"))
    buttons = set(re.findall(r'\bbutton\("(\w+)"', source)) | set(re.findall(r'\bline\("(\w+)"', source))
    tooltips = {f"{name}.tooltip" for name in re.findall(r'\bbutton\("(\w+)"', source)}
    written = set(re.findall(r'"data-(?:text|title|label)": ["`]([\w.]+)["`$]', source))
    lists = set(re.findall(r'\bsection\("(\w+)"', source)) | set(re.findall(r'\bchange\(.*"(\w+)"\)', source))
    return buttons | tooltips | written | lists | set(re.findall(r'\btext\(["`]([\w.]+)["`$]', source))


def test_the_page_asks_for_the_texts_that_are_there_and_for_no_other(page_words):
    asked = keys_of_the_page()
    families = tuple(key for key in asked if key.endswith("."))
    assert asked - set(families) <= set(page_words)
    assert set(page_words) - asked == {key for key in page_words if key.startswith(families)}
    assert {f"ended.{status}" for status in ("done", "stopped", "cancelled", "failed", "lost")} <= set(page_words)
    assert {f"warning.{kind}" for kind in ("unreadable", "small", "copy")} <= set(page_words)


def test_the_pages_texts_have_the_same_places_to_fill_in_in_all_languages():
    places = [
        {key: sorted(re.findall(r"{(\w+)}", text)) for key, text in read(language, "main.json")["tiTrain"].items()}
        for language in LANGUAGES
    ]
    assert all(other == places[0] for other in places)
