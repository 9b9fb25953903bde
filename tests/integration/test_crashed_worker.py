"""A worker of a test run that dies costs the test it died in, and the run goes to its end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import again
from tests.crashed_worker import CACHE_KEY

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests.crashed_worker import FilesInTurn

def pytest_xdist_make_scheduler(config, log):
    return FilesInTurn(config, log)
"""
DIES = """
import os, signal, time

def test_before(): pass
def test_dies():
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
def test_after(): pass
def test_last(): pass
"""
QUICK = "import time\n" + "".join(f"def test_{i}(): time.sleep(0.01)\n" for i in range(5))


def test_worker_that_dies_costs_one_test(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_b_dies.py").write_text(DIES)
    for name in "acdefghi":
        (tmp_path / f"test_{name}_quick.py").write_text(QUICK)
    # what other plugins load takes several times as long as these tests
    alone = ["-p", "no:schemathesis", "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:hypothesispytest"]
    arguments = ["-q", "-n", "2", "--dist", "loadfile", "--rootdir", str(tmp_path), *alone]
    command = [sys.executable, "-m", "pytest", *arguments, str(tmp_path)]
    found = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, cwd=tmp_path, env=found, capture_output=True, text=True, timeout=90)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert re.search(r"FAILED.*test_b_dies\.py::test_dies", ran.stdout), ran.stdout
    assert "1 failed, 43 passed" in ran.stdout, ran.stdout
    crashed = json.loads((tmp_path / ".pytest_cache/v" / CACHE_KEY).read_text())
    assert crashed == ["test_b_dies.py::test_dies"]


FOUND = "an example that was found once exists"
FUZZED = "tests/integration/test_api_fuzzed.py::test_no_route_answers_500"
ACROSS = "tests/integration/test_permission_model.py::test_the_next_question_sees_exactly_what_is_allowed_now"


@pytest.mark.parametrize(
    ("test", "final"),
    [
        ("tests/acceptance/test_promise_03_budget.py::test_one", "it proves a promise"),
        (ACROSS, FOUND),
        (FUZZED, FOUND),
        ("tests/unit/test_ticks.py::test_the_next_time_is_about_one_period_later", FOUND),
        ("tests/unit/test_ticks.py::States::runTest", FOUND),
    ],
)
def test_where_a_worker_died_there_is_a_second_look_at_any_test(test: str, final: str) -> None:
    assert (again.final_reason(test), again.final_reason(test, [test])) == (final, None)


def test_beside_a_property_other_tests_have_a_second_look() -> None:
    assert again.final_reason("tests/unit/test_ticks.py::test_two_that_rest_wake_in_one_turn_of_the_loop") is None
