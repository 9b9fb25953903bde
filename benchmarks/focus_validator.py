"""Let the FOCUS specification's validator read an export with every term of a cost.

    python benchmarks/focus_validator.py PATH_TO_FOCUS_VALIDATOR

The validator wants an environment of its own: it needs older libraries than ours. Make one with `python3.11 -m venv V`
and `V/bin/pip install focus-validator==1.0.0 "multimethod<2"`, then name V/bin/focus-validator. Exit 0 where it accepts
the file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from groundplan.economics.allocate.model import Basis, Line
from groundplan.economics.export.focus import CATEGORIES, focus_csv

TERMS = ("input", "cached_input", "output", "reasoning", "guardrail", *CATEGORIES)
FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)


def lines() -> list[Line]:
    """One line of each term and basis, with names that a spreadsheet would run."""
    bases: tuple[Basis, ...] = ("measured", "allocated", "estimated")
    return [
        Line(
            term=term, workload="support" if number % 3 else "", team="care" if number % 2 else "",
            amount=1_234_567_890_123 + number, basis=bases[number % 3], rule="=cmd()", source="@guess",
            deployment="gpt-eu", site="azure-sweden", model="openai/gpt-4.1-mini", quantity=1000 + number,
        )
        for number, term in enumerate(TERMS)
    ]  # fmt: skip


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    validator = Path(sys.argv[1]).absolute()
    packages = next(validator.parent.parent.glob("lib/python*/site-packages"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "focus.csv"
        file.write_text(focus_csv(lines(), "acme", FIRST, LAST), encoding="utf-8")
        command = [str(validator), "--data-file", str(file), "--validate-version", "1.0"]
        # it looks for its currency codes in its own folder only
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=packages)
    accepted = done.returncode == 0 and "Validation succeeded" in done.stdout
    print(f"accepted: {len(lines())} terms" if accepted else done.stdout[-3000:] + done.stderr[-2000:])
    return not accepted


if __name__ == "__main__":
    raise SystemExit(main())
