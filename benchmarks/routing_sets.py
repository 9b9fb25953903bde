"""Generated evaluation sets of a known structure, to measure `routing.py` on.

    python benchmarks/routing_sets.py FOLDER             writes one file for each kind
    python benchmarks/routing_sets.py FOLDER --only few  one of them

Each prompt has a topic, which its words show, and a difficulty, which its surface (length, numbers and steps) shows in
part; each model has an ability for each topic. For each set `KIND.known.json` has the savings of a router that knows
every probability, but no outcome, at 99 % of the best single model's quality: more can only be luck.
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

_SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvz" for vowel in "aeiou"]
_CYRILLIC = [consonant + vowel for consonant in "бвгджзклмнпрстхчш" for vowel in "аеиоу"]
_HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 1400)]


@dataclass(frozen=True, slots=True)
class Kind:
    """Parameters of a generated set."""

    rows: int = 2000
    models: int = 2
    topics: int = 24
    by_topic: float = 1.0
    """How much difficulty and abilities differ between topics."""
    by_surface: float = 1.0
    """How much difficulty shows in the surface of a prompt."""
    hidden: float = 0.5
    """How much of the difficulty shows in nothing."""
    spread: float = 1.6
    """How far the weakest model is behind the strongest."""
    sharp: float = 2.0
    """How reliably a model answers prompts within its ability."""
    continuous: bool = False
    costs: str = "apart"
    """apart: stronger models cost more | equal | upside down: the strongest is the cheapest | none: all are free."""
    groups: str = "own"
    """own: a group per prompt | ten: about ten prompts in each | topics: a group per topic | one: a single group."""
    writing: str = "latin"
    """latin | mixed: a third each of three writings | han."""
    lacking: float = 0.0
    """Share of scores that are missing."""


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
class GeneratedSet:
    """A generated set; `chances` are expected scores (rows, models)."""

    rows: list[dict[str, Any]]
    chances: Doubles
    costs: Doubles


def make_set(kind: Kind, seed: int = 0) -> GeneratedSet:
    """Generate a set of that kind."""
    rng = np.random.default_rng(seed)
    words = _Vocabulary(kind, rng)
    topics = rng.integers(kind.topics, size=kind.rows)
    topic_difficulty = rng.normal(0, 0.6 * kind.by_topic, kind.topics)
    ability = np.linspace(-kind.spread, 0, kind.models)[:, None] + rng.normal(
        0, 0.7 * kind.by_topic, (kind.models, kind.topics)
    )
    surface = rng.normal(size=kind.rows)
    difficulty = 0.8 * kind.by_surface * surface + topic_difficulty[topics] + rng.normal(0, kind.hidden, kind.rows)
    chances = 1 / (1 + np.exp(-kind.sharp * (0.9 + ability[:, topics].T - difficulty[:, None])))
    scores = _draw_scores(kind, chances, rng)
    prompts = [
        words.prompt(int(topic), float(shown_difficulty), rng)
        for topic, shown_difficulty in zip(topics, surface, strict=True)
    ]
    costs = _draw_costs(kind, np.array([len(prompt) for prompt in prompts], dtype=np.float64), rng)
    names = [f"maker/model-{number}" for number in range(kind.models)]
    groups = _group_names(kind, topics)
    rows = []
    for row, prompt in enumerate(prompts):
        scored_models = [name for name in names if not kind.lacking or rng.random() >= kind.lacking]
        rows.append(
            {
                "id": f"r{row}",
                "group": groups[row],
                "prompt": prompt,
                "scores": {name: round(float(scores[row, names.index(name)]), 4) for name in scored_models},
                "costs": {name: float(costs[row, column]) for column, name in enumerate(names)},
            }
        )
    return GeneratedSet(rows, chances, costs)


def oracle_savings(chances: Doubles, costs: Doubles, keep: float = 0.99) -> float:
    """The share of the strongest model's bill that a router saves which knows every expected score, while it keeps the
    share `keep` of that model's quality."""
    strongest = int(chances.mean(axis=0).argmax())
    bill, quality_goal, best = costs[:, strongest].sum(), keep * chances[:, strongest].mean(), 0.0
    cost_unit = max(1e-12, float(costs[:, strongest].mean()))
    rows = np.arange(len(chances))
    for price in np.concatenate([[0.0], np.geomspace(1e-4, 10, 200)]):
        worth = chances - price * costs / cost_unit
        chosen = np.argmin(np.where(worth >= worth.max(axis=1, keepdims=True) - 1e-12, costs, np.inf), axis=1)
        if chances[rows, chosen].mean() >= quality_goal and bill > 0:
            best = max(best, 1 - float(costs[rows, chosen].sum() / bill))
    return best


def _draw_scores(kind: Kind, chances: Doubles, rng: Generator) -> Doubles:
    if not kind.continuous:
        return (rng.random(chances.shape) < chances).astype(np.float64)
    return np.asarray(rng.beta(4 * chances + 1e-3, 4 * (1 - chances) + 1e-3))


def _draw_costs(kind: Kind, sizes: Doubles, rng: Generator) -> Doubles:
    if kind.costs == "none":
        return np.zeros((len(sizes), kind.models))
    prices = np.geomspace(0.2e-6, 10e-6, kind.models)
    if kind.costs == "equal":
        prices = np.full(kind.models, 2e-6)
    elif kind.costs == "upside down":
        prices = prices[::-1]
    answers = (
        rng.lognormal(5, 0.4, (len(sizes), kind.models))
        if kind.costs != "equal"
        else np.full((len(sizes), kind.models), 150.0)
    )
    return np.asarray((sizes[:, None] / 4 + 3 * answers) * prices)


def _group_names(kind: Kind, topics: NDArray[np.int64]) -> list[str]:
    count = kind.rows
    if kind.groups == "ten":
        return [f"g{row // 10}" for row in range(count)]
    if kind.groups == "topics":
        return [f"topic {topic}" for topic in topics]
    return ["all"] * count if kind.groups == "one" else [f"g{row}" for row in range(count)]


class _Vocabulary:
    """The words that prompts are written with: common ones, and some of each topic."""

    def __init__(self, kind: Kind, rng: Generator) -> None:
        self._kind = kind
        writings = {"latin": ["latin"], "han": ["han"], "mixed": ["latin", "cyrillic", "han"]}[kind.writing]
        self._common_words = [self._draw_words(writing, 300, rng) for writing in writings]
        self._topic_words = [[self._draw_words(writing, 40, rng) for _ in range(kind.topics)] for writing in writings]
        self._has_spaces = [writing != "han" for writing in writings]

    @staticmethod
    def _draw_words(writing: str, count: int, rng: Generator) -> list[str]:
        if writing == "han":
            return ["".join(rng.choice(_HAN, 2)) for _ in range(count)]
        parts = _SYLLABLES if writing == "latin" else _CYRILLIC
        return ["".join(rng.choice(parts, int(rng.integers(2, 5)))) for _ in range(count)]

    def prompt(self, topic: int, shown_difficulty: float, rng: Generator) -> str:
        """A prompt of a topic; `shown`: the difficulty that its surface shows, in standard deviations."""
        writing = int(rng.integers(len(self._common_words)))
        common, of_topic = self._common_words[writing], self._topic_words[writing][topic]
        count = int(np.clip(18 * np.exp(0.5 * shown_difficulty + 0.3 * rng.normal()), 5, 200))
        words = [str(rng.choice(of_topic if rng.random() < 0.3 else common)) for _ in range(count)]
        for _ in range(int(rng.poisson(np.exp(0.6 * shown_difficulty)))):
            words.insert(int(rng.integers(len(words) + 1)), str(int(rng.integers(2, 999))))
        return (" " if self._has_spaces[writing] else "").join(words) + ("?" if rng.random() < 0.7 else ".")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(KINDS), help="of these kinds")
    parser.add_argument("--rows", type=int, help="so many prompts instead of the kind's own")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.only or KINDS:
        kind = KINDS[name] if options.rows is None else replace(KINDS[name], rows=options.rows)
        generated = make_set(kind, options.seed)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in generated.rows)
        (options.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        known = {"known_saved_at_99": round(oracle_savings(generated.chances, generated.costs), 4)}
        (options.folder / f"{name}.known.json").write_text(json.dumps(known), encoding="utf-8")
        sys.stdout.write(f"{name}: {json.dumps(known)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
