"""Files of tests that take long begin first, and what is known of them is of files that there are."""

from __future__ import annotations

import json
from pathlib import Path

from tests.longest_first import known_seconds, place, worth_knowing

ROOT = Path(__file__).parents[2]


def test_the_longest_file_begins_first_and_one_that_nobody_timed_last() -> None:
    seconds = {"tests/a.py": 2.0, "tests/c.py": 90.0}
    tests = ["tests/a.py::test_1", "tests/a.py::test_2", "tests/b.py::test_1", "tests/c.py::test_1[x::y]"]
    assert sorted(tests, key=lambda test: place(test, seconds)) == [tests[3], *tests[:3]]


def test_what_takes_no_time_is_not_kept(tmp_path: Path) -> None:
    kept = worth_knowing({"tests/quick.py": 0.4, "tests/a.py": 2.4, "tests/b.py": 12.6})
    assert list(kept.items()) == [("tests/b.py", 13), ("tests/a.py", 2)]
    file = tmp_path / "seconds.json"
    file.write_text(json.dumps(kept))
    assert known_seconds(file) == kept


def test_every_file_that_is_known_is_there() -> None:
    known = known_seconds()
    assert len(known) > 100
    assert [file for file in known if not (ROOT / file).is_file()] == []
