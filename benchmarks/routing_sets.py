"""Evaluation sets of a structure that is known, to see what `routing.py` makes of them.

    python benchmarks/routing_sets.py FOLDER             writes one file for each kind
    python benchmarks/routing_sets.py FOLDER --only few  one of them

Each prompt has a topic, which its words tell, and a difficulty, which its surface tells in part (its length, numbers
and steps); each model has an ability for each topic. Beside each set `KIND.known.json` says what somebody who knows
every probability, and no outcome, would save at 99 % of the best single model's quality: more can only be luck.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_SYLLABLES = [one + two for one in "bdfghklmnprstvz" for two in "aeiou"]
_CYRILLIC = [one + two for one in "бвгджзклмнпрстхчш" for two in "аеиоу"]
_HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 1400)]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a set is made."""

    rows: int = 2000
    models: int = 2
    topics: int = 24
    by_topic: float = 1.0
    """How far difficulty and abilities differ from topic to topic."""
    by_surface: float = 1.0
    """How much difficulty shows in the surface of a prompt."""
    hidden: float = 0.5
    """How much difficulty shows in nothing."""
    spread: float = 1.6
    """How far the weakest model is behind the strongest."""
    sharp: float = 2.0
    """How surely a model answers what is within its ability."""
    continuous: bool = False
    costs: str = "apart"
    """apart: stronger ones are dearer | equal | upside down: the strongest is the cheapest | none: nothing costs."""
    groups: str = "own"
    """own: each prompt is one | ten: about ten prompts in each | topics | one."""
    writing: str = "latin"
    """latin | mixed: a third each of three writings | han."""
    lacking: float = 0.0
    """Share of scores that are not there."""


KINDS: dict[str, Kind] = {
    "plain": Kind(),
    "few": Kind(rows=300),
    "few_many_models": Kind(rows=300, models=11, continuous=True),
    "surface": Kind(by_topic=0.3, by_surface=2.0),
    "topics_only": Kind(by_topic=1.6, by_surface=0.0),
    "nothing_to_learn": Kind(by_topic=0.0, by_surface=0.0, hidden=1.0),
    "many_models": Kind(rows=3000, models=11, continuous=True),
    "many_models_sharp": Kind(rows=3000, models=11, by_topic=2.0, sharp=4.0),
    "continuous": Kind(models=3, continuous=True),
    "equal_costs": Kind(models=3, costs="equal"),
    "no_costs": Kind(models=3, costs="none"),
    "cheapest_is_best": Kind(models=4, costs="upside down"),
    "dominating": Kind(models=4, spread=6.0, by_topic=0.2),
    "close": Kind(models=3, spread=0.2),
    "ten_in_a_group": Kind(rows=3000, groups="ten"),
    "topics_as_groups": Kind(rows=2000, groups="topics"),
    "six_groups": Kind(rows=2000, groups="topics", topics=6),
    "one_group": Kind(groups="one"),
    "mixed_writing": Kind(writing="mixed"),
    "han": Kind(writing="han", by_topic=1.6),
    "lacking": Kind(models=4, lacking=0.05),
    "large": Kind(rows=20_000, models=11, continuous=True),
}


@dataclass(frozen=True, slots=True)
class Made:
    """`chances` are expected scores (rows, models)."""

    rows: list[dict[str, Any]]
    chances: Doubles
    costs: Doubles


def make_set(kind: Kind, seed: int = 0) -> Made:
    """A set of that kind."""
    dice = np.random.default_rng(seed)
    words = _Words(kind, dice)
    topics = dice.integers(kind.topics, size=kind.rows)
    hard_of_topic = dice.normal(0, 0.6 * kind.by_topic, kind.topics)
    ability = np.linspace(-kind.spread, 0, kind.models)[:, None] + dice.normal(
        0, 0.7 * kind.by_topic, (kind.models, kind.topics)
    )
    surface = dice.normal(size=kind.rows)
    hard = 0.8 * kind.by_surface * surface + hard_of_topic[topics] + dice.normal(0, kind.hidden, kind.rows)
    chances = 1 / (1 + np.exp(-kind.sharp * (0.9 + ability[:, topics].T - hard[:, None])))
    scores = _scores(kind, chances, dice)
    prompts = [words.prompt(int(topic), float(shown), dice) for topic, shown in zip(topics, surface, strict=True)]
    costs = _costs(kind, np.array([len(prompt) for prompt in prompts], dtype=np.float64), dice)
    names = [f"maker/model-{number}" for number in range(kind.models)]
    groups = _groups(kind, topics)
    rows = []
    for at, prompt in enumerate(prompts):
        there = [name for name in names if not kind.lacking or dice.random() >= kind.lacking]
        rows.append(
            {
                "id": f"r{at}",
                "group": groups[at],
                "prompt": prompt,
                "scores": {name: round(float(scores[at, names.index(name)]), 4) for name in there},
                "costs": {name: float(costs[at, place]) for place, name in enumerate(names)},
            }
        )
    return Made(rows, chances, costs)


def known(chances: Doubles, costs: Doubles, keep: float = 0.99) -> float:
    """The share of the strongest model's bill that knowing every expected score saves at that share of its quality."""
    strongest = int(chances.mean(axis=0).argmax())
    bill, goal, most = costs[:, strongest].sum(), keep * chances[:, strongest].mean(), 0.0
    unit = max(1e-12, float(costs[:, strongest].mean()))
    rows = np.arange(len(chances))
    for price in np.concatenate([[0.0], np.geomspace(1e-4, 10, 200)]):
        worth = chances - price * costs / unit
        picked = np.argmin(np.where(worth >= worth.max(axis=1, keepdims=True) - 1e-12, costs, np.inf), axis=1)
        if chances[rows, picked].mean() >= goal and bill > 0:
            most = max(most, 1 - float(costs[rows, picked].sum() / bill))
    return most


def _scores(kind: Kind, chances: Doubles, dice: Generator) -> Doubles:
    if not kind.continuous:
        return (dice.random(chances.shape) < chances).astype(np.float64)
    return np.asarray(dice.beta(4 * chances + 1e-3, 4 * (1 - chances) + 1e-3))


def _costs(kind: Kind, sizes: Doubles, dice: Generator) -> Doubles:
    if kind.costs == "none":
        return np.zeros((len(sizes), kind.models))
    prices = np.geomspace(0.2e-6, 10e-6, kind.models)
    if kind.costs == "equal":
        prices = np.full(kind.models, 2e-6)
    elif kind.costs == "upside down":
        prices = prices[::-1]
    answers = (
        dice.lognormal(5, 0.4, (len(sizes), kind.models))
        if kind.costs != "equal"
        else np.full((len(sizes), kind.models), 150.0)
    )
    return np.asarray((sizes[:, None] / 4 + 3 * answers) * prices)


def _groups(kind: Kind, topics: NDArray[np.int64]) -> list[str]:
    count = kind.rows
    if kind.groups == "ten":
        return [f"g{at // 10}" for at in range(count)]
    if kind.groups == "topics":
        return [f"topic {topic}" for topic in topics]
    return ["all"] * count if kind.groups == "one" else [f"g{at}" for at in range(count)]


class _Words:
    """What prompts are written with."""

    def __init__(self, kind: Kind, dice: Generator) -> None:
        self._kind = kind
        writings = {"latin": ["latin"], "han": ["han"], "mixed": ["latin", "cyrillic", "han"]}[kind.writing]
        self._common = [self._vocabulary(writing, 300, dice) for writing in writings]
        self._own = [[self._vocabulary(writing, 40, dice) for _ in range(kind.topics)] for writing in writings]
        self._spaced = [writing != "han" for writing in writings]

    @staticmethod
    def _vocabulary(writing: str, count: int, dice: Generator) -> list[str]:
        if writing == "han":
            return ["".join(dice.choice(_HAN, 2)) for _ in range(count)]
        parts = _SYLLABLES if writing == "latin" else _CYRILLIC
        return ["".join(dice.choice(parts, int(dice.integers(2, 5)))) for _ in range(count)]

    def prompt(self, topic: int, shown: float, dice: Generator) -> str:
        """A prompt of a topic; `shown`: how hard its surface says that it is, in deviations."""
        writing = int(dice.integers(len(self._common)))
        common, own = self._common[writing], self._own[writing][topic]
        count = int(np.clip(18 * np.exp(0.5 * shown + 0.3 * dice.normal()), 5, 200))
        words = [str(dice.choice(own if dice.random() < 0.3 else common)) for _ in range(count)]
        for _ in range(int(dice.poisson(np.exp(0.6 * shown)))):
            words.insert(int(dice.integers(len(words) + 1)), str(int(dice.integers(2, 999))))
        return (" " if self._spaced[writing] else "").join(words) + ("?" if dice.random() < 0.7 else ".")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(KINDS), help="of these kinds")
    parser.add_argument("--rows", type=int, help="so many prompts instead of the kind's own")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.only or KINDS:
        kind = KINDS[name] if given.rows is None else replace(KINDS[name], rows=given.rows)
        found = make_set(kind, given.seed)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows)
        (given.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        told = {"known_saved_at_99": round(known(found.chances, found.costs), 4)}
        (given.folder / f"{name}.known.json").write_text(json.dumps(told), encoding="utf-8")
        sys.stdout.write(f"{name}: {json.dumps(told)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
