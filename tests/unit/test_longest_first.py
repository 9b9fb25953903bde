"""Files of tests that take long begin first, those that wait among those that compute, and what is known of them is of
files that there are.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.longest_first import Duration, format_durations, load_durations, order_files, position_of

ROOT = Path(__file__).parents[2]


def test_the_longest_file_begins_first_and_one_that_nobody_timed_last() -> None:
    first = order_files({"tests/a.py": Duration(2, 2), "tests/c.py": Duration(90, 80)})
    tests = ["tests/a.py::test_1", "tests/a.py::test_2", "tests/b.py::test_1", "tests/c.py::test_1[x::y]"]
    assert sorted(tests, key=lambda test: position_of(test, first)) == [tests[3], *tests[:2], tests[2]]


def test_those_that_wait_begin_among_those_that_compute() -> None:
    known = {
        "w9": Duration(9, 1),
        "w8": Duration(8, 1),
        "c7": Duration(7, 7),
        "c6": Duration(6, 5),
        "c5": Duration(5, 2),
        "w4": Duration(4, 0),
    }
    assert sorted(known, key=order_files(known).__getitem__) == ["w9", "c7", "c6", "w8", "c5", "w4"]


def test_what_takes_no_time_is_not_kept(tmp_path: Path) -> None:
    kept = format_durations({"tests/quick.py": (0.4, 0.4), "tests/a.py": (2.4, 1.6), "tests/b.py": (12.6, 0.3)})
    assert list(kept.items()) == [("tests/b.py", [13, 0]), ("tests/a.py", [2, 2])]
    file = tmp_path / "seconds.json"
    file.write_text(json.dumps(kept))
    assert load_durations(file) == {"tests/b.py": (13, 0), "tests/a.py": (2, 2)}


def test_every_file_that_is_known_is_there() -> None:
    known = load_durations()
    assert len(known) > 100
    assert [file for file in known if not (ROOT / file).is_file()] == []
