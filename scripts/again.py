"""A second look at the few tests that failed in a whole run: each must pass three times alone, or its failure stands.

    python scripts/again.py      after `make test` failed, in the same checkout

On a machine that others slow down, one of thousands of tests may miss a deadline. No second look is had by tests of
promises (a promise that was broken once is broken), by properties (an example that was found once exists; what stands
beside them in a module has one), by more than MOST failures, or by what could not be collected, and in none of a run
that broke off. Where the worker of the tests died in one (in native code, at whatever it came to next), that says
nothing of the test, whichever it is. Everything that needed one is told by name, so that it gets mended.
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
WHOLE = "1"
"""How pytest ends where tests failed and all ran."""
SEARCHING = frozenset({"given", "run_state_machine_as_test"})
"""By which names examples are looked for."""
MOST = 3
TIMES = 3


def stands(test: str, crashed: Collection[str] = ()) -> str | None:
    """Why the failure of a test is final; None: it may be looked at again. `crashed`: those in which a worker died."""
    path, _, name = test.partition("::")
    if not name:
        return "it could not be collected"
    if test in crashed:
        return None
    if path.startswith("tests/acceptance/"):
        return "it proves a promise"
    if searches(ast.parse((ROOT / path).read_text()), name.partition("[")[0].rpartition("::")[2]):
        return "an example that was found once exists"
    return None


def searches(module: ast.Module, test: str) -> bool:
    """Whether a test of that name looks for examples: it, or a function of its module that it names, names one of
    SEARCHING. So does one that is not found as a function (the test of a machine of states)."""
    said: dict[str, set[str]] = {}
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            said.setdefault(function.name, set()).update(
                node.id if isinstance(node, ast.Name) else node.attr
                for node in ast.walk(function)
                if isinstance(node, ast.Name | ast.Attribute)
            )
    if test not in said:
        return True
    names: set[str] = set()
    new = {test}
    while new:
        names |= new
        new = {name for function in new for name in said.get(function, ())} - names
    return not names.isdisjoint(SEARCHING)


def main() -> int:
    if not ENDED.exists() or ENDED.read_text().strip() != WHOLE or not FAILED.exists():
        print("no second look: the tests did not run to their end", file=sys.stderr)
        return 1
    failed = list(json.loads(FAILED.read_text()))
    crashed = json.loads(CRASHED.read_text()) if CRASHED.exists() else []
    final = [f"{test}: {why}" for test in failed if (why := stands(test, crashed)) is not None]
    if not failed or len(failed) > MOST or final:
        print("no second look:", "; ".join(final) or f"{len(failed)} tests failed", file=sys.stderr)
        return 1
    for _ in range(TIMES):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *failed], cwd=ROOT, check=False
        )
        if done.returncode != 0:
            return 1
    for test in failed:
        what = "was where a worker died" if test in crashed else "failed once in the whole run"
        print(f"UNSTEADY: {test} {what} and passed {TIMES} times by itself", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
