"""In which order files of tests begin: those that took longest first, so that no worker is alone with one at the end,
and those that mostly wait among those that compute, so that processors have work from the beginning.

What they took is in `seconds.json`, of files that took more than a second; a whole run notes what they took in it, and
`python scripts/longest.py` takes that over. Others, and files that nobody has timed, come last, in the usual order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SECONDS = Path(__file__).with_name("seconds.json")
LEAST = 1.0
"""Seconds below which it does not matter when a file begins."""
NOTED = "groundplan/seconds"
"""Where pytest's cache has what the files of the newest whole run took."""
WAITS_BELOW, AT_ONCE = 1 / 3, 2
"""Share of its time that a file computes which mostly waits: whoever computes has half a processor where two are shared
by five workers. After each of these begin so many of the others, of which there are more."""


class Took(NamedTuple):
    """Seconds from the beginning of a file's tests to their end, and of computing by them and what they started."""

    seconds: float
    computed: float


def file_of(test: str) -> str:
    """`tests/unit/test_x.py` of `tests/unit/test_x.py::test_y`."""
    return test.partition("::")[0]


def known_seconds(path: Path = SECONDS) -> dict[str, Took]:
    return {file: Took(*took) for file, took in json.loads(path.read_text()).items()}


def places(known: Mapping[str, Took]) -> dict[str, int]:
    """File -> the smaller, the earlier it begins."""
    longest = sorted(known, key=lambda file: -known[file].seconds)
    waiting = [file for file in longest if known[file].computed < WAITS_BELOW * known[file].seconds]
    computing = [file for file in longest if file not in set(waiting)]
    turns = [(turn, file) for turn, file in enumerate(waiting)]
    turns += [(number // AT_ONCE, file) for number, file in enumerate(computing)]
    return {file: number for number, (_, file) in enumerate(sorted(turns, key=lambda each: each[0]))}


def place(test: str, first: Mapping[str, int]) -> int:
    """Of a test's file among `places`; behind all of them where nobody has timed it."""
    return first.get(file_of(test), len(first))


def worth_knowing(took: Mapping[str, tuple[float, float]]) -> dict[str, list[int]]:
    """Of what files took, in the form of `seconds.json`: the longest first, whole seconds."""
    kept = sorted((Took(*each), file) for file, each in took.items() if each[0] > LEAST)
    return {file: [round(each.seconds), round(each.computed)] for each, file in reversed(kept)}
