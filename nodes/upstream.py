"""Captions and masks of Load Training Images that nodes between it and another have lost.

They come with its images (see TrainingImage), and a node that makes new images of these makes them without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import is_link

from nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

from .training_images import sent_along

LOADER = "TITrain_LoadTrainingImages"
IMAGES = {"IMAGE", "*", "COMFY_MATCHTYPE_V3"}  # the types of outputs that may have images, those of switches too
Node = dict[str, Any]  # class_type and inputs, as in the API's format of a workflow


def lost_on_the_way(hidden: io.HiddenHolder, missing: Iterable[str]) -> list[str]:
    """A remark on captions and masks that do not reach the input `images` of the node that is executed.

    missing: which of "captions" and "masks" it has neither by its images nor by inputs of their own.
    """
    lost: dict[str, set[str]] = {}
    for loader, through in loaders(hidden.dynprompt, hidden.unique_id, "images") if missing else ():
        lost.setdefault(through, set()).update(sent_by(loader["inputs"]).intersection(missing))
    return [remark(name, sorted(kinds)) for name, kinds in lost.items() if kinds]


def remark(through: str, kinds: list[str]) -> str:
    both = " and ".join(kinds)
    outputs = "outputs" if len(kinds) > 1 else "output"
    cropped = " Crop masks as their images are cropped." if "masks" in kinds else ""
    return (
        f"The {both} of Load Training Images do not pass {through}. Connect its {outputs} {both} to this node too."
        + cropped
    )


def loaders(prompt: Any, node: str, *inputs: str) -> Iterator[tuple[Node, str]]:
    """Each Load Training Images that images come from, and the name of the node that they reach first.

    inputs: of the node, through which the images come; all if none are given.
    """
    seen: set[tuple[str, str]] = set()
    waiting = list(links(prompt.get_node(node), inputs))
    while waiting:
        source, slot, taker = waiting.pop()
        found = prompt.get_node(source)
        if (source, taker) in seen or NODE_CLASS_MAPPINGS[found["class_type"]].RETURN_TYPES[slot] not in IMAGES:
            continue
        seen.add((source, taker))
        if found["class_type"] == LOADER:
            yield found, NODE_DISPLAY_NAME_MAPPINGS.get(taker, taker)
        else:
            waiting += links(found, ())


def links(node: Node, inputs: tuple[str, ...]) -> Iterator[tuple[str, int, str]]:
    """Of a node's inputs: the node and the output that each comes from, and the type of the node that takes it."""
    for name, value in node["inputs"].items():
        if is_link(value) and (not inputs or name in inputs):
            yield *value, node["class_type"]


def sent_by(inputs: dict[str, Any]) -> set[str]:
    """What Load Training Images with these inputs sends along; both kinds if other nodes give its inputs."""
    if any(map(is_link, inputs.values())):
        return {"captions", "masks"}
    return sent_along(**inputs)
