"""Let the FOCUS specification's validator read an export with every term of a cost.

    python benchmarks/focus_validator.py PATH_TO_FOCUS_VALIDATOR [--file FOCUS.csv | --terms] [--json]

Without an option, the export of a real book (`focus_book`): calls in a ledger of its own, and costs beside them, with
the fields that such a book leaves empty, which are named. `--file`: an export that was saved by `groundplan cost export
FOCUS.csv`. `--terms`: rows made up of every term, unit, tier and basis, which no one book has.

The validator wants an environment of its own: it needs older libraries than ours. Make one with `python3.11 -m venv V`
and `V/bin/pip install focus-validator==1.0.0 "multimethod<2"`, then name V/bin/focus-validator. Exit 0 where it accepts
the file.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import focus_book

from groundplan.api.cost.book import UNITS
from groundplan.economics.allocate.model import Basis, Line
from groundplan.economics.export.focus import CATEGORIES, focus_csv
from groundplan.testing.database import cluster

TERMS = (
    "input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "input_audio", "images",
    "images_made", "characters", "seconds", "requests", "searches", "bound", "embedding", "rerank", "moderation",
    "guardrail", "cascade", "judge", "shadow", *CATEGORIES,
)  # fmt: skip
MONTHS = ((date(2026, 10, 5), date(2026, 10, 31)), (date(2026, 11, 1), date(2026, 11, 30)))


def lines() -> list[Line]:
    """One line of each term and basis, with names that a spreadsheet would run; some with as little as allocated costs
    have."""
    bases: tuple[Basis, ...] = ("measured", "allocated", "estimated")
    place: dict[str, Any] = {"deployment": "gpt-eu", "site": "azure-sweden", "model": "openai/gpt-4.1-mini"}
    return [
        Line(
            term=term, workload="support" if number % 3 else "", team="care" if number % 2 else "",
            amount=1_234_567_890_123 + number, basis=bases[number % 3], rule="=cmd()", source="@guess",
            **({} if number % 4 == 0 else {
                **place, "quantity": 1000 + number, "unit": UNITS.get(term, "Tokens"),
                "tier": "batch" if number % 5 else "",
            }),
        )
        for number, term in enumerate(TERMS)
    ]  # fmt: skip


def exported() -> str:
    """Of a real book."""
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as server, server.database() as database:
        return focus_book.export(database)


def partly_empty(text: str) -> list[str]:
    """Columns that some rows leave empty and others do not."""
    rows = list(csv.DictReader(io.StringIO(text)))
    return [name for name in (rows[0] if rows else ()) if 0 < sum(not row[name] for row in rows) < len(rows)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("validator", type=Path)
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--file", type=Path, help="an export; else that of a real book")
    given.add_argument("--terms", action="store_true", help="made-up rows of every term")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    validator = asked.validator.absolute()
    if asked.file:
        text = asked.file.read_text("utf-8")
    else:
        text = focus_csv([(*m, lines()) for m in MONTHS], "acme") if asked.terms else exported()
    packages = next(validator.parent.parent.glob("lib/python*/site-packages"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "focus.csv"
        file.write_text(text, encoding="utf-8")
        command = [str(validator), "--data-file", str(file), "--validate-version", "1.0"]
        # it looks for its currency codes in its own folder only
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=packages)
    accepted = done.returncode == 0 and "Validation succeeded" in done.stdout
    rows, empty = text.count("\n") - 1, partly_empty(text)
    if asked.json:
        found = {"accepted": accepted, "rows": rows, "partly_empty": empty, "report": done.stdout[-3000:]}
        print(json.dumps(found))
    else:
        told = f"accepted: {rows} rows, of which some leave empty: {', '.join(empty) or 'nothing'}"
        print(told if accepted else done.stdout[-3000:] + done.stderr[-2000:])
    return not accepted


if __name__ == "__main__":
    raise SystemExit(main())
