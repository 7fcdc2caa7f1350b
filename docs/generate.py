"""Writes what is derived from the tables of options and families: docs/options.md, the lists in the nodes' help,
locales/en, the README's table.

Run `python -m docs.generate` in the repository's root after a change of ti_train/training/config.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nodes import option_names as nodes
from ti_train.commands.option_arguments import flag_of
from ti_train.hosts.families import FAMILIES
from ti_train.training.config import MANY, OPTIONS, PRESET_SUMMARIES, PRESETS_HELP
from ti_train.training.options import Option
from ti_train.training.widgets import widget_of
from webui_tab import option_names as tab

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- written by python -m docs.generate -->", "<!-- end of what it writes -->"
INPUTS: dict[str, Mapping[str, str]] = {
    "TITrain_TrainEmbedding": nodes.TRAIN_EMBEDDING,
    "TITrain_TrainingOptions": nodes.TRAINING_OPTIONS,
}
INTRODUCTION = f"""# Options

{BEGIN}

The options of a training run. They are the same in ComfyUI, in the WebUIs' tab and API, and on the command line.
The API and the `config` in an embedding's header use the names of the first column.

An option that is not given takes its value from the preset. The nodes and the tab write that as 0, an empty field or
*the preset's*, as their tooltips say.
"""


def generated() -> dict[Path, str]:
    """Each file with the text that it should have."""
    english = ROOT / "locales" / "en" / "nodeDefs.json"
    pages = {ROOT / "web" / "docs" / f"{node}.md": inputs for node, inputs in INPUTS.items()}
    return {
        ROOT / "docs" / "options.md": options_page(),
        ROOT / "README.md": with_written((ROOT / "README.md").read_text(encoding="utf-8"), families()),
        english: with_tooltips(english.read_text(encoding="utf-8")),
        **{page: with_inputs(page.read_text(encoding="utf-8"), inputs) for page, inputs in pages.items()},
    }


def options_page() -> str:
    groups = dict.fromkeys(option.group for option in OPTIONS.values())
    parts = [INTRODUCTION, table(("preset", "values"), PRESET_SUMMARIES.items())]
    for group in groups:
        rows = (row_of(option) for option in OPTIONS.values() if option.group == group)
        parts.append(f"\n## {group}\n")
        parts.append(table(("option", "what it does", "default", "range", "command line", "node input"), rows))
    parts.append(
        "\n## Names in other trainers\n\nThe command line takes these names of A1111, kohya's scripts and diffusers "
        "too: the values mean the same there.\n"
    )
    parts.append(table(("option", "also"), ((f"`{o.name}`", also(o)) for o in OPTIONS.values() if also(o))))
    parts.append("\n## What a face does not offer\n")
    parts.append(table(("face", "option", "why"), not_offered()))
    return "\n".join(parts) + "\n"


def row_of(option: Option) -> tuple[str, ...]:
    inputs = dict.fromkeys(name for names in INPUTS.values() for name, of in names.items() if of == option.name)
    default = "" if option.required else option.preset_values or option.unset or option.written(option.default)
    return f"`{option.name}`", option.help, default, range_of(option), f"`{flag_of(option)}`", ", ".join(inputs)


def range_of(option: Option) -> str:
    if option.kind == "choice":
        return ", ".join(option.choices)
    if option.least is None:
        return ""
    return (
        f"{option.least} and up" if option.most is None or option.most >= MANY else f"{option.least} to {option.most}"
    )


def also(option: Option) -> str:
    others = (f"--{alias}" for alias in option.aliases)
    return ", ".join(f"`{other}`" for other in others if other != flag_of(option))


def not_offered() -> Iterator[tuple[str, ...]]:
    for face, names in (("ComfyUI", nodes.NOT_OFFERED), ("tab and API", tab.NOT_OFFERED)):
        for name, why in names.items():
            yield face, f"`{name}`", why


def with_inputs(page: str, inputs: Mapping[str, str]) -> str:
    """A help page with the list of a node's options between its two marks: the page's sidebar would cut off a table."""
    meanings = ((name, tooltip(name, option).replace("<", "&lt;")) for name, option in inputs.items())
    return with_written(page, "\n".join(f"- **{name}**: {meaning}" for name, meaning in meanings))


def with_written(page: str, written: str) -> str:
    """A page with what is written between its two marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{rest.partition(END)[2]}"


def families() -> str:
    """What can be trained in ComfyUI; tests/comfyui/test_comfyui_families.py holds each row to it."""
    rows = []
    for family in FAMILIES:
        used = "`embedding:name`" if family.syntax else "Load Embedding"
        state = (f"refused: {family.refused}", "") if family.refused else (f"trained here: {family.tried}", used)
        encoders = "" if family.refused else ", ".join(f"`{e}`" for e in family.encoders)
        rows.append((family.title, *state, encoders, ", ".join(family.hosts)))
    return table(("model family", "", "in a prompt", "text encoders", "ComfyUI"), rows)


def with_tooltips(translation: str) -> str:
    """nodeDefs.json with the tooltips of the options."""
    texts = json.loads(translation)
    for node, inputs in INPUTS.items():
        words = {name: {"name": name, "tooltip": tooltip(name, option)} for name, option in inputs.items()}
        texts[node]["inputs"] |= words
    texts["TITrain_TrainEmbedding"]["inputs"]["preset"]["tooltip"] = PRESETS_HELP
    return json.dumps(texts, indent=2, ensure_ascii=False) + "\n"


def tooltip(name: str, option: str) -> str:
    """Of a node's input, as nodes/option_inputs.py writes it."""
    return widget_of(option, kind=nodes.NUMBERS.get(name)).tooltip + nodes.NOTES.get(name, "")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in line) + " |" for line in lines
    )


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8", newline="\n")
