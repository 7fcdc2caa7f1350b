"""The documents are true of the tree: links, paths, commands and quoted messages."""

from __future__ import annotations

import ast
import re
import shlex
from itertools import chain
from pathlib import Path

import pytest

from ti_train import __version__
from ti_train.__main__ import parser

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    chain(ROOT.glob("*.md"), *(ROOT.glob(f"{folder}/*.md") for folder in ("docs", "demo", "benchmarks", "web/docs")))
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"python -m ([\w.]+)")
SCRIPT = re.compile(r"python ([\w./]+\.py)")
NAMED = re.compile(r"`((?:\w+/)+[\w.-]+\.(?:py|md|ts|js))`")
OTHERS = {"pytest"}  # modules that are not ours
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(document: Path) -> list[str]:
    """The lines of a document's code blocks, continued lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


@each_document
def test_every_relative_link_leads_somewhere(document):
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_every_file_and_module_that_is_named_exists(document):
    text = document.read_text(encoding="utf-8")
    for name in set(MODULE.findall(text)) - OTHERS:
        place = ROOT.joinpath(*name.rstrip(".").split("."))
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), name
    for name in {*SCRIPT.findall(text), *NAMED.findall(text)}:
        assert any((folder / name).is_file() for folder in (ROOT, ROOT / "ti_train", document.parent)), name


@pytest.mark.parametrize(
    "command",
    sorted({line for document in DOCUMENTS for line in commands(document) if line.startswith("python -m ti_train ")}),
)
def test_a_command_has_only_arguments_that_there_are(command):
    if "{" not in command:  # of the commands' names
        parser().parse_args(shlex.split(command, comments=True)[3:])


def test_the_messages_that_the_readme_explains_are_those_of_the_code():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Troubleshooting")[2].partition("\n## ")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    nodes = chain.from_iterable(
        ast.walk(ast.parse(file.read_text(encoding="utf-8"))) for file in (ROOT / "ti_train").rglob("*.py")
    )
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert quoted
    assert [message for message in quoted if not any(message in text for text in texts)] == []


def test_the_version_has_its_section_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE)
