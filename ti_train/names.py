"""The names of embeddings and of their files: what file systems can store, and what the hosts' prompts can express.

An embedding moves between hosts, so one rule fits all. It was tried in ComfyUI's tokenizers and in the prompt parsers
of AUTOMATIC1111, reForge and Forge (tests/comfyui/inside.py and tests/webui/probe run names through the real ones).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import PurePosixPath

from .errors import UserError
from .text import composed

IN_PROMPTS = "embedding:"  # before an embedding's name in ComfyUI's prompts
PICTURES = (".png", ".webp")
READABLE = (".safetensors", ".pt", ".bin", *PICTURES)
EXAMPLE = "my-cat"
BETWEEN = "|"  # between initial texts of which one is chosen; no file name has it
LONGEST = 120  # bytes; file systems take 255, of which copies and numbers need some
RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
NOT_IN_FILES = re.compile(r'[<>:"|?*\x00-\x1f]')
SEPARATORS = re.compile(r"\b(AND|BREAK)\b")
SYNTAX = re.compile(r"[()\[\]{}<>:|#\\]")
NUMBER = re.compile(r"[\d.,+-]+")


class OldName(str):
    """The name of a run that is already there. Older versions accepted every file name, so it is not refused."""

    @property
    def is_file_name(self) -> bool:
        plain = self.strip(" ") == self and not self.startswith(".") and not self.endswith(".")
        return bool(self) and plain and not re.search(r"[/\\]", self) and not NOT_IN_FILES.search(self)


def names_file(text: str) -> bool:
    """Whether a text is the name of an embedding file rather than a word or phrase: by its extension, or embedding:."""
    return text.lower().startswith(IN_PROMPTS) or text.lower().endswith(READABLE)


def candidates(init: str) -> list[str]:
    """The initial texts and files of the option `init`, which stand between |."""
    return list(dict.fromkeys(filter(None, map(str.strip, init.split(BETWEEN))))) or [init]


def with_paths(init: str, path_of: Callable[[str], str]) -> str:
    """`init` with a path for each of its candidates that names an embedding file. path_of: may raise UserError."""
    if BETWEEN not in init:
        return path_of(init) if names_file(init) else init
    return f" {BETWEEN} ".join(path_of(each) if names_file(each) else each for each in candidates(init))


def file_names(text: str) -> list[str]:
    """The names that the file of such a text may have: embedding:NAME may leave out the extension, as in a prompt."""
    name = text[len(IN_PROMPTS) :].strip() if text.lower().startswith(IN_PROMPTS) else text
    return [name] if name.lower().endswith(READABLE) else [name + extension for extension in READABLE]


def bare_name(name: str) -> str:
    """A name without its folders: what the WebUIs' prompts and the keys in files use."""
    return PurePosixPath(name).name


def numbered(name: str) -> Iterator[str]:
    """name, name-2, name-3 ..., without end."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def check_name(name: str) -> str:
    """The name to use: without spaces around it, a typed embedding: or file extension; composed (NFC), as keyboards do.

    `pets/cat` is the file cat in the folder pets. Raises UserError with the nearest name that every host can use.
    """
    if isinstance(name, OldName):
        return name
    given = composed(name.strip())
    if given.lower().startswith(IN_PROMPTS):
        given = given[len(IN_PROMPTS) :].strip()
    while given.lower().endswith(READABLE):
        given = given[: given.rindex(".")]
    length = len(given.encode("utf-8", "surrogatepass"))  # bytes of no encoding are half characters on a command line
    if length > LONGEST:
        raise UserError(f"The name has {length} bytes; at most {LONGEST} are allowed. Use a shorter one.")
    for part in given.split("/"):
        if wrong := _wrong(part):
            raise UserError(f"The name '{name}' cannot be used: {wrong}. Use a name such as {nearest_name(given)}.")
    return given


def old_name(name: str) -> list[str]:
    """A remark on a name that only older versions accepted, with the one to rename it to; else none."""
    wrong = _wrong(name) if isinstance(name, OldName) else ""
    if not wrong:
        return []
    return [
        f"The name '{name}' is of an older version: {wrong}. After the training, rename it to {nearest_name(name)}."
    ]


def _wrong(part: str) -> str:
    """Why a name, or one of its folders, cannot be used; "" if it can. In the order in which a user would mend it."""
    if not part.strip(". "):
        return "it is empty, or has an empty folder, or one of dots only"
    if "\\" in part:
        return "folders are separated by '/'"
    if part[0] == "." or part[-1] in ". ":
        return "names and folders must not begin with a dot, nor end with a dot or a space"
    if not part.isprintable() or any(c.isspace() for c in part):
        return "it contains a space or an invisible character, at which ComfyUI's prompts end the name"
    if found := NOT_IN_FILES.search(part):
        return f"file names must not contain '{found[0]}'"
    if found := SYNTAX.search(part):
        return f"'{found[0]}' is part of the syntax of prompts"
    if found := SEPARATORS.search(part):
        return f"the WebUIs split prompts at {found[0]}"
    if part[0] == ",":
        return "ComfyUI's prompts drop a comma at its beginning"
    if not _ends_word(part):
        return (
            "it must end with a letter or digit; anything else merges with a comma that follows it in a WebUI's prompt"
        )
    if _is_number(part):
        return "ComfyUI reads it as a weight in (embedding:name)"
    if RESERVED_ON_WINDOWS.fullmatch(part):
        return f"'{part}' is reserved on Windows"
    return ""


def _ends_word(part: str) -> bool:
    """Whether CLIP's tokenizer ends a word here (Radford et al. 2021): it joins all characters that are neither."""
    return unicodedata.category(part[-1])[0] in "LN"


def _is_number(part: str) -> bool:
    """By Python's own rule, which ComfyUI's parser of weights uses."""
    try:
        float(part)
    except ValueError:
        return False
    return True


def nearest_name(name: str) -> str:
    """The nearest name that check_name accepts as it is."""
    parts = [near for part in re.split(r"[/\\]", composed(name)) if (near := _nearest(part))]
    near = "/".join(parts) or EXAMPLE
    return nearest_name(near[: near.rindex(".")]) if near.lower().endswith(READABLE) else near


def _nearest(part: str) -> str:
    plain = "".join(c if c.isprintable() and not c.isspace() else "-" for c in part)
    plain = re.sub(r"-{2,}", "-", NOT_IN_FILES.sub("-", SYNTAX.sub("-", plain)))
    plain = re.sub(r"^[\W_]+(?=\w)|^[.,]+|[!-/:-@\[-`{-~]+$", "", plain)
    if not plain.strip(".-_,"):
        return ""
    if not _ends_word(plain):
        plain += "1"
    plain = SEPARATORS.sub(lambda found: found[0].lower(), plain)
    return f"my-{plain}" if _is_number(plain) or RESERVED_ON_WINDOWS.fullmatch(plain) else plain


def check_placeholder(text: str) -> str:
    """A placeholder for ComfyUI's prompts, stripped. Raises UserError for one that would match in their syntax."""
    placeholder = text.strip()
    if not placeholder:
        raise UserError(
            "The placeholder is empty. Enter the text that stands for the embedding, such as * or <my-cat>."
        )
    inner = placeholder[1:-1] if re.fullmatch(r"<[^<>]+>", placeholder) else placeholder
    if NUMBER.fullmatch(placeholder) or _is_number(placeholder):
        wrong = "numbers are weights in prompts, as in (cat:1.2)"
    elif found := SYNTAX.search(inner):
        wrong = f"'{found[0]}' is part of the syntax of prompts"
    elif placeholder == "embedding":
        wrong = "'embedding:' is ComfyUI's own syntax"
    else:
        return placeholder
    name = nearest_name(inner)
    raise UserError(f"The placeholder '{placeholder}' cannot be used: {wrong}. Use * or <{name}>, for example.")
