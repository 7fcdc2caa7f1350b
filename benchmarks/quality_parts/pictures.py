"""Questions to an embedding, each a set of prompts, and what the judge says of their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

FIRST_SEEDS = {
    "plain": 1000,
    "background": 2000,
    "style": 3000,
    "beside": 4000,
    "shape": 5000,
    "edits": 6000,
}  # training saw none


@dataclass(frozen=True)
class Question:
    """Prompts that ask for one kind of thing. asked: what each prompt asks for besides the concept."""

    name: str
    prompts: Sequence[str]
    asked: Sequence[str]

    @property
    def seed(self) -> int:
        return FIRST_SEEDS[self.name]


@dataclass(frozen=True)
class Judged:
    """Of one picture, each 0 to 1: how much of the concept it shows, and whether what was asked for is there.

    further: measures of one world by name. None: not measured.
    """

    fidelity: float | None
    shown: float | None
    further: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What an embedding shows, each 0 to 1: means over the pictures of a question, and over questions."""

    fidelity: float
    edit: float
    kept: float
    by_question: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)  # of the plain question

    @classmethod
    def of(cls, answers: Mapping[str, Sequence[Judged]]) -> Figures:
        by_question: dict[str, dict[str, float]] = {}
        for name, judged in answers.items():
            kept = [one.fidelity for one in judged if one.fidelity is not None]
            shown = [one.shown for one in judged if one.shown is not None]
            by_question[name] = {k: mean(v) for k, v in (("fidelity", kept), ("shown", shown)) if v}
        edits = [figures for name, figures in by_question.items() if name != "plain"]
        return cls(
            by_question["plain"]["fidelity"],
            mean(figures["shown"] for figures in edits if "shown" in figures),
            mean(figures["fidelity"] for figures in edits if "fidelity" in figures),
            by_question,
            {name: mean(one.further[name] for one in answers["plain"]) for name in answers["plain"][0].further},
        )
