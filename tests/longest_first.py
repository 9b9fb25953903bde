"""In which order files of tests begin: those that took longest first, so that no worker is alone with one at the end.

What they took is in `seconds.json`, of files that took more than a second; a whole run notes what they took in it, and
`python scripts/longest.py` takes that over. Others, and files that nobody has timed, come last, in the usual order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

SECONDS = Path(__file__).with_name("seconds.json")
LEAST = 1.0
"""Seconds below which it does not matter when a file begins."""
NOTED = "groundplan/seconds"
"""Where pytest's cache has what the files of the newest whole run took."""


def file_of(test: str) -> str:
    """`tests/unit/test_x.py` of `tests/unit/test_x.py::test_y`."""
    return test.partition("::")[0]


def known_seconds(path: Path = SECONDS) -> dict[str, float]:
    return dict(json.loads(path.read_text()))


def place(test: str, seconds: Mapping[str, float]) -> float:
    """The smaller, the earlier its file begins."""
    return -seconds.get(file_of(test), 0.0)


def worth_knowing(took: Mapping[str, float]) -> dict[str, float]:
    """Of what files took, in the form of `seconds.json`: the longest first, whole seconds."""
    return {file: round(each) for file, each in Counter(dict(took)).most_common() if each > LEAST}
