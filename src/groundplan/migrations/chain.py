"""The order of the schema's steps: `versions/NNNN_what.py`, each after the one with the next lower number.

Runs nothing by itself; a step asks this for its place and its statements, so that steps made beside each other form one
line. There is no way back from a step: a backup is restored instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import LiteralString

from alembic import op


def step(file: str) -> tuple[str, str | None, Callable[[], None]]:
    """(revision, the revision before it, what runs it) of the step in `file`; the first has none before it."""
    own = Path(file)
    before = [path.stem for path in own.parent.glob("[0-9]*.py") if path.stem < own.stem]
    return own.stem, max(before, default=None), partial(_run, own)


def _run(own: Path) -> None:
    """The SQL beside `versions`, under the step's own name, as one text with the database's name put in."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(statements(own.stem, connection.info.dbname))


def statements(step: str, database: str) -> LiteralString:
    """The SQL of a step."""
    text = Path(__file__).with_name(f"{step}.sql").read_text(encoding="utf-8")
    return text % {"db": database}
