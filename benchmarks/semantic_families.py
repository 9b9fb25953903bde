"""Labelled pairs of questions for the semantic cache, of which it is known whether they mean the same: all families.

    python benchmarks/semantic_families.py FAMILY SEED > pairs.jsonl

Each line is {"a", "b", "same", "kind", "intent", "group"}; the same seed gives the same pairs. Kinds of families:

`pairs`   the same intent in other words, and traps of every kind: `tune` sets weights and thresholds, `report` and
          `fresh` are others, `wide` has 416 intents with traps of its own
`apart`   420 intents each with qualifiers, adjuncts, heads and owners: `apart`, `later`
`put`     questions that differ in their phrasing, in fields of work and three lengths: `open`, `all`, `sealed`,
          `unseen`
`asked`   about 720 and 500 intents asked in other ways: `asked`, written after the rule was fixed, and `anew`, written
          after the rule was corrected for `asked`
`outside` 231 questions written one by one, in two halves (`outside`, `outside-sealed`); the seed has no effect

docs/performance.md says which settings were chosen in view of which family.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import (
    semantic_apart,
    semantic_asked,
    semantic_asked_anew,
    semantic_outside,
    semantic_pairs,
    semantic_put,
)

Rows = Iterator[dict[str, Any]]
Generator = Callable[[str, int, int | None], Rows]
"""(family, seed, rounds of all intents; None: the default of its kind) -> its pairs."""


def _pairs(family: str, seed: int, rounds: int | None) -> Rows:
    """Pairs of a family, including those in lower case and behind a name."""
    yield from semantic_pairs.generate_pairs(family, seed, rounds or 8)
    yield from semantic_pairs.generate_plain(family, seed, rounds or 3)


def _wide(_: str, seed: int, rounds: int | None) -> Rows:
    return semantic_pairs.generate_wide(seed, rounds or 2)


def _apart(family: str, seed: int, rounds: int | None) -> Rows:
    return semantic_apart.generate_pairs(family, seed, rounds or 2)


def _put(family: str, seed: int, rounds: int | None) -> Rows:
    return semantic_put.generate_pairs(family, seed, rounds or 2)


def _asked(family: str, seed: int, rounds: int | None) -> Rows:
    return semantic_asked.generate_pairs(family, semantic_asked.WAYS, semantic_asked.PLACES, seed, rounds or 3)


def _anew(family: str, seed: int, rounds: int | None) -> Rows:
    return semantic_asked.generate_pairs(
        family, semantic_asked_anew.WAYS, semantic_asked_anew.PLACES, seed, rounds or 6
    )


def _outside(family: str, _: int, __: int | None) -> Rows:
    return semantic_outside.generate_pairs(family)


_OWN: dict[str, Generator] = {"wide": _wide, "asked": _asked, "anew": _anew}
FAMILIES: dict[str, Generator] = (
    _OWN
    | dict.fromkeys(semantic_outside.FAMILIES, _outside)
    | dict.fromkeys(semantic_apart.FAMILIES, _apart)
    | dict.fromkeys(semantic_put.FAMILIES, _put)
    | dict.fromkeys(semantic_pairs.FAMILIES, _pairs)
)


def generate_family(family: str, seed: int, rounds: int | None = None) -> list[dict[str, Any]]:
    """The pairs of a family."""
    return list(FAMILIES[family](family, seed, rounds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=tuple(FAMILIES))
    parser.add_argument("seed", type=int)
    parser.add_argument("--rounds", type=int, help="of all intents, at least 1")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    for pair in generate_family(arguments.family, arguments.seed, arguments.rounds):
        print(json.dumps(pair | {"group": f"{arguments.family} {pair['intent']}"}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
