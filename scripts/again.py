"""Repeats the few tests that failed in a complete run: each must pass three times alone, or its failure is final.

    python scripts/again.py      after `make test` failed, in the same checkout

On a machine that others slow down, one of thousands of tests may miss a deadline. Not repeated are tests of promises (a
promise that was broken once is broken), properties (an example that was found once exists; other tests of their modules
are repeated), more than MAX_FAILURES failures, tests that could not be collected, and failures of a run that was
aborted. Where a worker died in a test (in native code, at whatever it ran next), that says nothing about the test,
whichever it is. Every repeated test is reported by name, so that it gets fixed.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".pytest_cache/v"
FAILED, ENDED, CRASHED = CACHE / "cache/lastfailed", CACHE / "groundplan/ended", CACHE / "groundplan/crashed"
COMPLETE = "1"
"""Exit code of pytest where all tests ran and some failed."""
SEARCHING = frozenset({"given", "run_state_machine_as_test"})
"""Names of functions that search for examples."""
MAX_FAILURES = 3
REPEATS = 3


def final_reason(test: str, crashed: Collection[str] = ()) -> str | None:
    """Why the failure of a test is final; None: it may be repeated. `crashed`: tests in which a worker died."""
    path, _, name = test.partition("::")
    if not name:
        return "it could not be collected"
    if test in crashed:
        return None
    if path.startswith("tests/acceptance/"):
        return "it proves a promise"
    if uses_examples(ast.parse((ROOT / path).read_text()), name.partition("[")[0].rpartition("::")[2]):
        return "an example that was found once exists"
    return None


def uses_examples(module: ast.Module, test: str) -> bool:
    """Whether a test searches for examples: it, or a function of its module that it refers to, refers to one of
    SEARCHING. True also for tests that are no functions (those of state machines)."""
    references: dict[str, set[str]] = {}
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            references.setdefault(function.name, set()).update(
                node.id if isinstance(node, ast.Name) else node.attr
                for node in ast.walk(function)
                if isinstance(node, ast.Name | ast.Attribute)
            )
    if test not in references:
        return True
    names: set[str] = set()
    new = {test}
    while new:
        names |= new
        new = {name for function in new for name in references.get(function, ())} - names
    return not names.isdisjoint(SEARCHING)


def main() -> int:
    if not ENDED.exists() or ENDED.read_text().strip() != COMPLETE or not FAILED.exists():
        print("no second look: the tests did not run to their end", file=sys.stderr)
        return 1
    failed = list(json.loads(FAILED.read_text()))
    crashed = json.loads(CRASHED.read_text()) if CRASHED.exists() else []
    final = [f"{test}: {why}" for test in failed if (why := final_reason(test, crashed)) is not None]
    if not failed or len(failed) > MAX_FAILURES or final:
        print("no second look:", "; ".join(final) or f"{len(failed)} tests failed", file=sys.stderr)
        return 1
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *failed], cwd=ROOT, check=False
        )
        if done.returncode != 0:
            return 1
    for test in failed:
        what = "was where a worker died" if test in crashed else "failed once in the whole run"
        print(f"UNSTEADY: {test} {what} and passed {REPEATS} times by itself", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
