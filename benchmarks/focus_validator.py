"""Runs the FOCUS specification's validator on an export with every term of a cost.

    python benchmarks/focus_validator.py PATH_TO_FOCUS_VALIDATOR [--file FOCUS.csv | --terms] [--json]

Without an option, validates the export of a real book (`focus_book`): calls in a ledger of its own, and declared costs;
the fields that some rows leave empty are listed. `--file`: an export saved by `groundplan cost export FOCUS.csv`.
`--terms`: generated rows of every term, unit, tier and basis, which no single book has.

The validator needs an environment of its own, with older libraries than ours. Create it with `python3.11 -m venv V` and
`V/bin/pip install focus-validator==1.0.0 "multimethod<2"`, then pass V/bin/focus-validator. Exit code 0 if it accepts
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


def lines_of_all_terms() -> list[Line]:
    """One line of each term, with names that a spreadsheet would execute; some with as few fields as allocated costs
    have."""
    bases: tuple[Basis, ...] = ("measured", "allocated", "estimated")
    fields: dict[str, Any] = {"deployment": "gpt-eu", "site": "azure-sweden", "model": "openai/gpt-4.1-mini"}
    return [
        Line(
            term=term, workload="support" if number % 3 else "", team="care" if number % 2 else "",
            amount=1_234_567_890_123 + number, basis=bases[number % 3], rule="=cmd()", source="@guess",
            **({} if number % 4 == 0 else {
                **fields, "quantity": 1000 + number, "unit": UNITS.get(term, "Tokens"),
                "tier": "batch" if number % 5 else "",
            }),
        )
        for number, term in enumerate(TERMS)
    ]  # fmt: skip


def export_book() -> str:
    """The export of a real book."""
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as server, server.database() as database:
        return focus_book.export(database)


def partly_empty_columns(text: str) -> list[str]:
    """Columns that are empty in some rows and not in others."""
    rows = list(csv.DictReader(io.StringIO(text)))
    return [name for name in (rows[0] if rows else ()) if 0 < sum(not row[name] for row in rows) < len(rows)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("validator", type=Path)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--file", type=Path, help="an export; else that of a real book")
    source.add_argument("--terms", action="store_true", help="made-up rows of every term")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    validator = arguments.validator.absolute()
    if arguments.file:
        text = arguments.file.read_text("utf-8")
    else:
        text = (
            focus_csv([(*month, lines_of_all_terms()) for month in MONTHS], "acme")
            if arguments.terms
            else export_book()
        )
    packages = next(validator.parent.parent.glob("lib/python*/site-packages"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "focus.csv"
        file.write_text(text, encoding="utf-8")
        command = [str(validator), "--data-file", str(file), "--validate-version", "1.0"]
        # the validator looks for its currency codes in its own folder only
        validation = subprocess.run(command, capture_output=True, text=True, check=False, cwd=packages)
    accepted = validation.returncode == 0 and "Validation succeeded" in validation.stdout
    rows, empty_columns = text.count("\n") - 1, partly_empty_columns(text)
    if arguments.json:
        report = {
            "accepted": accepted,
            "rows": rows,
            "partly_empty": empty_columns,
            "report": validation.stdout[-3000:],
        }
        print(json.dumps(report))
    else:
        message = f"accepted: {rows} rows, of which some leave empty: {', '.join(empty_columns) or 'nothing'}"
        print(message if accepted else validation.stdout[-3000:] + validation.stderr[-2000:])
    return not accepted


if __name__ == "__main__":
    raise SystemExit(main())
