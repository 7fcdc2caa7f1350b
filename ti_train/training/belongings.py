"""What belongs to an embedding: all that a run or a user has put beside its file under its name. It moves together.

NAME.resume  NAME.csv  NAME-loss.png  NAME-step00100-0.png    of its run
NAME-steps/NAME-000100.safetensors  NAME-worse.safetensors    its numbered copies, and a worse embedding of its name
NAME.png  NAME.preview.png  NAME.json  NAME.txt  NAME.info    pictures and notes, of any tool
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from ..embedding import Embedding
from ..errors import UserError
from ..formats import PICTURES, READABLE, config_of, name_inside
from ..names import bare_name
from ..text import name_key
from .checkpoint import COPIES, WORSE, header_of

PICTURE = r"(\.preview)?\.(png|jpe?g|webp|gif)"
BESIDE = re.compile(
    rf"\.resume|\.csv|-loss\.png|-step\d+-\d+\.png|\.json|\.txt|(\.civitai)?\.info|{PICTURE}", re.IGNORECASE
)
COPIES_FOLDER = re.compile(rf"{COPIES}(-\d+)?")
WORSE_FILE = re.compile(rf"{WORSE}(\.safetensors|{PICTURE})")


def move(file: Path, to: Path, run: str) -> None:
    """Moves an embedding with its belongings, under another name; all of it or nothing.

    to: the embedding's new file. run: the new name of its run, with folders. Raises UserError if something of the new
    name is there, and OSError.
    """
    moves = [(old, to.parent / (to.stem + old.name[len(file.stem) :])) for old in belongings(file)]
    there = {name_key(other.name): other for other in to.parent.glob("*") if other not in dict(moves)}
    for _, new in moves:
        if other := there.get(name_key(new.name)):
            raise UserError(f"'{other.name}' exists already. Choose another name.")
    moves += [
        (new / copy.name, new / (to.stem + copy.name[len(file.stem) :]))
        for old, new in moves
        if old.is_dir()
        for copy in old.glob("*")
        if copy.name.startswith(f"{file.stem}-")
    ]
    with ExitStack() as undo:
        for old, new in moves:
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(old, new)
            undo.callback(shutil.move, new, old)
        undo.pop_all()
    for _, new in moves:
        if new.is_file() and new.suffix.lower() in READABLE:
            name_inside(new, run)


def belongings(file: Path) -> Iterator[Path]:
    """The file, and what belongs to it, if there is no other embedding of its name to which it belongs too."""
    yield file
    twins = (file.with_suffix(kind) for kind in READABLE if kind not in PICTURES)
    if any(twin != file and twin.is_file() for twin in twins):
        return
    for beside in sorted(file.parent.iterdir()):
        if beside != file and beside.name.startswith(file.stem) and _belongs(beside, file.stem):
            yield beside


def _belongs(beside: Path, name: str) -> bool:
    ending = beside.name[len(name) :]
    if beside.is_dir():
        return bool(COPIES_FOLDER.fullmatch(ending)) and any(beside.glob("*.safetensors"))
    if WORSE_FILE.fullmatch(ending):  # an embedding of the user may have such a name
        return _run_of(beside.with_name(f"{name}{WORSE}.safetensors")) == name
    return bool(BESIDE.fullmatch(ending))


def _run_of(file: Path) -> str:
    """The name of the run that wrote an embedding, "" if it is unknown."""
    return bare_name(str(config_of(Embedding("", {}, header_of(file))).get("name", "")))
