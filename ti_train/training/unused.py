"""Options that were given and have no effect beside the others: one table, reported by every face before step 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..data.dataset import Dataset
from ..host import Host
from ..names import candidates, names_file
from ..prompts import Templates
from ..text import listed
from .config import OPTIONS, TrainConfig
from .initial_vectors import tokens_of

OF_PREVIEWS = tuple(name for name in OPTIONS if name.startswith("preview_") and name != "preview_every")
TAGS = ("shuffle_tags", "drop_tags", "keep_tags")


@dataclass(frozen=True)
class Facts:
    """What an option's effect depends on. cfg: of the previews."""

    config: TrainConfig
    captions: bool  # whether prompts contain captions
    cfg: float
    tokens: int  # of the initial text


@dataclass(frozen=True)
class Rule:
    """Options that have no effect if `applies`, and why."""

    options: tuple[str, ...]
    applies: Callable[[Facts], bool]
    why: str


RULES = (
    Rule(OF_PREVIEWS, lambda f: not f.config.preview_every, "preview_every is 0, so there are no previews"),
    Rule(
        ("preview_negative",),
        lambda f: f.config.preview_every > 0 and f.cfg == 1,
        "a negative prompt is used only if cfg is not 1",
    ),
    Rule(TAGS, lambda f: not f.captions, "the prompts contain no captions"),
    Rule(
        ("keep_tags",),
        lambda f: f.captions and not (f.config.shuffle_tags or f.config.drop_tags),
        "tags are neither shuffled nor dropped",
    ),
    Rule(("warmup",), lambda f: isinstance(f.config.learning_rate, str), "learning_rate gives the rate of every step"),
    Rule(("progressive_every",), lambda f: f.config.num_vectors == 1, "there is only one vector"),
    Rule(
        ("early_stop",),
        lambda f: f.config.early_stop * f.config.evaluate_every >= f.config.steps,
        "the run has too few measurements of the validation loss",
    ),
    Rule(
        ("initial_vectors",),
        lambda f: all(map(names_file, candidates(f.config.init))),
        "the initial vectors are those of a file",
    ),
    Rule(
        ("initial_vectors",),
        lambda f: (
            f.config.initial_vectors == "condensed"
            and not names_file(f.config.init)
            and f.config.num_vectors >= f.tokens
        ),
        "there are as many vectors as the initial text has tokens",
    ),
    Rule(
        ("average",),
        lambda f: f.config.averaged_after >= f.config.steps - 1,
        "its part of the run is one step at most",
    ),
    Rule(
        ("gradient_clip",),
        lambda f: f.config.optimizer == "sphere" and not f.config.pull,
        "sphere takes only the direction of the gradient",
    ),
    Rule(("copy_every",), lambda f: f.config.copy_every > f.config.steps, "the run has fewer steps"),
)


def unused_options(host: Host, dataset: Dataset, templates: Templates, config: TrainConfig) -> list[str]:
    """A remark for each reason. config: with the number of vectors that are trained."""
    captions = any(p.caption and templates.uses(p.caption) for p in dataset.pictures)
    facts = Facts(config, captions, config.preview_cfg or host.sampling.cfg, tokens_of(host, config.init))
    remarks = []
    for rule in RULES:
        given = [name for name in rule.options if _is_given(name, config, host)]
        if given and rule.applies(facts):
            remarks.append(f"{listed(given)} {'has' if len(given) == 1 else 'have'} no effect: {rule.why}.")
    if templates.use_captions and not captions:
        remarks.append(f"The templates '{Path(config.templates).name}' use captions, but no image has one.")
    return remarks


def _is_given(name: str, config: TrainConfig, host: Host) -> bool:
    """Whether an option has a value of the user's own: neither a default nor a preset's."""
    about = OPTIONS[name]
    own = getattr(host.sampling, name.removeprefix("preview_"), about.default)  # the WebUIs' form always gives it
    return getattr(config, name) not in (about.default, own, *about.presets.values())
