"""Prompts as pieces of text with slots for embeddings: from templates, captions and typed text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from .errors import UserError
from .host import Prompt, Slot
from .names import bare_name
from .text import composed, unicode_forms, unicode_text
from .user_files import text_bytes

PLACEHOLDER = "*"  # stands for the embedding in training in every prompt
NAME, FILEWORDS = "[name]", "[filewords]"  # A1111's placeholders in template files

# Gal et al. 2022, appendix D (from the ImageNet templates of CLIP).
OBJECT_TEMPLATES = (
    "a photo of a [name]",
    "a rendering of a [name]",
    "a cropped photo of the [name]",
    "the photo of a [name]",
    "a photo of a clean [name]",
    "a photo of a dirty [name]",
    "a dark photo of the [name]",
    "a photo of my [name]",
    "a photo of the cool [name]",
    "a close-up photo of a [name]",
    "a bright photo of the [name]",
    "a cropped photo of a [name]",
    "a photo of the [name]",
    "a good photo of the [name]",
    "a photo of one [name]",
    "a close-up photo of the [name]",
    "a rendition of the [name]",
    "a photo of the clean [name]",
    "a rendition of a [name]",
    "a photo of a nice [name]",
    "a good photo of a [name]",
    "a photo of the nice [name]",
    "a photo of the small [name]",
    "a photo of the weird [name]",
    "a photo of the large [name]",
    "a photo of a cool [name]",
    "a photo of a small [name]",
)
STYLE_TEMPLATES = (
    "a painting in the style of [name]",
    "a rendering in the style of [name]",
    "a cropped painting in the style of [name]",
    "the painting in the style of [name]",
    "a clean painting in the style of [name]",
    "a dirty painting in the style of [name]",
    "a dark painting in the style of [name]",
    "a picture in the style of [name]",
    "a cool painting in the style of [name]",
    "a close-up painting in the style of [name]",
    "a bright painting in the style of [name]",
    "a cropped painting in the style of [name]",
    "a good painting in the style of [name]",
    "a close-up painting in the style of [name]",
    "a rendition in the style of [name]",
    "a nice painting in the style of [name]",
    "a small painting in the style of [name]",
    "a weird painting in the style of [name]",
    "a large painting in the style of [name]",
)
CAPTION_TEMPLATES = ("a photo of a [name], [filewords]",)
STYLE_CAPTION_TEMPLATES = ("[filewords], in the style of [name]",)
BUILT_IN = {
    "object": OBJECT_TEMPLATES,
    "style": STYLE_TEMPLATES,
    "captions": CAPTION_TEMPLATES,
    "style-captions": STYLE_CAPTION_TEMPLATES,
}


@dataclass(frozen=True)
class Templates:
    """Lines with [name], [filewords] or both. A caption that contains [name] is used without a template."""

    lines: tuple[str, ...]

    @classmethod
    def load(cls, source: str) -> Templates:
        """`source`: a name of BUILT_IN, or a text file with one template a line. Raises UserError."""
        if source in BUILT_IN:
            return cls(BUILT_IN[source])
        try:
            text = unicode_text(text_bytes(Path(source)))
        except UserError as error:
            raise UserError(f"The file of templates '{source}' {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"The templates '{source}' are neither a readable file in UTF-8 or UTF-16 "
                f"nor one of {', '.join(BUILT_IN)} ({error})."
            ) from None
        lines = tuple(line.strip() for line in text.splitlines() if line.strip())
        for number, line in enumerate(lines, 1):
            if NAME not in line and FILEWORDS not in line:
                raise UserError(
                    f"Template {number} of '{source}' is '{line}', which lacks {NAME}: it would not use "
                    f"the embedding. Write {NAME} where it belongs, or {FILEWORDS} for captions that contain it."
                )
        if not lines:
            raise UserError(
                f"The template file '{source}' is empty. Write one template a line, such as: a photo of {NAME}"
            )
        return cls(lines)

    @property
    def use_captions(self) -> bool:
        """Whether any line includes the image's caption."""
        return any(FILEWORDS in line for line in self.lines)

    def uses(self, caption: str) -> bool:
        """Whether prompts contain this caption: by a template, or because it names the embedding itself."""
        return self.use_captions or NAME in caption

    def prompts(self, caption: str) -> tuple[Prompt, ...]:
        """Every prompt with the embedding that an image with this caption may be trained with."""
        return tuple(fill(line, caption) for line in self._lines(caption))

    def draw(self, caption: str, generator: torch.Generator) -> Prompt:
        """A random one of the caption's prompts, of which there must be at least one."""
        lines = self._lines(caption)
        return fill(lines[int(torch.randint(len(lines), (1,), generator=generator))], caption)

    def _lines(self, caption: str) -> tuple[str, ...]:
        return (caption,) if NAME in caption else tuple(line for line in self.lines if NAME in line)


def beside(prompt: Prompt, word: str) -> Prompt:
    """The prompt with a second slot after its last one: "a photo of a * with <other>, on a table"."""
    last = max(i for i, piece in enumerate(prompt) if isinstance(piece, Slot))
    return (*prompt[: last + 1], " with ", Slot(word), *prompt[last + 1 :])


def vary_tags(caption: str, generator: torch.Generator, shuffle: bool, drop: float, keep: int) -> str:
    """Shuffles a caption's comma-separated tags, and drops each with probability `drop`.

    The first `keep` tags keep their place; a tag with [name] is never dropped.
    """
    if not (shuffle or drop):
        return caption
    fixed, loose = tags_of(caption, keep)
    if drop:
        chances = torch.rand(len(loose), generator=generator).tolist()
        loose = [tag for tag, chance in zip(loose, chances, strict=True) if chance >= drop or NAME in tag]
    if shuffle:
        loose = [loose[i] for i in torch.randperm(len(loose), generator=generator).tolist()]
    return ", ".join(fixed + loose)


def tags_of(caption: str, keep: int) -> tuple[list[str], list[str]]:
    """The first `keep` comma-separated tags of a caption, and the others."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    return tags[:keep], tags[keep:]


def with_name_last(caption: str, keep: int) -> str:
    """The order of a caption's tags in which [name] comes last."""
    fixed, loose = tags_of(caption, keep)
    return ", ".join(fixed + sorted(loose, key=lambda tag: NAME in tag))


def mentions(caption: str, name: str) -> bool:
    """Whether a caption contains the embedding's bare name, which the model reads as ordinary text."""
    pattern = rf"(?<!\w){re.escape(composed(name))}(?!\w)"
    return NAME not in caption and re.search(pattern, composed(caption), re.IGNORECASE) is not None


def fill(line: str, caption: str) -> Prompt:
    """The prompt from a template line and an image's caption."""
    text = line.replace(FILEWORDS, "" if NAME in caption else caption).strip(" ,")
    return slots(text, {NAME: PLACEHOLDER})


def parse(text: str, words: Collection[str]) -> Prompt:
    """The prompt from typed text: `<name>` is a loaded embedding, and so is `*` if there is only one."""
    marks = {f"<{word}>": word for word in words}
    if len(words) == 1:
        marks[PLACEHOLDER] = next(iter(words))
    return slots(text, marks)


def placeholders_of(name: str) -> tuple[str, ...]:
    """What stands for the embedding in training in typed prompts: `*`, `<pets/cat>` and `<cat>`."""
    return tuple(dict.fromkeys((PLACEHOLDER, f"<{name}>", f"<{bare_name(name)}>")))


def slots(text: str, marks: dict[str, str]) -> Prompt:
    """Splits a text at its marks (mark -> embedding), longest mark first."""
    if not marks:
        return (text,)
    marks = {written: word for mark, word in marks.items() for written in unicode_forms(mark)}
    by_length = sorted(marks, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, by_length)) + ")", text)
    return tuple(Slot(marks[piece]) if piece in marks else piece for piece in pieces if piece)


def text_of(prompt: Prompt) -> str:
    """The prompt as text, with `*` or `<name>` for its slots."""
    pieces = (f"<{p.name}>" if isinstance(p, Slot) and p.name != PLACEHOLDER else p for p in prompt)
    return "".join(PLACEHOLDER if isinstance(p, Slot) else p for p in pieces)


def latest_slot(prompts: Iterable[Prompt], length: Callable[[Prompt], int]) -> Prompt:
    """The prompt with the most tokens before its last slot: the first to exceed the encoder's context."""

    def before(prompt: Prompt) -> int:
        last = max((i for i, piece in enumerate(prompt) if isinstance(piece, Slot)), default=0)
        return length(prompt[:last])

    return max(prompts, key=before)
