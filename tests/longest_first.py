"""The order in which test files begin: the longest first, so that no worker is left with one at the end, and those that
mostly wait mixed with those that compute, so that processors are busy from the beginning.

`seconds.json` has the durations of files that take more than a second; a complete run records them, and
`python scripts/longest.py` copies them there. Other files come last, in the usual order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SECONDS = Path(__file__).with_name("seconds.json")
MIN_SECONDS = 1.0
"""Files that take fewer seconds are not listed."""
CACHE_KEY = "groundplan/seconds"
"""Key in pytest's cache of the durations of the newest complete run."""
WAITS_BELOW, COMPUTING_PER_WAITING = 1 / 3, 2
"""A file that computes for less than this share of its time counts as waiting (a computing one gets half a processor
where five workers share two), and how many computing files begin after each waiting one, since there are more."""


class Duration(NamedTuple):
    """Seconds that the tests of a file took, and CPU seconds of them and their child processes."""

    seconds: float
    computed: float


def file_of_test(test: str) -> str:
    """`tests/unit/test_x.py` of `tests/unit/test_x.py::test_y`."""
    return test.partition("::")[0]


def load_durations(path: Path = SECONDS) -> dict[str, Duration]:
    return {file: Duration(*took) for file, took in json.loads(path.read_text()).items()}


def order_files(known: Mapping[str, Duration]) -> dict[str, int]:
    """File -> its position in the order."""
    longest = sorted(known, key=lambda file: -known[file].seconds)
    waiting = [file for file in longest if known[file].computed < WAITS_BELOW * known[file].seconds]
    computing = [file for file in longest if file not in set(waiting)]
    turns = [(turn, file) for turn, file in enumerate(waiting)]
    turns += [(number // COMPUTING_PER_WAITING, file) for number, file in enumerate(computing)]
    return {file: number for number, (_, file) in enumerate(sorted(turns, key=lambda each: each[0]))}


def position_of(test: str, first: Mapping[str, int]) -> int:
    """The position of a test's file; after all others if its duration is unknown."""
    return first.get(file_of_test(test), len(first))


def format_durations(took: Mapping[str, tuple[float, float]]) -> dict[str, list[int]]:
    """The content of `seconds.json`: durations in whole seconds, the longest first."""
    kept = sorted((Duration(*each), file) for file, each in took.items() if each[0] > MIN_SECONDS)
    return {file: [round(each.seconds), round(each.computed)] for each, file in reversed(kept)}
