"""The order of the schema's steps: `versions/NNNN_what.py`, each after the one with the next lower number.

Runs nothing by itself; a step names its predecessor with this, so that steps made beside each other form one line.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op


def previous(file: str) -> str | None:
    """The revision before the step in `file`; None for the first."""
    own = Path(file)
    before = [path.stem for path in own.parent.glob("[0-9]*.py") if path.stem < own.stem]
    return max(before, default=None)


def run_statements(file: str) -> None:
    """Run the SQL beside `versions`, under the step's own name, as one text with the database's name put in."""
    own = Path(file)
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    text = own.parent.parent.joinpath(f"{own.stem}.sql").read_text(encoding="utf-8")
    connection.execute(text % {"db": connection.info.dbname})
